"""The collector's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class CollectorMetrics:
    """In a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.accepted = Counter(
            "collector_accepted_total", "records taken into the buffer", ("door",), registry=self.registry
        )
        self.refused = Counter(
            "collector_refused_total", "items refused at the door", ("door", "reason"), registry=self.registry
        )
        self.acknowledged = Counter(
            "collector_acknowledged_total", "records acknowledged by the broker", registry=self.registry
        )
        self.lost = Counter(
            "collector_lost_total",
            "records that were not kept: buffer full (beacons only) or not delivered in time",
            ("why",),
            registry=self.registry,
        )
        self.dropped_attributes = Counter(
            "collector_dropped_attributes_total",
            "attributes left out because they look like personal data or are too long",
            registry=self.registry,
        )
        self.buffered = Gauge("collector_buffered_records", "records not acknowledged yet", registry=self.registry)
        self.ack_s = Histogram(
            "collector_batch_ack_seconds",
            "time until the broker acknowledged a batch",
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self.registry,
        )
