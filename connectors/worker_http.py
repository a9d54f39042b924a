"""A worker as a process: its signals, its exit codes, and what it shows of itself.

`/status` answers 200 when the worker does its work, else 503; `/metrics` is Prometheus text. A worker may also take
requests for work, each a path to POST to.
"""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import ValidationError
from pydantic_settings import BaseSettings

from connectors.endpoints import endpoints
from schemas.errors import ConfigError, HeadwaterError

logger = logging.getLogger(__name__)

EXIT_FAILED, EXIT_CONFIG, EXIT_UNAVAILABLE = 1, 2, 3


class Worker(Protocol):
    """What `run_worker` asks of a worker.

    `run` blocks until `stop`, and raises what can't be waited for. `stop` must be safe in a signal handler; `status`
    is called by any thread and holds `ready`.
    """

    def run(self) -> None: ...
    def stop(self) -> None: ...
    def status(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A worker that is wired, with what its process shows. `port` is where /status and /metrics answer."""

    worker: Worker
    settings: BaseSettings
    metrics: CollectorRegistry
    port: int


def run_worker(build: Callable[[], WorkerProcess]) -> int:
    """Builds a worker, runs it until SIGTERM or SIGINT, and gives back the process's exit code.

    Exit code: 0 told to stop or done, 1 fenced or refused, 2 wrong settings. `build` must not connect.
    """
    try:
        process = build()
    except ValidationError as e:
        logger.error("settings are wrong", extra={"problems": e.errors(include_url=False, include_input=False)})
        return EXIT_CONFIG
    except ConfigError as e:
        logger.error("settings are wrong", extra={"problems": str(e)})
        return EXIT_CONFIG
    worker = process.worker
    logger.info("starting", extra={"settings": process.settings.model_dump()})
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.stop())
    server = serve_worker_status(worker.status, process.metrics, endpoints().host, process.port)
    try:
        worker.run()
    except HeadwaterError as e:
        logger.error("ended", extra={"error": str(e), "kind": type(e).__name__})
        return EXIT_FAILED
    except Exception:
        logger.exception("ended")
        return EXIT_FAILED
    finally:
        server.shutdown()
    logger.info("stopped", extra={"status": worker.status()})
    return 0


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
