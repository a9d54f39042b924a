"""The materializer's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class MaterializerMetrics:
    """In a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.records = Counter(
            "materializer_records_total", "records read and written", ("topic",), registry=self.registry
        )
        self.refused = Counter(
            "materializer_refused_total", "records left out", ("topic", "reason"), registry=self.registry
        )
        self.fields = Counter("materializer_fields_total", "values written, after coalescing", registry=self.registry)
        self.pruned = Counter("materializer_pruned_total", "expired fields removed", registry=self.registry)
        self.rebuilds = Counter("materializer_rebuilds_total", "rebuilds from the beginning", registry=self.registry)
        self.lag_s = Histogram(
            "materializer_lag_seconds",
            "from the newest event counted in (its publish time) to the value in Valkey",
            buckets=(0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 5, 10, 60),
            registry=self.registry,
        )
        self.write_s = Histogram(
            "materializer_write_seconds",
            "one pipeline to Valkey",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2),
            registry=self.registry,
        )
        self.waiting = Gauge(
            "materializer_waiting", "1 while something outside is waited for", ("what",), registry=self.registry
        )
