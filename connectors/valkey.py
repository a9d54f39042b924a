"""Valkey on raw hiredis: one asynchronous connection for servers, one blocking connection for workers.

redis-py costs about four times the CPU of hiredis' own packing and parsing, and servers and workers only ever send
pipelines; so that is what this offers. Commands are tuples of `bytes | str | int`; replies are what hiredis gives, and
a command that Valkey refused has a `Refused` in its place, so that it does not hide its neighbours' answers.

Delivery: a pipeline that ends in `Unavailable` or `TimedOut` may or may not have been done: repeat only what is
idempotent. Neither client repeats anything by itself.

Example:
    with Valkey("redis://127.0.0.1:19003/0") as valkey:
        valkey.pipeline([("HSET", b"u:v1:abc", field, 3), ("EXPIRE", b"u:v1:abc", 3600)])
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import hiredis

from schemas.errors import ConfigError, ConnectorError, Refused, TimedOut, Unavailable

logger = logging.getLogger(__name__)

Argument = bytes | str | int
Command = tuple[Argument, ...]

#: Error prefixes that pass by themselves: the server loads its file, a script blocks it, a replica takes over.
_PASSING = ("LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN")
_READ_BYTES = 262_144
_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 1.0
_LAST_LOOK_S = 0.001


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens and how to log in there."""

    host: str
    port: int
    database: int = 0
    username: str = ""
    password: str = ""

    @classmethod
    def parse(cls, url: str) -> Address:
        """Address of a `redis://[user:password@]host:port/database` URL. Errors: ConfigError.

        Example:
        >>> Address.parse("redis://127.0.0.1:6379/2").database
        2
        """
        parts = urlsplit(url)
        try:
            port, database = parts.port or 6379, int(parts.path.strip("/") or 0)
        except ValueError as e:
            raise ConfigError(f"valkey: {e}") from e
        if parts.scheme not in ("redis", "valkey") or not parts.hostname:
            raise ConfigError(f"valkey: expected redis://host:port/database, got scheme {parts.scheme!r}")
        return cls(parts.hostname, port, database, parts.username or "", parts.password or "")

    def greeting(self) -> list[Command]:
        """Commands that open a connection."""
        commands: list[Command] = []
        if self.password:
            commands.append(("AUTH", self.username, self.password) if self.username else ("AUTH", self.password))
        if self.database:
            commands.append(("SELECT", self.database))
        return commands


class Script:
    """A Lua script, sent by its SHA-1 and in full only when the server does not know it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha1 = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[Argument], arguments: Sequence[Argument]) -> Command:
        """The command to put into a pipeline."""
        return ("EVALSHA", self.sha1, len(keys), *keys, *arguments)

    def full(self, command: Command) -> Command:
        """The same call with the script's text in it, for a server that answered NOSCRIPT."""
        return ("EVAL", self.text, *command[2:])


def is_unknown_script(reply: object) -> bool:
    """Whether a reply says that the server has to be given the script's text."""
    return isinstance(reply, Refused) and str(reply).startswith("NOSCRIPT")


def _pack(commands: Sequence[Command]) -> bytes:
    return b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]  # its stub says one element


def _mapped(reply: Any) -> Any:
    if isinstance(reply, hiredis.ReplyError):
        text = str(reply)
        return Unavailable(text) if text.startswith(_PASSING) else Refused(text)
    return reply


def _first_error(replies: Sequence[Any]) -> ConnectorError | None:
    return next((reply for reply in replies if isinstance(reply, ConnectorError)), None)


