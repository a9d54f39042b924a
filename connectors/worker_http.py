"""What a worker shows of itself: `/status` (200 when it does its work, else 503) and `/metrics` (Prometheus).

A worker may also take requests for work, each a path to POST to.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def serve_worker_status(
    status: Callable[[], Mapping[str, Any]],
    metrics: CollectorRegistry,
    host: str,
    port: int,
    requests: Mapping[str, Callable[[], None]] | None = None,
) -> ThreadingHTTPServer:
    """Starts answering in daemon threads. `status` is called per request and holds `ready`.

    `requests` maps a path to what a POST to it asks for; it must not block, and is answered with 202.

    Errors: OSError when the port is taken.
    """

    wanted = requests or {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/status":
                found = status()
                self._answer(200 if found["ready"] else 503, "application/json", json.dumps(found).encode())
            elif self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(metrics))
            else:
                self._answer(404, "application/json", b'{"error": "not found"}')

        def do_POST(self) -> None:
            if self.path in wanted:
                wanted[self.path]()
                self._answer(202, "application/json", b'{"requested": true}')
            else:
                self._answer(404, "application/json", b'{"error": "not found"}')

        def _answer(self, code: int, content_type: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Probes are no events."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server
