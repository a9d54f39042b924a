"""A real partner over HTTP, whose ways of failing a test chooses, and which remembers every call that reached it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from connectors.http_messages import Limits, Request, Response
from connectors.http_server import HttpServer


@dataclass
class Heard:
    """One call that was answered, and with what."""

    path: str
    query: bytes
    key: str
    headers: dict[bytes, bytes]
    status: int
    at_s: float


@dataclass
class Partner:
    """Listens on a port of its own. `status` is what it answers; `delay_s` how late; both may change at any time.

    `answers` are planned ones by path, each given once.
    """

    host: str = "127.0.0.1"
    status: int = 204
    delay_s: float = 0.0
    heard: list[Heard] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._server: HttpServer | None = None
        self.answers: dict[str, list[Response]] = {}
        with socket.create_server((self.host, 0)) as found:  # closed again, so that nobody answers until `open`
            self.port = int(found.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def taken(self) -> Counter[str]:
        """Idempotency keys of the calls that were taken, and how often each."""
        return Counter(h.key for h in list(self.heard) if h.status < 400)

    def open(self) -> None:
        """Begins to listen, on the same port as before."""
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)

    def close(self) -> None:
        """Stops listening and resets what is connected."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)

    async def _open(self) -> None:
        self._server = HttpServer(self._handle, Limits())
        await self._server.start(self.host, self.port)

    async def _close(self) -> None:
        if self._server is not None:
            await self._server.drain(0.0)
            self._server = None

    async def _handle(self, request: Request) -> Response:
        planned = self.answers.get(request.path)
        response = planned.pop(0) if planned else Response(self.status)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        key = request.header(b"idempotency-key")
        self.heard.append(
            Heard(request.path, request.query, key, dict(request.headers), response.status, time.monotonic())
        )
        return response


@contextmanager
def partner() -> Iterator[Partner]:
    """A partner that listens; it is closed at the end."""
    made = Partner()
    made.open()
    try:
        yield made
    finally:
        made.close()
