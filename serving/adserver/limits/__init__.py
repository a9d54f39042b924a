"""What may not be exceeded: frequency caps, budgets."""
