"""The event handler's metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_PARTNER = ("partner",)


class VendorMetrics:
    """In a registry of their own. A partner's gauges are of what is in memory, unless they say otherwise."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.events = Counter(
            "vendors_events_total",
            "events read: with calls, without, repeated, of no known ad, undecodable, refused by the rules",
            ("outcome",),
            registry=registry,
        )
        self.queued_calls = Counter("vendors_queued_calls_total", "calls queued in Kafka", _PARTNER, registry=registry)
        self.refused_urls = Counter("vendors_refused_urls_total", "trackers that are no URL", registry=registry)
        self.attempts = Counter(
            "vendors_attempts_total",
            "attempts by what followed: delivered, retried, dead",
            ("partner", "outcome"),
            registry=registry,
        )
        self.latency_s = Histogram(
            "vendors_latency_seconds",
            "from sending to the head of the answer",
            _PARTNER,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self.delay_s = Histogram(
            "vendors_delay_seconds",
            "from queueing to delivery",
            _PARTNER,
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 86400),
            registry=registry,
        )
        self.dead = Counter("vendors_dead_letters_total", "dead letters", ("partner", "reason"), registry=registry)
        self.depth = Gauge("vendors_queue_depth", "calls that are not over", _PARTNER, registry=registry)
        self.in_flight = Gauge("vendors_in_flight", "calls on the wire", _PARTNER, registry=registry)
        self.lag = Gauge(
            "vendors_lag_records",
            "records between the partner's place and its partition's head, other partners' among them",
            _PARTNER,
            registry=registry,
        )
        self.oldest_s = Gauge("vendors_oldest_waiting_seconds", "age of the oldest call", _PARTNER, registry=registry)
        self.probing = Gauge("vendors_partner_down", "1 while a partner is only probed", _PARTNER, registry=registry)
        self.waiting = Gauge("vendors_waiting", "1 while something of ours is waited for", ("what",), registry=registry)
