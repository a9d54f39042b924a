"""Stops asking a slow store for features: cold-start features in time are worth more than good ones too late.

Closed: all reads are asked and measured. When the 99th percentile has been above `slow_s` for `window_s`, slot after
slot, it opens: nobody asks. After `retry_s` it is half open: `probes` reads are let through; if none of them is slow it
closes, at the first slow one it opens again.
Source: Nygard, "Release It!", 2nd edition, 2018, "Circuit Breaker".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

_SLOTS = 6
_TOLERATED = 0.01  # share of slow reads, beyond which the 99th percentile is slow


class State(IntEnum):
    """As the metric has it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """`min_reads`: fewer reads in the window say nothing about a 99th percentile."""

    slow_s: float = 0.015
    window_s: float = 60.0
    min_reads: int = 200
    retry_s: float = 5.0
    probes: int = 20


class FeatureBreaker:
    """One per process. `clock` gives seconds that never go back; `on_change` is told every new state."""

    def __init__(
        self,
        limits: BreakerLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[State], object] = lambda _state: None,
    ) -> None:
        self._limits = limits or BreakerLimits()
        self._clock = clock
        self._on_change = on_change
        self._slot_s = self._limits.window_s / _SLOTS
        self.state = State.CLOSED
        self._slot_ends_s = clock() + self._slot_s
        self._reads = self._slow = 0  # of this slot
        self._slow_since_s: float | None = None
        self._slow_reads = 0  # of all slots since then
        self._retry_at_s = 0.0
        self._left = self._good = 0  # of the probes

    def allows(self) -> bool:
        """Whether to ask for features now."""
        if self.state is State.CLOSED:
            return True
        now_s = self._clock()
        if now_s >= self._retry_at_s:
            # again also when probes were lost on the way
            self._left, self._good = self._limits.probes, 0
            self._become(State.HALF_OPEN)
            self._retry_at_s = now_s + self._limits.retry_s
        if self.state is State.OPEN or not self._left:
            return False
        self._left -= 1
        return True

    def record(self, latency_s: float) -> None:
        """How long a read took; for one without an answer, how long it was waited for."""
        slow = latency_s > self._limits.slow_s
        if self.state is State.CLOSED:
            self._count(slow)
        elif self.state is State.HALF_OPEN:
            self._good += 1
            if slow:
                self._open()
            elif self._good >= self._limits.probes:
                self._become(State.CLOSED)
                self._reads = self._slow = self._slow_reads = 0
                self._slow_since_s = None
                self._slot_ends_s = self._clock() + self._slot_s

    def _become(self, state: State) -> None:
        self.state = state
        self._on_change(state)

    def _count(self, slow: bool) -> None:
        now_s = self._clock()
        if now_s >= self._slot_ends_s:
            self._close_slot(now_s)
            if self.state is State.OPEN:
                return
        self._reads += 1
        self._slow += slow

    def _close_slot(self, now_s: float) -> None:
        """A slot with a good 99th percentile starts anew; one without reads says nothing."""
        if self._reads:
            if self._slow <= _TOLERATED * self._reads:
                self._slow_since_s, self._slow_reads = None, 0
            else:
                if self._slow_since_s is None:
                    self._slow_since_s = self._slot_ends_s - self._slot_s
                self._slow_reads += self._reads
                lasted = self._slot_ends_s - self._slow_since_s >= self._limits.window_s
                if lasted and self._slow_reads >= self._limits.min_reads:
                    self._open()
                    return
        self._reads = self._slow = 0
        self._slot_ends_s = now_s + self._slot_s

    def _open(self) -> None:
        self._become(State.OPEN)
        self._retry_at_s = self._clock() + self._limits.retry_s
