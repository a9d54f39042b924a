"""Kafka → Delta bronze, exactly once. See README.md."""
