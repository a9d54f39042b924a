"""How much of a deadline the server keeps for itself: it has to settle, write down and answer after the last DSP.

What that takes depends on how many auctions end at once, so it is learnt: the longest of the last answers, which fades
by half in about 1,400 answers, and some more; never less than the setting, never more than a half of the deadline.
"""

from __future__ import annotations

_HEADROOM = 1.25
_FADES = 0.9995
_MOST_SHARE = 0.5


class OwnTime:
    """One per process.

    Example:
    >>> own = OwnTime(least_s=0.02)
    >>> own.of(0.15)
    0.02
    >>> own.observe(0.04)
    >>> own.of(0.15), own.of(0.06)
    (0.05, 0.03)
    """

    __slots__ = ("_least_s", "_longest_s")

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._longest_s = 0.0

    def of(self, deadline_s: float) -> float:
        """Seconds to keep of a deadline that is `deadline_s` away."""
        return min(max(self._least_s, self._longest_s * _HEADROOM), deadline_s * _MOST_SHARE)

    def observe(self, took_s: float) -> None:
        """Takes note of what an answer took after the last DSP, or after the time that was kept for them."""
        self._longest_s = max(took_s, self._longest_s * _FADES)
