"""How much of a deadline the server keeps for itself: it has to settle, write down and answer after the last DSP.

What that takes depends on how many auctions end at once, so it is learnt: the longest of the last answers, which fades
by half in 15 seconds, and some more; never less than the setting, never more than a half of the deadline. It depends on
the number of imps too, so each doubling of that learns for itself: a page of fifty imps takes nothing from the deadline
of a request for one.
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
    >>> own.observe(0.1, now_s=115.0, imps=50)
    >>> own.of(0.3, now_s=115.0, imps=40), own.of(0.3, now_s=115.0)
    (0.125, 0.025)
    """

    __slots__ = ("_least_s", "_longest")

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        #: (seconds, when) of the longest, by the bits that the number of imps has.
        self._longest: dict[int, tuple[float, float]] = {}

    def of(self, deadline_s: float, now_s: float, imps: int = 1) -> float:
        """Seconds to keep of a deadline that is `deadline_s` away: no fewer imps have taken longer."""
        size = imps.bit_length()
        longest_s = max((self._faded(known, now_s) for known in self._longest if known <= size), default=0.0)
        return min(max(self._least_s, longest_s * _HEADROOM), deadline_s * _MOST_SHARE)

    def observe(self, took_s: float, now_s: float, imps: int = 1) -> None:
        """Takes note of what an answer took after the last DSP, or after the time that was kept for them."""
        size = imps.bit_length()
        self._longest[size] = max(took_s, self._faded(size, now_s)), now_s

    def _faded(self, size: int, now_s: float) -> float:
        longest_s, at_s = self._longest.get(size, (0.0, now_s))
        return float(longest_s * 0.5 ** ((now_s - at_s) / _HALF_LIFE_S))
