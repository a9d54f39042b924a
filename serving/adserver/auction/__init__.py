"""One imp: who takes part, at what price, who wins."""
