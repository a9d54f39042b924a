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
import logging
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import hiredis

from connectors.valkey_wire import (
    Address,
    Argument,
    Command,
    Script,
    Timer,
    Wire,
    first_error,
    is_unknown_script,
    mapped,
    pack,
)
from schemas.errors import ConnectorError, TimedOut, Unavailable

logger = logging.getLogger(__name__)

_READ_BYTES = 262_144
_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 1.0


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
        if greeting and (error := first_error(self._exchange(connection, greeting))):
            self.close()
            raise error
        return connection

    def _exchange(self, connection: socket.socket, commands: Sequence[Command]) -> list[Any]:
        deadline_s = time.monotonic() + self._timeout_s
        connection.settimeout(self._timeout_s)
        connection.sendall(pack(commands))
        replies: list[Any] = []
        while True:
            while len(replies) < len(commands) and (reply := self._reader.gets()) is not False:
                replies.append(mapped(reply))
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
        self._wire: Wire | None = None
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

    async def pipeline(
        self, commands: Sequence[Command], timeout_s: float, longer: Callable[[], bool] | None = None
    ) -> list[Any]:
        """The reply of each command, in order; `Refused` stands where a command was refused.

        Errors: Unavailable at once when there is no connection, TimedOut after `timeout_s`, or later, as soon as
        `longer` says that there is no more time.
        """
        if not commands:
            return []
        wire = self._wire
        if wire is None or wire.is_closing:
            raise Unavailable("valkey: not connected")
        future = wire.send(commands)
        loop = asyncio.get_running_loop()
        timer = Timer(loop, future, timeout_s, longer)
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
                    loop.create_connection(partial(Wire, loop), self._address.host, self._address.port), 2.0
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

    async def _greet(self, wire: Wire) -> None:
        """Logs in, and waits until the server has loaded its data. Errors: ConnectorError."""
        commands = [*self._address.greeting(), ("PING",)]
        try:
            replies = await asyncio.wait_for(wire.send(commands), 2.0)
        except TimeoutError as e:
            raise TimedOut("valkey: no answer to the greeting") from e
        if error := first_error(replies):
            raise error
