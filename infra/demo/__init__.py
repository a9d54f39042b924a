"""`headwater demo`, and the reconciliation of every hop with the simulator's ledger."""
