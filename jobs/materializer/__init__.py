"""Absolute values from compacted topics into Valkey, where the ad server reads them."""
