"""HTTP doors."""
