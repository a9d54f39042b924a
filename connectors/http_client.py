"""A small HTTP/1.1 client for many short exchanges with few origins on little CPU: one pool of kept connections each.

An exchange that its caller no longer waits for is still read to its end (up to `exchange_s`): its connection is kept,
and its true latency is reported to `on_answer`, so that statistics do not lose the slow tail.
Errors: Unavailable (can't connect, connection lost, pool full), Refused (not valid HTTP, compressed, too large),
TimedOut. They are set on the future that `send` gives back. One that fails touches no other.
Source: RFC 9112; httptools parses.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

import httptools

from connectors.addresses import Resolver
from schemas.errors import ConfigError, ConnectorError, Refused, TimedOut, Unavailable


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. `latency_s` counts from sending to the last byte, or to the end of the head where that is enough.

    `headers` has those that the pool was told to keep, names in lower case.
    """

    status: int
    body: bytes
    latency_s: float
    headers: Mapping[bytes, bytes] | None = None


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What an origin may cost us."""

    connections: int = 64
    response_bytes: int = 262_144
    connect_s: float = 1.0
    exchange_s: float = 2.0  # after this an unanswered exchange's connection is closed
    head_only: bool = False  # the head is the answer: bodies are read and thrown away, compressed or not


@cache
def _tls() -> ssl.SSLContext:
    """One for all origins: reading the trusted certificates takes milliseconds."""
    return ssl.create_default_context()


class HttpPool:
    """Connections to one origin. Not shared between event loops.

    A request on a kept connection that the origin closed meanwhile is sent once more on a new one, so send only what
    may be repeated (bid requests, reads).
    """

    def __init__(
        self,
        origin: str,
        limits: PoolLimits | None = None,
        on_answer: Callable[[float], None] | None = None,
        keep_headers: frozenset[bytes] = frozenset(),
        resolve: Resolver | None = None,
    ) -> None:
        """`keep_headers` are names in lower case. `resolve` chooses the address of each new connection."""
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"not an http(s) address: {origin!r}")
        self.limits = limits or PoolLimits()
        self.on_answer = on_answer
        self.keep_headers = keep_headers
        self._resolve = resolve
        self.host_header = parts.netloc.rpartition("@")[2]
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _tls() if parts.scheme == "https" else None
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return len(self._open) > len(self._idle) or bool(self._connecting)

    def request_bytes(self, method: str, path: str, headers: str = "") -> bytes:
        """A request's head without its last empty line; `headers` are whole lines ending in CRLF."""
        return f"{method} {path} HTTP/1.1\r\nHost: {self.host_header}\r\n{headers}".encode("ascii")

    def send(self, payload: bytes) -> asyncio.Future[Answer]:
        """Sends a whole request; the future has its answer. Never blocks and never raises."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                connection.send(payload, future, again=True)
                return future
        self._send_on_new(payload, future)
        return future

    async def fetch(self, method: str, path: str, timeout_s: float, body: bytes = b"", headers: str = "") -> Answer:
        """One exchange, waited for. Errors: see the module."""
        length = f"Content-Length: {len(body)}\r\n\r\n" if body else "\r\n"
        payload = self.request_bytes(method, path, headers) + length.encode() + body
        try:
            return await asyncio.wait_for(self.send(payload), timeout_s)
        except TimeoutError as e:
            raise TimedOut(f"{self.host_header}: no answer within {timeout_s} s") from e

    def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        for connection in list(self._open):
            connection.abort()

    def _send_on_new(self, payload: bytes, future: asyncio.Future[Answer]) -> None:
        if len(self._open) + len(self._connecting) >= self.limits.connections:
            fail(future, Unavailable(f"{self.host_header}: all {self.limits.connections} connections are busy"))
            return
        task = asyncio.get_running_loop().create_task(self._connect(payload, future))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, payload: bytes, future: asyncio.Future[Answer]) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection = await asyncio.wait_for(self._connected(loop), self.limits.connect_s)
        except ConnectorError as e:
            fail(future, e)
            return
        except (OSError, TimeoutError) as e:
            fail(future, Unavailable(f"{self.host_header}: {e or 'no connection in time'}"))
            return
        self._open.add(connection)
        connection.send(payload, future, again=False)

    async def _connected(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        address = self._host if self._resolve is None else await self._resolve(self._host, self._port)
        _, connection = await loop.create_connection(
            lambda: _Connection(self, loop),
            address,
            self._port,
            ssl=self._tls,
            server_hostname=self._host if self._tls is not None else None,
        )
        return connection

    def released(self, connection: _Connection) -> None:
        """A connection whose exchange is over waits for the next."""
        self._idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def again(self, payload: bytes, future: asyncio.Future[Answer]) -> None:
        """Sends on a new connection what a closed one did not answer."""
        self._send_on_new(payload, future)


def fail(future: asyncio.Future[Answer], error: ConnectorError) -> None:
    if not future.done():
        future.set_exception(error)


class _Connection(asyncio.Protocol):
    """One connection with at most one exchange on it."""

    def __init__(self, pool: HttpPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self._parser: httptools.HttpResponseParser | None = None
        self._future: asyncio.Future[Answer] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._payload: bytes | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._headers: dict[bytes, bytes] | None = None
        self._sent_s = 0.0
        self._problem: str | None = None

    @property
    def usable(self) -> bool:
        return not self._transport.is_closing()

    def send(self, payload: bytes, future: asyncio.Future[Answer], again: bool) -> None:
        self._future = future
        self._payload = payload if again else None
        self._body, self._size, self._headers, self._problem = [], 0, None, None
        self._parser = httptools.HttpResponseParser(self)
        self._sent_s = self._loop.time()
        self._timer = self._loop.call_later(self._pool.limits.exchange_s, self._expire)
        self._transport.write(payload)

    def abort(self) -> None:
        self._transport.abort()

    def _expire(self) -> None:
        if self._pool.on_answer is not None:
            self._pool.on_answer(self._loop.time() - self._sent_s)
        self._end(TimedOut(f"{self._pool.host_header}: no answer within {self._pool.limits.exchange_s} s"))

    def _end(self, error: ConnectorError) -> None:
        """Gives up the exchange and its connection."""
        future, self._future = self._future, None
        if self._timer is not None:
            self._timer.cancel()
        if future is not None:
            fail(future, error)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._future is None or self._parser is None:
            self._transport.abort()  # an answer that nobody asked for
            return
        self._payload = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as e:
            self._end(Refused(f"{self._pool.host_header}: not valid HTTP: {self._problem or e}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.lost(self)
        if self._timer is not None:
            self._timer.cancel()
        future, self._future = self._future, None
        if future is None or future.done():
            return
        if self._payload is not None and error is None:
            self._pool.again(self._payload, future)
            return
        fail(future, Unavailable(f"{self._pool.host_header}: connection lost: {error or 'closed'}"))

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        name, pool = name.lower(), self._pool
        if name in pool.keep_headers:
            if self._headers is None:
                self._headers = {}
            self._headers[name] = value
        elif name == b"content-encoding" and value.lower() != b"identity" and not pool.limits.head_only:
            self._problem = "compressed, though no encoding was accepted"
            raise ValueError(self._problem)

    def on_headers_complete(self) -> None:
        if self._pool.limits.head_only and self._future is not None and not self._is_interim():
            self._answer(self._future)

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._pool.limits.response_bytes:
            self._problem = f"more than {self._pool.limits.response_bytes} bytes"
            raise ValueError(self._problem)
        if not self._pool.limits.head_only:
            self._body.append(body)

    def on_message_complete(self) -> None:
        parser, future = self._parser, self._future
        if parser is None or future is None or self._is_interim():
            return
        self._future = None
        if self._timer is not None:
            self._timer.cancel()
        if self._pool.on_answer is not None:
            self._pool.on_answer(self._loop.time() - self._sent_s)
        self._answer(future)
        if parser.should_keep_alive():
            self._pool.released(self)
        else:
            self._transport.close()

    def _is_interim(self) -> bool:
        """Whether the head is one of those (100, 103) that the answer's own follows. RFC 9110 §15.2."""
        return self._parser is not None and self._parser.get_status_code() < 200

    def _answer(self, future: asyncio.Future[Answer]) -> None:
        assert self._parser is not None
        if future.done():
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        latency_s = self._loop.time() - self._sent_s
        future.set_result(Answer(self._parser.get_status_code(), body, latency_s, self._headers))
