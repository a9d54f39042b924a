"""The publisher's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class PublisherMetrics:
    """In a registry of their own, so that several workers can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.records = Counter(
            "publisher_records_total", "records read and committed", ("topic",), registry=self.registry
        )
        self.events = Counter("publisher_events_total", "events published", ("event_type",), registry=self.registry)
        self.rejects = Counter(
            "publisher_rejects_total", "dead letters by reason", ("topic", "reason"), registry=self.registry
        )
        self.quality = Counter(
            "publisher_quality_reasons_total", "events published with a doubt", ("reason",), registry=self.registry
        )
        self.transactions = Counter(
            "publisher_transactions_total", "transactions by end", ("end",), registry=self.registry
        )
        self.commit_s = Histogram(
            "publisher_transaction_seconds",
            "from a transaction's first record in hand to its commit",
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
            registry=self.registry,
        )
        self.delay_s = Histogram(
            "publisher_delay_seconds",
            "from the collector's receipt to publishing, oldest record of each transaction",
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
            registry=self.registry,
        )
        self.lookups = Counter(
            "publisher_registry_lookups_total",
            "ads of batches: memory, registry or unknown",
            ("result",),
            registry=self.registry,
        )
        self.hot_keys = Gauge("publisher_hot_keys", "users whose ads are spread over keys", registry=self.registry)
        self.salted_ads = Counter("publisher_salted_ads_total", "ads with a salted key", registry=self.registry)
        self.waiting = Gauge(
            "publisher_waiting", "1 while something outside is waited for", ("what",), registry=self.registry
        )
