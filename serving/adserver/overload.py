"""Refuses what could not be answered in time, before it costs anything: a slow answer is worth nothing to a player.

The event loop's own delay says how long a request waits before anybody looks at it. From a quarter of `lag_ms` on a
share of the requests is refused that grows with the delay, and at `lag_ms` all of them; so the delay settles where the
rest can be answered, instead of swinging between everything and nothing.
"""

from __future__ import annotations

import asyncio
import time

_BEAT_S = 0.01
_SOFT_SHARE = 0.25
#: Requests under way below which a delay is the machine's and not ours: refusing them would not shorten it.
CALM = 8
#: Weight of a new delay that is below the last; a longer one counts at once.
_EASE = 0.3


class Overload:
    """One per process. `in_flight` is counted by the doors."""

    def __init__(self, lag_ms: float, most_in_flight: int) -> None:
        self._full_s = lag_ms / 1000
        self._soft_s = self._full_s * _SOFT_SHARE
        self._most_in_flight = most_in_flight
        self._debt = 0.0
        self.lag_s = 0.0
        self.in_flight = 0

    def refuses(self) -> str | None:
        """Why the next request is not taken; None when it is."""
        if self.in_flight >= self._most_in_flight:
            return "in_flight"
        if self.lag_s <= self._soft_s or self.in_flight < CALM:
            return None
        self._debt += min(1.0, (self.lag_s - self._soft_s) / (self._full_s - self._soft_s))
        if self._debt >= 1.0:
            self._debt -= 1.0
            return "lag"
        return None

    def observe(self, lag_s: float) -> None:
        """Takes note of how late the loop was."""
        self.lag_s = lag_s if lag_s > self.lag_s else self.lag_s + _EASE * (lag_s - self.lag_s)

    async def run(self) -> None:
        """Watches the loop until it is cancelled."""
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(_BEAT_S)
            self.observe(max(0.0, time.monotonic() - began_s - _BEAT_S))
