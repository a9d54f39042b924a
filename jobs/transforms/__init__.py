"""Pure rules: records in, records or rejects out. No I/O, no clock, no environment."""
