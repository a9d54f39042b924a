"""How a worker waits for what is outside, without losing its place in its consumer group."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer

from schemas.errors import TimedOut, Unavailable

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Patience:
    """Repeats a call while it ends in Unavailable or TimedOut; other errors come through.

    `on_change(what, waiting)` is told when a wait begins and ends. `waiting_for` may be read by any thread.
    """

    def __init__(self, stopping: threading.Event, retry_s: float, on_change: Callable[[str, bool], None]) -> None:
        self._stopping = stopping
        self._retry_s = retry_s
        self._on_change = on_change
        self.waiting_for: str | None = None
        self.lost_position = False

    def wait_for(self, what: str, call: Callable[[], T], consumer: Consumer | None = None) -> T | None:
        """The call's result; None when `stopping` was set first.

        Meanwhile the consumer's partitions are paused and it goes on polling, so that it stays a member of its
        group. `lost_position` then says whether something came out of it all the same (an error): the caller has to
        read again from the committed offsets.
        """
        self.lost_position = False
        while not self._stopping.is_set():
            try:
                result = call()
            except (Unavailable, TimedOut) as e:
                self._begin(what, str(e))
            else:
                if self.waiting_for is not None:
                    self._end(consumer)
                return result
            if consumer is not None:
                consumer.pause(consumer.assignment())
                if consumer.poll(0) is not None:
                    self.lost_position = True
            self._stopping.wait(self._retry_s)
        return None

    def _begin(self, what: str, error: str) -> None:
        if self.waiting_for is None:
            logger.warning("waiting", extra={"what": what, "error": error})
            self.waiting_for = what
            self._on_change(what, True)

    def _end(self, consumer: Consumer | None) -> None:
        logger.info("going on", extra={"what": self.waiting_for})
        self._on_change(str(self.waiting_for), False)
        self.waiting_for = None
        if consumer is not None:
            consumer.resume(consumer.assignment())
