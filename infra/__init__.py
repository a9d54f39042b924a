"""What starts, stops, deploys and watches: set-up, the local stack, the simulator, the demo and the `headwater` command."""
