"""What answers requests: collector, ad server, reporting."""
