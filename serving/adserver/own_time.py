"""How much of a deadline the server keeps for itself: it has to settle, write down and answer after the last DSP.

What that takes depends on how many auctions end at once, so it is learnt: the longest of the last answers, which fades
by half in 15 seconds, and some more; never less than the setting, never more than a half of the deadline.
"""

from __future__ import annotations

_HEADROOM = 1.25
_HALF_LIFE_S = 15.0
_MOST_SHARE = 0.5


class OwnTime:
    """One per process.

    Example:
    >>> own = OwnTime(least_s=0.02)
    >>> own.of(0.15, now_s=100.0)
    0.02
    >>> own.observe(0.04, now_s=100.0)
    >>> own.of(0.15, now_s=100.0), own.of(0.06, now_s=100.0), own.of(0.15, now_s=115.0)
    (0.05, 0.03, 0.025)
    """

    __slots__ = ("_at_s", "_least_s", "_longest_s")

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._longest_s = 0.0
        self._at_s = 0.0

    def of(self, deadline_s: float, now_s: float) -> float:
        """Seconds to keep of a deadline that is `deadline_s` away."""
        return min(max(self._least_s, self._faded(now_s) * _HEADROOM), deadline_s * _MOST_SHARE)

    def observe(self, took_s: float, now_s: float) -> None:
        """Takes note of what an answer took after the last DSP, or after the time that was kept for them."""
        self._longest_s = max(took_s, self._faded(now_s))
        self._at_s = now_s

    def _faded(self, now_s: float) -> float:
        return float(self._longest_s * 0.5 ** ((now_s - self._at_s) / _HALF_LIFE_S))
