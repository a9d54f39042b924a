"""A schema registry's door for operators that run without one: any schema has the one id, or is refused."""

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
def one_id_registry(refusal: str = "") -> Iterator[OneIdRegistry]:
    """Answers for as long as it is open; with `refusal` as a registry does to which the schema is not compatible."""

    class Door(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(409 if refusal else 200)
            self.end_headers()
            answer = {"error_code": 409, "message": refusal} if refusal else {"id": SCHEMA_ID}
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        found = OneIdRegistry(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()
