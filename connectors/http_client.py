"""A small HTTP/1.1 client for many short exchanges with few origins on little CPU: one pool of kept connections each.

An exchange that its caller no longer waits for is still read to its end (up to `exchange_s`): its connection is kept,
and its true latency is reported, so that statistics do not lose the slow tail.
Errors: Unavailable (can't connect, connection lost, pool full), Refused (not valid HTTP, compressed, too large),
TimedOut. They are set on the future that `send` gives back, or told to the taker of `start`. One that fails touches
no other.
Source: RFC 9112; httptools parses, but for answers that come whole in one piece and are as plain as most are.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol
from urllib.parse import urlsplit

import httptools

from connectors.addresses import Resolver
from connectors.http_messages import plain_answer
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


#: What comes before the end of the heads may be this long, and a first piece of the body with it.
_HEAD_BYTES = 524_288


class Taker(Protocol):
    """Who is told how an exchange has ended: one of the two, once, in the loop's thread, and never from within `start`.

    `tag` is what the taker gave with the request. `latency_s` is 0 for what was never sent.
    """

    def answered(self, tag: int, status: int, body: bytes, latency_s: float) -> None: ...
    def failed(self, tag: int, error: ConnectorError, latency_s: float) -> None: ...


class _FutureTaker:
    """Sets a future. Headers that the pool keeps come with it."""

    __slots__ = ("future", "headers")

    def __init__(self, future: asyncio.Future[Answer]) -> None:
        self.future = future
        self.headers: dict[bytes, bytes] | None = None

    def answered(self, _tag: int, status: int, body: bytes, latency_s: float) -> None:
        if not self.future.done():
            self.future.set_result(Answer(status, body, latency_s, self.headers))

    def failed(self, _tag: int, error: ConnectorError, _latency_s: float) -> None:
        if not self.future.done():
            self.future.set_exception(error)


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
        try:
            parts = urlsplit(origin)
            port = parts.port
        except ValueError as e:
            raise ConfigError(f"not an http(s) address: {origin!r}: {e}") from e
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"not an http(s) address: {origin!r}")
        self.limits = limits or PoolLimits()
        self.on_answer = on_answer
        self.keep_headers = keep_headers
        self._resolve = resolve
        self.host_header = parts.netloc.rpartition("@")[2]
        self._host = parts.hostname
        self._port = port or (443 if parts.scheme == "https" else 80)
        self._tls = _tls() if parts.scheme == "https" else None
        self.idle: list[_Connection] = []  # whose exchange is over: they wait for the next
        self._open: set[_Connection] = set()
        self._connecting: set[asyncio.Task[_Connection]] = set()
        self._closed = False
        self.expiry: asyncio.TimerHandle | None = None  # runs while exchanges do

    @property
    def busy(self) -> bool:
        """Whether an exchange is under way."""
        return len(self._open) > len(self.idle) or bool(self._connecting)

    def request_bytes(self, method: str, path: str, headers: str = "") -> bytes:
        """A request's head without its last empty line; `headers` are whole lines ending in CRLF."""
        return f"{method} {path} HTTP/1.1\r\nHost: {self.host_header}\r\n{headers}".encode("ascii")

    def send(self, payload: bytes) -> asyncio.Future[Answer]:
        """Sends a whole request; the future has its answer. Never blocks and never raises."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.start(payload, _FutureTaker(future), 0)
        return future

    def start(self, payload: bytes, taker: Taker, tag: int) -> None:
        """Sends a whole request and tells `taker` how it ended. Never blocks and never raises."""
        idle = self.idle
        while idle:
            if idle.pop().send(payload, taker, tag, again=True):
                return
        self._send_on_new(payload, taker, tag)

    async def fetch(self, method: str, path: str, timeout_s: float, body: bytes = b"", headers: str = "") -> Answer:
        """One exchange, waited for. Errors: see the module."""
        length = f"Content-Length: {len(body)}\r\n\r\n" if body else "\r\n"
        payload = self.request_bytes(method, path, headers) + length.encode() + body
        try:
            return await asyncio.wait_for(self.send(payload), timeout_s)
        except TimeoutError as e:
            raise TimedOut(f"{self.host_header}: no answer within {timeout_s} s") from e

    def close(self) -> None:
        """Ends all exchanges; their takers are told, and whoever sends anything later is refused."""
        self._closed = True
        if self.expiry is not None:
            self.expiry.cancel()
        for task in self._connecting:
            task.cancel()
        for connection in list(self._open):
            connection.abort()

    def _send_on_new(self, payload: bytes, taker: Taker, tag: int) -> None:
        loop = asyncio.get_running_loop()
        refused = None
        if self._closed:
            refused = Unavailable(f"{self.host_header}: its connections were given up")
        elif len(self._open) + len(self._connecting) >= self.limits.connections:
            refused = Unavailable(f"{self.host_header}: all {self.limits.connections} connections are busy")
        if refused is not None:
            loop.call_soon(taker.failed, tag, refused, 0.0)
            return
        task = loop.create_task(self._connect(loop))
        self._connecting.add(task)
        task.add_done_callback(lambda done: self._connect_ended(done, payload, taker, tag))

    def _connect_ended(self, task: asyncio.Task[_Connection], payload: bytes, taker: Taker, tag: int) -> None:
        """Sends on a new connection, or tells why there is none: also when it was given up before it began."""
        self._connecting.discard(task)
        if task.cancelled():
            taker.failed(tag, Unavailable(f"{self.host_header}: its connections were given up"), 0.0)
            return
        error = task.exception()
        if error is None:
            connection = task.result()
            if self._closed:
                connection.abort()
            elif connection.send(payload, taker, tag, again=False):
                self._open.add(connection)
                return
            error = Unavailable(f"{self.host_header}: closed as soon as it was connected")
        elif not isinstance(error, ConnectorError):
            # whatever resolving and TLS raise: OSError, TimeoutError, UnicodeError for a name that no DNS can hold, ...
            error = Unavailable(f"{self.host_header}: {error or 'no connection in time'}")
        taker.failed(tag, error, 0.0)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _Connection:
        return await asyncio.wait_for(self._connected(loop), self.limits.connect_s)

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

    def lost(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    def again(self, payload: bytes, taker: Taker, tag: int) -> None:
        """Sends on a new connection what a closed one did not answer."""
        self._send_on_new(payload, taker, tag)

    def expire_from(self, loop: asyncio.AbstractEventLoop) -> None:
        """Makes sure that unanswered exchanges end: one timer for all connections, not one for each exchange."""
        self.expiry = loop.call_later(self.limits.exchange_s, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        self.expiry = None
        oldest_s = time.monotonic() - self.limits.exchange_s
        next_s = float("inf")
        for connection in list(self._open):
            if connection.busy:
                if connection.sent_s <= oldest_s:
                    connection.expire()
                else:
                    next_s = min(next_s, connection.sent_s)
        if next_s < float("inf"):
            self.expiry = loop.call_later(next_s - oldest_s + 0.001, self._expire, loop)


class _Connection(asyncio.Protocol):
    """One connection with at most one exchange on it."""

    def __init__(self, pool: HttpPool, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._loop = loop
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self._parser: httptools.HttpResponseParser | None = None
        self._parses_all = bool(pool.keep_headers) or pool.limits.head_only
        self._taker: Taker | None = None
        self._tag = 0
        self._payload: bytes | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._headers: dict[bytes, bytes] | None = None
        self._told = False
        self._in_head = True
        self._read = 0
        self._problem: str | None = None
        self.sent_s = 0.0

    @property
    def busy(self) -> bool:
        return self._taker is not None

    def send(self, payload: bytes, taker: Taker, tag: int, again: bool) -> bool:
        """Begins an exchange; False when the connection is about to close. `again`: whether it may be sent twice."""
        transport = self._transport
        if transport.is_closing():
            return False
        self._taker, self._tag = taker, tag
        self._payload = payload if again else None
        self.sent_s = time.monotonic()
        if self._pool.expiry is None:
            self._pool.expire_from(self._loop)
        transport.write(payload)
        return True

    def abort(self) -> None:
        self._transport.abort()

    def expire(self) -> None:
        if self._pool.on_answer is not None:
            self._pool.on_answer(time.monotonic() - self.sent_s)
        self._end(TimedOut(f"{self._pool.host_header}: no answer within {self._pool.limits.exchange_s} s"))

    def _end(self, error: ConnectorError) -> None:
        """Gives up the exchange and its connection."""
        taker, self._taker = self._taker, None
        if taker is not None and not self._told:
            taker.failed(self._tag, error, time.monotonic() - self.sent_s)
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._taker is None:
            self._transport.abort()  # an answer that nobody asked for
            return
        self._payload = None
        if self._parser is None:
            plain = None if self._parses_all else plain_answer(data)
            if plain is not None and len(data) - plain[1] <= self._pool.limits.response_bytes:
                status, start = plain
                self._complete(status, data[start:] if status == 200 else b"")
                self._pool.idle.append(self)
                return
            self._parser = httptools.HttpResponseParser(self)
            self._body, self._size, self._headers, self._problem, self._read = [], 0, None, None, 0
            self._told, self._in_head = False, True
        self._read += len(data)
        if self._in_head and self._read > _HEAD_BYTES:
            self._end(Refused(f"{self._pool.host_header}: a head of more than {_HEAD_BYTES} bytes"))
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as e:
            self._end(Refused(f"{self._pool.host_header}: not valid HTTP: {self._problem or e}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.lost(self)
        taker, self._taker = self._taker, None
        if taker is None or self._told:
            return
        if self._payload is not None and error is None:
            self._pool.again(self._payload, taker, self._tag)
            return
        lost = Unavailable(f"{self._pool.host_header}: connection lost: {error or 'closed'}")
        taker.failed(self._tag, lost, time.monotonic() - self.sent_s)

    def _complete(self, status: int, body: bytes) -> None:
        """The exchange is over: its end is told, if its head was not enough before."""
        taker, self._taker = self._taker, None
        latency_s = time.monotonic() - self.sent_s
        if self._pool.on_answer is not None:
            self._pool.on_answer(latency_s)
        if taker is not None and not self._told:
            taker.answered(self._tag, status, body, latency_s)

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
        taker, parser = self._taker, self._parser
        if taker is None or parser is None or self._is_interim():
            return
        self._in_head = False
        if isinstance(taker, _FutureTaker):
            taker.headers = self._headers
        if self._pool.limits.head_only:
            self._told = True
            taker.answered(self._tag, parser.get_status_code(), b"", time.monotonic() - self.sent_s)

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._pool.limits.response_bytes:
            self._problem = f"more than {self._pool.limits.response_bytes} bytes"
            raise ValueError(self._problem)
        if not self._pool.limits.head_only:
            self._body.append(body)

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser is None or self._taker is None or self._is_interim():
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._complete(parser.get_status_code(), body)
        if parser.should_keep_alive():
            self._parser, self._told = None, False
            self._pool.idle.append(self)
        else:
            self._transport.close()

    def _is_interim(self) -> bool:
        """Whether the head is one of those (100, 103) that the answer's own follows. RFC 9110 §15.2."""
        return self._parser is not None and self._parser.get_status_code() < 200
