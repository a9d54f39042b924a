"""A small world with known ground truth that uses the platform through its public doors only."""
