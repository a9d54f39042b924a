"""A schema registry's door for operators that run without one: any schema has the one id."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

SCHEMA_ID = 263


@dataclass
class OneIdRegistry:
    """Its address, and what was registered: path and body."""

    url: str
    asked: list[tuple[str, Any]] = field(default_factory=list)


@contextmanager
def one_id_registry() -> Iterator[OneIdRegistry]:
    """Answers for as long as it is open."""

    class Door(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"id": SCHEMA_ID}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        found = OneIdRegistry(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()
