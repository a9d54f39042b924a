"""What starts, stops, deploys and watches: set-up, local stack, simulator, demo and the `headwater` command."""
