"""What the worker shows: progress by table and partition, and its metrics."""

from __future__ import annotations

import threading
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class LakeMetrics:
    """The worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("table",)
        self.rows = Counter("lake_rows", "rows committed to bronze", labels, registry=self.registry)
        self.commits = Counter("lake_commits", "Delta commits", labels, registry=self.registry)
        self.commit_s = Histogram("lake_commit_seconds", "time of a Delta commit", labels, registry=self.registry)
        self.rejects = Counter("lake_rejects", "records refused", (*labels, "reason"), registry=self.registry)
        self.gaps = Counter(
            "lake_lost_offsets",
            "offsets that retention took before they were read",
            labels,
            registry=self.registry,
        )
        self.buffered = Gauge("lake_buffered_rows", "rows that wait for a commit", labels, registry=self.registry)
        self.freshness_s = Gauge(
            "lake_freshness_seconds",
            "commit time less the newest committed row's Kafka time",
            labels,
            registry=self.registry,
        )


class StatusBoard:
    """Shared between the worker's thread, which writes, and the status server's threads, which read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: dict[str, dict[str, Any]] = {}
        self.ready = False
        self.flush_requested = threading.Event()

    def set_table(self, topic: str, **fields: Any) -> None:
        with self._lock:
            self._tables.setdefault(topic, {}).update(fields)

    def snapshot(self) -> dict[str, Any]:
        """`{"ready", "topics": {topic: {table, version, rows, rejected, read, durable}}}`.

        `read` and `durable` are next offsets by partition: seen by the worker, and committed to Delta.
        """
        with self._lock:
            return {"ready": self.ready, "topics": {t: dict(v) for t, v in self._tables.items()}}
