"""Watching the platform: what Prometheus scrapes, and Flink's metrics in its format."""
