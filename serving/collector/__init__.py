"""The collector: beacons, telemetry, conversions and upstream logs in; Kafka out. It judges form, not meaning."""
