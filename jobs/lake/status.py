"""What the worker shows: /status (progress by table and partition), /metrics (Prometheus), POST /flush."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


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


def serve_status(board: StatusBoard, metrics: LakeMetrics, host: str, port: int) -> ThreadingHTTPServer:
    """Starts the status server in a daemon thread. Errors: OSError when the port is taken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/status":
                snapshot = board.snapshot()
                self._answer(200 if snapshot["ready"] else 503, "application/json", json.dumps(snapshot).encode())
            elif self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4", generate_latest(metrics.registry))
            else:
                self._answer(404, "application/json", b'{"error": "not found"}')

        def do_POST(self) -> None:
            if self.path == "/flush":
                board.flush_requested.set()
                self._answer(202, "application/json", b'{"flush": "requested"}')
            else:
                self._answer(404, "application/json", b'{"error": "not found"}')

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged: a probe every second is no event."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server
