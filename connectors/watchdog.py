"""Ends a process whose client does not come back from a call, so that another one can go on."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_EXIT_STUCK = 1


def _end_process() -> None:
    """At once: a thread that is stuck in C code can't be told anything, and would hold up an ordinary end."""
    os._exit(_EXIT_STUCK)


class Watchdog:
    """Watches one call at a time; `end` is called when one takes longer than `limit_s`.

    For calls that have a limit of their own and should never need this one: librdkafka 2.16 waits for ever in
    `send_offsets_to_transaction` when the broker is killed at the wrong moment. What a killed worker leaves behind, its
    next instance puts in order. Close it after use.
    """

    def __init__(self, limit_s: float, end: Callable[[], None] = _end_process) -> None:
        self._limit_s = limit_s
        self._end = end
        self._began_s: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The block has to end within the limit."""
        self._began_s = time.monotonic()
        try:
            yield
        finally:
            self._began_s = None

    def close(self) -> None:
        """Watches no more. Does not block."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._limit_s / 10):
            began_s = self._began_s
            if began_s is not None and time.monotonic() - began_s > self._limit_s:
                logger.critical("a call does not come back", extra={"limit_s": self._limit_s})
                self._end()
                return
