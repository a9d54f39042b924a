"""How often somebody asked lately, in bounded memory: counts of this window and the last, the last one fading out."""

from __future__ import annotations


class Rates:
    """At most `limit` in any `window_s`, as near as two windows tell. `most_keys` are remembered per window.

    A key that comes when the window is full of others is not counted: what can't be known is not held against anybody.

    Example:
    >>> rates = Rates(limit=2, window_s=60, most_keys=10)
    >>> [rates.exceeded(key=7, now_s=s) for s in (0, 1, 2, 65, 170)]
    [False, False, True, True, False]
    """

    def __init__(self, limit: int, window_s: int, most_keys: int) -> None:
        self._limit = limit
        self._window_s = window_s
        self._most_keys = most_keys
        self._window = 0
        self._now: dict[int, int] = {}
        self._before: dict[int, int] = {}

    def exceeded(self, key: int, now_s: float) -> bool:
        """Counts one more of a key; whether that is too many."""
        window = int(now_s // self._window_s)
        if window != self._window:
            self._before = self._now if window == self._window + 1 else {}
            self._now, self._window = {}, window
        count = self._now.get(key, 0) + 1
        if count == 1 and len(self._now) >= self._most_keys:
            return False
        self._now[key] = count
        left = 1.0 - (now_s / self._window_s - window)
        return count + self._before.get(key, 0) * left > self._limit
