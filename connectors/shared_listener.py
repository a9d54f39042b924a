"""One listening socket for several processes, which take about as many connections each.

Without more, whoever looks first takes all that wait: a process that has just answered looks more often, and an
exchange keeps its few connections for hours, so one process ends up with most of the requests. Here a process that has
more connections than another lets it go first: it looks again in `_YIELD_S` and then takes one itself, so a process
that is busy, stopped or dead holds nobody up.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import socket
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

_YIELD_S = 0.002
#: After an accept that failed for want of descriptors or memory.
_SHORT_OF_S = 0.5
_GONE = 1 << 40


class ConnectionCounts:
    """Open connections of each of `count` processes, in memory that forked ones share."""

    def __init__(self, count: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 8 * count)).cast("q")

    def of(self, number: int) -> Callable[[int], None]:
        """Sets the number of connections of one process, whose number counts from 0."""

        def put(connections: int) -> None:
            self._counts[number] = connections

        put(0)
        return put

    def least(self) -> int:
        return min(self._counts)


class SharedListener:
    """Takes connections from a socket that is shared, for one process."""

    def __init__(self, listener: socket.socket, counts: ConnectionCounts, number: int) -> None:
        self._listener = listener
        self._counts = counts
        self._tell = counts.of(number)
        self._protocol: Callable[[], asyncio.Protocol] = asyncio.Protocol
        self._opening: set[asyncio.Task[Any]] = set()
        self._open = 0
        self._closed = False

    def start(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Makes a protocol for each connection; whoever made it calls `closed` when the connection is lost."""
        self._protocol = protocol
        self._listener.setblocking(False)
        self._look()

    def closed(self) -> None:
        """A connection has ended."""
        self._open -= 1
        if not self._closed:
            self._tell(self._open)

    def close(self) -> None:
        """Takes no more; what waits is for the others."""
        self._closed = True
        self._tell(_GONE)
        asyncio.get_running_loop().remove_reader(self._listener)

    def _look(self) -> None:
        asyncio.get_running_loop().add_reader(self._listener, self._ready)

    def _ready(self) -> None:
        if self._open > self._counts.least():
            self._pause(_YIELD_S)
        else:
            self._accept()

    def _pause(self, for_s: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        loop.call_later(for_s, self._go_on)

    def _go_on(self) -> None:
        if not self._closed:
            self._look()
            self._accept()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another process took it, or the client has gone
        except OSError as e:
            logger.warning("no connection can be taken", extra={"detail": str(e)})
            self._pause(_SHORT_OF_S)
            return
        connection.setblocking(False)
        self._open += 1
        self._tell(self._open)
        loop = asyncio.get_running_loop()
        opening = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opened)

    def _opened(self, opening: asyncio.Task[Any]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and opening.exception() is not None:
            self.closed()  # the client had gone before there was a connection to speak of
