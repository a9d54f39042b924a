"""Other buyers: the fan-out."""
