"""`headwater replay`: real logs through the collector at a chosen speed, then the same reconciliation."""
