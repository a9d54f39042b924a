"""What runs on data. A job is named for what comes out; pure rules are in jobs/transforms."""