class Valkey:
    """A blocking connection, for one thread. Connects at the first call and again after a failure.

    Errors: Unavailable (no connection), TimedOut (no answer within `timeout_s`).
    """

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._address = Address.parse(url)
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._reader = hiredis.Reader()

    def __enter__(self) -> Valkey:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The reply of each command, in order; `Refused` stands where a command was refused. Blocks."""
        if not commands:
            return []
        try:
            connection = self._socket or self._connect()
            return self._exchange(connection, commands)
        except TimeoutError as e:
            self.close()
            raise TimedOut(f"valkey: no answer within {self._timeout_s} s") from e
        except (OSError, hiredis.ProtocolError) as e:
            self.close()
            raise Unavailable(f"valkey: {e}") from e

    def call(self, *command: Argument) -> Any:
        """The reply of one command. Errors: also Refused."""
        (reply,) = self.pipeline([command])
        if isinstance(reply, ConnectorError):
            raise reply
        return reply

    def eval(self, script: Script, keys: Sequence[Argument], arguments: Sequence[Argument] = ()) -> Any:
        """The reply of a script. Errors: also Refused."""
        command = script.call(keys, arguments)
        (reply,) = self.pipeline([command])
        if is_unknown_script(reply):
            (reply,) = self.pipeline([script.full(command)])
        if isinstance(reply, ConnectorError):
            raise reply
        return reply

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        address = self._address
        connection = socket.create_connection((address.host, address.port), timeout=self._timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()
        self._socket = connection
        greeting = address.greeting()
        if greeting and (error := _first_error(self._exchange(connection, greeting))):
            self.close()
            raise error
        return connection

    def _exchange(self, connection: socket.socket, commands: Sequence[Command]) -> list[Any]:
        deadline_s = time.monotonic() + self._timeout_s
        connection.settimeout(self._timeout_s)
        connection.sendall(_pack(commands))
        replies: list[Any] = []
        while True:
            while len(replies) < len(commands) and (reply := self._reader.gets()) is not False:
                replies.append(_mapped(reply))
            if len(replies) == len(commands):
                return replies
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            connection.settimeout(left_s)
            data = connection.recv(_READ_BYTES)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(data)


class _Pending:
    """A pipeline on the wire: how many replies it still waits for."""

    __slots__ = ("future", "replies", "wanted")

    def __init__(self, wanted: int, future: asyncio.Future[list[Any]]) -> None:
        self.wanted = wanted
        self.replies: list[Any] = []
        self.future = future


class AsyncValkey:
    """An asynchronous connection that many tasks share; their pipelines travel one behind the other.

    `start` connects in the background and keeps the connection up; while there is none, a pipeline fails at once
    with `Unavailable` (a server can then answer degraded, rather than wait). After a timeout the late replies are
    still read and thrown away, so that answers never shift to the wrong question; a connection that stays silent
    for `stalled_s` is replaced.
    """

    def __init__(self, url: str, stalled_s: float = 1.0) -> None:
        self._address = Address.parse(url)
        self._stalled_s = stalled_s
        self._wire: _Wire | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._wire is not None

    async def start(self) -> None:
        """Begins to connect, and gives the first attempt a moment, so that most callers find it connected."""
        self._keeper = asyncio.get_running_loop().create_task(self._keep_connected())
        for _ in range(20):
            if self.connected:
                return
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        if self._wire is not None:
            self._wire.abort()

    async def pipeline(self, commands: Sequence[Command], timeout_s: float) -> list[Any]:
        """The reply of each command, in order; `Refused` stands where a command was refused.

        Errors: Unavailable at once when there is no connection, TimedOut after `timeout_s`.
        """
        if not commands:
            return []
        wire = self._wire
        if wire is None or wire.is_closing:
            raise Unavailable("valkey: not connected")
        future = wire.send(commands)
        loop = asyncio.get_running_loop()
        timer = _Timer(loop, future, timeout_s)
        try:
            return await future
        except TimedOut:
            if loop.time() - wire.last_read_s > self._stalled_s:
                wire.abort()
            raise
        finally:
            timer.cancel()

    async def call(self, *command: Argument, timeout_s: float = 1.0) -> Any:
        """The reply of one command. Errors: also Refused."""
        (reply,) = await self.pipeline([command], timeout_s)
        if isinstance(reply, ConnectorError):
            raise reply
        return reply

    async def eval(
        self,
        script: Script,
        keys: Sequence[Argument],
        arguments: Sequence[Argument] = (),
        *,
        timeout_s: float = 1.0,
    ) -> Any:
        """The reply of a script. Errors: also Refused."""
        command = script.call(keys, arguments)
        (reply,) = await self.pipeline([command], timeout_s)
        if is_unknown_script(reply):
            (reply,) = await self.pipeline([script.full(command)], timeout_s)
        if isinstance(reply, ConnectorError):
            raise reply
        return reply

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                _, wire = await asyncio.wait_for(
                    loop.create_connection(partial(_Wire, loop), self._address.host, self._address.port), 2.0
                )
            except (OSError, TimeoutError):
                await asyncio.sleep(retry_s)
                retry_s = min(retry_s * 2, _LAST_RETRY_S)
                continue
            try:
                await self._greet(wire)
                self._wire, retry_s = wire, _FIRST_RETRY_S
                logger.info("valkey connected", extra={"host": self._address.host, "port": self._address.port})
                await wire.lost
                logger.warning("valkey connection lost")
            except ConnectorError as e:
                logger.warning("valkey refused the connection", extra={"detail": str(e)})
            finally:
                self._wire = None
                wire.abort()
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, _LAST_RETRY_S)

    async def _greet(self, wire: _Wire) -> None:
        """Logs in, and waits until the server has loaded its data. Errors: ConnectorError."""
        commands = [*self._address.greeting(), ("PING",)]
        try:
            replies = await asyncio.wait_for(wire.send(commands), 2.0)
        except TimeoutError as e:
            raise TimedOut("valkey: no answer to the greeting") from e
        if error := _first_error(replies):
            raise error


class _Timer:
    """Ends a wait with TimedOut. A loop that was held up runs its timers before it reads its sockets, so the wait is
    over only after one more look at them: else an answer that came in time would be lost to our own delay.
    """

    __slots__ = ("_future", "_handle", "_loop", "_timeout_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[list[Any]], timeout_s: float) -> None:
        self._loop = loop
        self._future = future
        self._timeout_s = timeout_s
        self._handle = loop.call_later(timeout_s, self._look_once_more)

    def cancel(self) -> None:
        self._handle.cancel()

    def _look_once_more(self) -> None:
        self._handle = self._loop.call_later(_LAST_LOOK_S, self._expire)

    def _expire(self) -> None:
        if not self._future.done():
            self._future.set_exception(TimedOut(f"valkey: no answer within {self._timeout_s * 1000:.0f} ms"))


class _Wire(asyncio.Protocol):
    """One connection: bytes out, replies in, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.lost: asyncio.Future[None] = loop.create_future()
        self._reader = hiredis.Reader()
        self._pending: deque[_Pending] = deque()
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self.last_read_s = loop.time()

    def send(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if not self._pending:
            self.last_read_s = self._loop.time()  # silence counts from when an answer was owed
        self._pending.append(_Pending(len(commands), future))
        self._transport.write(_pack(commands))
        return future

    @property
    def is_closing(self) -> bool:
        """Whether nothing can be sent any more, which is so a moment before `lost` is."""
        return self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.last_read_s = self._loop.time()
        self._reader.feed(data)
        try:
            while self._pending and (reply := self._reader.gets()) is not False:
                pending = self._pending[0]
                pending.replies.append(_mapped(reply))
                if len(pending.replies) == pending.wanted:
                    self._pending.popleft()
                    if not pending.future.done():
                        pending.future.set_result(pending.replies)
        except hiredis.ProtocolError:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        for pending in self._pending:
            if not pending.future.done():
                pending.future.set_exception(Unavailable(f"valkey: connection lost: {error or 'closed'}"))
        self._pending.clear()
        if not self.lost.done():
            self.lost.set_result(None)
