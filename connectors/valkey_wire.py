"""What goes over a connection to Valkey: where it leads, commands and scripts out, replies in, answers that are owed.

`connectors/valkey.py` makes clients of it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import hiredis

from schemas.errors import ConfigError, ConnectorError, Refused, TimedOut, Unavailable

Argument = bytes | str | int
Command = tuple[Argument, ...]

#: Error prefixes that pass by themselves: the server loads its file, a script blocks it, a replica takes over.
_PASSING = ("LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN")
_LAST_LOOK_S = 0.001
_LONGER_S = 0.002


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


def pack(commands: Sequence[Command]) -> bytes:
    return b"".join([hiredis.pack_command(command) for command in commands])  # type: ignore[arg-type]  # its stub says one element


def mapped(reply: Any) -> Any:
    if isinstance(reply, hiredis.ReplyError):
        text = str(reply)
        return Unavailable(text) if text.startswith(_PASSING) else Refused(text)
    return reply


def first_error(replies: Sequence[Any]) -> ConnectorError | None:
    return next((reply for reply in replies if isinstance(reply, ConnectorError)), None)


class _Pending:
    """A pipeline on the wire: how many replies it still waits for."""

    __slots__ = ("future", "replies", "wanted")

    def __init__(self, wanted: int, future: asyncio.Future[list[Any]]) -> None:
        self.wanted = wanted
        self.replies: list[Any] = []
        self.future = future


class Timer:
    """Ends a wait with TimedOut. A loop that was held up runs its timers before it reads its sockets, so the wait is
    over only after one more look at them: else an answer that came in time would be lost to our own delay.

    `longer` is asked when the time is over, and again every `_LONGER_S`: as long as it says so, the wait goes on.
    """

    __slots__ = ("_future", "_handle", "_longer", "_loop", "_timeout_s")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[list[Any]],
        timeout_s: float,
        longer: Callable[[], bool] | None = None,
    ) -> None:
        self._longer = longer
        self._loop = loop
        self._future = future
        self._timeout_s = timeout_s
        self._handle = loop.call_later(timeout_s, self._look_once_more)

    def cancel(self) -> None:
        self._handle.cancel()

    def _look_once_more(self) -> None:
        if self._longer is not None and self._longer():
            self._handle = self._loop.call_later(_LONGER_S, self._look_once_more)
            return
        self._handle = self._loop.call_later(_LAST_LOOK_S, self._expire)

    def _expire(self) -> None:
        if not self._future.done():
            self._future.set_exception(TimedOut(f"valkey: no answer within {self._timeout_s * 1000:.0f} ms"))


class Wire(asyncio.Protocol):
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
        self._transport.write(pack(commands))
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
                pending.replies.append(mapped(reply))
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
