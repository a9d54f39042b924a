"""What requests and responses say: messages, who may be known, where the ad would run."""
