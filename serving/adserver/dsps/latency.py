"""How long a DSP takes, late answers included, and how long it is therefore given.

A timeout that were learnt from answers in time alone could only shrink: what comes late would never be seen. Here every
exchange is read to its end off-path, so the estimate sees the slow tail and grows when a DSP slows down.
"""

from __future__ import annotations

import math
from bisect import bisect_right

#: Latencies from 1 ms to about 3 s in steps of an eighth: the error of a quantile is at most half a step.
_STEP = math.log(1.125)
_BUCKETS = 70
#: Where the buckets after the first begin.
_BOUNDS_S = [math.exp(bucket * _STEP) / 1000 for bucket in range(1, _BUCKETS)]
#: Answers after which older ones count half.
_HALF_AFTER = 400.0
#: Answers below which nothing is concluded.
ENOUGH = 50


class LatencySketch:
    """A histogram of logarithms that forgets: 70 numbers, a few hundred nanoseconds per answer.

    Example:
    >>> sketch = LatencySketch()
    >>> for ms in range(1, 101):
    ...     sketch.observe(ms / 1000)
    >>> 0.085 < sketch.quantile_s(0.9) < 0.1
    True
    """

    __slots__ = ("_counts", "_total", "seen")

    def __init__(self) -> None:
        self._counts = [0.0] * _BUCKETS
        self._total = 0.0
        self.seen = 0

    def observe(self, latency_s: float) -> None:
        """Adds an answer, or what was waited for one that never came."""
        self._counts[bisect_right(_BOUNDS_S, latency_s)] += 1.0
        self._total += 1.0
        self.seen += 1
        if self._total > _HALF_AFTER:
            self._counts = [count * 0.5 for count in self._counts]
            self._total *= 0.5

    def quantile_s(self, share: float) -> float:
        """The latency that `share` of the answers do not exceed; 0 without any."""
        wanted = share * self._total
        below = 0.0
        for bucket, count in enumerate(self._counts):
            below += count
            if below >= wanted and below:
                return math.exp((bucket + 0.5) * _STEP) / 1000
        return 0.0


class AdaptiveTimeout:
    """What a DSP is given: a quantile of its latencies and some headroom, between a floor and its own limit."""

    __slots__ = ("_floor_s", "_headroom", "_next", "_quantile", "_sketch", "longest_s", "timeout_s")

    def __init__(self, longest_s: float, floor_s: float, quantile: float, headroom: float) -> None:
        self._sketch = LatencySketch()
        self._floor_s = floor_s
        self._quantile = quantile
        self._headroom = headroom
        self._next = ENOUGH
        self.longest_s = longest_s
        self.timeout_s = longest_s

    @property
    def changes_after(self) -> int:
        """How many answers more it takes until the timeout follows them."""
        return self._next - self._sketch.seen

    def observe(self, latency_s: float) -> None:
        """Takes note of an answer, in time or late; now and then the timeout follows."""
        self._sketch.observe(latency_s)
        if self._sketch.seen >= self._next:
            self._next = self._sketch.seen + ENOUGH // 2
            wanted_s = self._sketch.quantile_s(self._quantile) * self._headroom
            self.timeout_s = min(max(wanted_s, self._floor_s), self.longest_s)
