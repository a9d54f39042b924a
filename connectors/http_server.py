"""A small HTTP/1.1 server for doors that answer thousands of short requests per second on little CPU.

An `asyncio.Protocol` on uvloop with httptools' parser: about half the CPU per request of raw ASGI on uvicorn
(docs say how it was measured). What a framework would have done is done here: size limits, keep-alive, pipelined
answers in order, slow clients, `Expect: 100-continue`, refusals that the client gets to read, and a drain at SIGTERM.

A handler gives back a `Response`, or an awaitable of one when it has to wait: the first kind costs no task.
Behind a public address there is a TLS-terminating proxy; this server speaks plain HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import httptools

from connectors.http_messages import Limits, Request, Response, encode_response, refusal
from connectors.shared_listener import SharedListener
from schemas.errors import RejectReason

logger = logging.getLogger(__name__)

Handler = Callable[[Request], Response | Awaitable[Response]]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TICK_S = 0.5
_NEVER_S = float("inf")


class HttpServer:
    """Listens on one address and answers with one handler. `drain` before the end of the process."""

    def __init__(self, handler: Handler, limits: Limits) -> None:
        self.handler = handler
        self.limits = limits
        self.draining = False
        self.date = b""
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._listener: SharedListener | None = None
        self._ticker: asyncio.Task[None] | None = None

    async def start(self, host: str, port: int, backlog: int = 1024, listener: SharedListener | None = None) -> None:
        """Begins to listen; on `listener`, when it is given: a socket bound before, which processes share.

        Errors: OSError when the address is taken.
        """
        loop = asyncio.get_running_loop()
        self._tick(loop.time())
        self._listener = listener
        if listener is None:
            self._server = await loop.create_server(lambda: _Connection(self, loop), host, port, backlog=backlog)
        else:
            listener.start(lambda: _Connection(self, loop))
        self._ticker = loop.create_task(self._tick_for_ever(loop))

    def ended(self, connection: _Connection) -> None:
        """A connection has been lost."""
        self.connections.discard(connection)
        if self._listener is not None:
            self._listener.closed()

    async def drain(self, timeout_s: float = 10.0) -> None:
        """Stops listening, lets requests that are being answered finish, then closes what is left."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.close_if_idle()
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while self.connections and asyncio.get_running_loop().time() < deadline_s:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
        if self._ticker is not None:
            self._ticker.cancel()

    async def _tick_for_ever(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._tick(loop.time())

    def _tick(self, now_s: float) -> None:
        self.date = formatdate(usegmt=True).encode()
        for connection in list(self.connections):
            if connection.deadline_s < now_s:
                connection.timed_out()


async def serve_until_terminated(
    handler: Handler,
    host: str,
    port: int,
    limits: Limits | None = None,
    drain_s: float = 10.0,
    listener: SharedListener | None = None,
    stopping: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGTERM or SIGINT, drains, and comes back. `listener`: bound to that address, when it is shared.
    `stopping` is called before it drains.

    Errors: OSError when the address is taken.
    """
    server = HttpServer(handler, limits or Limits())
    await server.start(host, port, listener=listener)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    logger.info("listening", extra={"host": host, "port": port})
    await stop.wait()
    stopping()
    await server.drain(drain_s)
    logger.info("drained")


class _Refused(Exception):
    """Raised in a parser's callback to end parsing; the connection answers with `response` and closes."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class _Connection(asyncio.Protocol):
    """One client. Requests wait in `_waiting` for their turn, so answers leave in the order of the requests."""

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._limits = server.limits
        self._loop = loop
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[_Turn] = deque()
        self._task: asyncio.Task[None] | None = None
        self._in_head = False
        self._in_body = False
        self._discarding = False
        self._reading = True
        self._writable = True
        self._owes_continue = False
        self._head_bytes = 0  # of whole lines, as the parser reports them
        self._head_fed_bytes = 0  # given to the parser in chunks that held nothing but this head
        self._completed = 0
        self._peer = ""
        self._lost = False
        self.deadline_s = 0.0

    # --- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        if len(self._server.connections) >= self._limits.connections:
            self._transport.abort()
            return
        self._server.connections.add(self)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else ""
        self._expect_within(self._limits.idle_timeout_s)

    def connection_lost(self, _error: Exception | None) -> None:
        self._lost = True
        self._server.ended(self)
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        completed_before = self._completed
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._discarding = True  # the request itself is answered as HTTP/1.1; what follows is not for us
            if self._waiting:
                self._waiting[-1].keep_alive = False
        except httptools.HttpParserCallbackError as e:
            if not isinstance(e.__context__, _Refused):
                raise
            self._refuse(e.__context__.response)
        except httptools.HttpParserError:
            self._refuse(refusal(400, "not a valid HTTP/1.1 request"))
        else:
            if self._in_head and self._completed == completed_before:  # its callbacks see no line before its end
                self._head_fed_bytes += len(data)
                if self._head_fed_bytes > self._limits.head_bytes:
                    self._refuse(self._head_too_large())
        self._answer_waiting()

    def pause_writing(self) -> None:
        self._writable = False
        self._expect_within(self._limits.write_timeout_s)
        self._balance_reading()

    def resume_writing(self) -> None:
        self._writable = True
        self._expect_within(self._limits.idle_timeout_s)
        self._answer_waiting()

    # --- httptools' callbacks

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = self._head_fed_bytes = 0
        self._expect_within(self._limits.head_timeout_s)

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value
        self._count_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        declared = self._headers.get(b"content-length", b"0")
        if int(declared) > self._limits.body_bytes:  # the parser lets digits only through
            raise _Refused(self._body_too_large())
        expectation = self._headers.get(b"expect")
        if expectation is not None:
            if expectation.lower() != b"100-continue":
                raise _Refused(refusal(417, "only 100-continue can be expected"))
            self._owes_continue = True
        if b"host" not in self._headers and self._parser.get_http_version() == "1.1":
            raise _Refused(refusal(400, "no Host header"))
        self._expect_within(self._limits.body_timeout_s)

    def on_body(self, body: bytes) -> None:
        self._owes_continue = False
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            raise _Refused(self._body_too_large())
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._in_body = self._owes_continue = False
        self._completed += 1
        method = self._parser.get_method()
        path, _, query = self._url.partition(b"?")
        if not path.startswith(b"/"):
            parsed = _absolute_target(self._url)
            path, query = (parsed.path or b"/"), (parsed.query or b"")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(
            method.decode("ascii"),
            path.decode("latin-1"),
            query,
            self._headers,
            bytes(body),
            self._peer,
            lambda: not self._lost,
        )
        self._waiting.append(
            _Turn(
                request,
                keep_alive=self._parser.should_keep_alive(),
                old_client=self._parser.get_http_version() == "1.0",
                without_body=method == b"HEAD",
            )
        )
        self._expect_within(self._limits.idle_timeout_s)

    # --- answering

    def _answer_waiting(self) -> None:
        """Answers what can be answered now; a handler that has to wait goes on in a task, and the rest waits too."""
        while self._waiting and self._task is None and self._writable:
            turn = self._waiting.popleft()
            answer = turn.response or self._ask_handler(turn.request)
            if isinstance(answer, Response):
                self._send(turn, answer)
            else:
                self.deadline_s = _NEVER_S
                self._task = self._loop.create_task(self._await_answer(turn, answer))
        if self._owes_continue and not self._waiting and self._task is None:
            self._owes_continue = False
            self._transport.write(_CONTINUE)
        self._balance_reading()

    def _ask_handler(self, request: Request | None) -> Response | Awaitable[Response]:
        assert request is not None
        try:
            return self._server.handler(request)
        except Exception:
            logger.exception("request failed", extra={"method": request.method})
            return refusal(500, "internal error")

    async def _await_answer(self, turn: _Turn, pending: Awaitable[Response]) -> None:
        try:
            answer = await pending
        except Exception:
            logger.exception("request failed")
            answer = refusal(500, "internal error")
        self._task = None
        self._expect_within(self._limits.idle_timeout_s)
        self._send(turn, answer)
        self._answer_waiting()

    def _send(self, turn: _Turn, answer: Response) -> None:
        if self._transport.is_closing():
            return
        keep_alive = turn.keep_alive and not answer.close and not self._server.draining
        self._transport.write(
            encode_response(answer, self._server.date, keep_alive, turn.old_client, turn.without_body)
        )
        if keep_alive:
            return
        self._waiting.clear()
        if turn.linger:
            self._loop.call_later(self._limits.linger_s, self._transport.close)
            self._balance_reading()
        else:
            self._discarding = True
            self._transport.close()

    def _refuse(self, response: Response) -> None:
        """Answers in turn and closes: after this the client's bytes can't be told apart any more.

        What the client still sends is read and dropped for a moment; closing at once would reset the connection,
        and the client would not see the answer.
        """
        self._discarding = True
        self._in_head = self._in_body = self._owes_continue = False
        self._waiting.append(_Turn(response=response, keep_alive=False, linger=True))

    def _balance_reading(self) -> None:
        """Stops reading from a client that asks more than it lets us answer."""
        wanted = self._writable and len(self._waiting) < self._limits.pipelined
        if wanted != self._reading and not self._transport.is_closing():
            self._reading = wanted
            (self._transport.resume_reading if wanted else self._transport.pause_reading)()

    # --- limits and ends

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes:
            raise _Refused(self._head_too_large())

    def _head_too_large(self) -> Response:
        return refusal(431, "request head too large", limit_bytes=self._limits.head_bytes)

    def _body_too_large(self) -> Response:
        return refusal(413, RejectReason.TOO_LARGE, limit_bytes=self._limits.body_bytes)

    def _expect_within(self, timeout_s: float) -> None:
        self.deadline_s = self._loop.time() + timeout_s

    def timed_out(self) -> None:
        """Called by the server's tick when the client let its deadline pass."""
        if not self._writable or self._discarding:
            self._transport.abort()
        elif self._in_head or self._in_body:
            self._refuse(refusal(408, "request not complete in time"))
            self._expect_within(self._limits.linger_s)
            self._answer_waiting()
        else:
            self._transport.close()

    def close_if_idle(self) -> None:
        """Closes unless a request is on its way or being answered; those close after their answer."""
        if self._task is None and not self._waiting and not self._in_head and not self._in_body:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()


@dataclass(slots=True)
class _Turn:
    """A request waiting for its answer, or an answer (a refusal) waiting for those before it."""

    request: Request | None = None
    response: Response | None = None
    keep_alive: bool = True
    old_client: bool = False
    without_body: bool = False
    linger: bool = False


def _absolute_target(url: bytes) -> Any:
    """The parts of a request target in absolute form, which proxies send. Refuses what is neither form."""
    try:
        return httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        raise _Refused(refusal(400, "not a valid request target")) from None
