"""The one central publisher: telemetry and conversions in, the one contract out."""
