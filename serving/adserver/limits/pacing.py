"""Pacing: the share of its opportunities that a campaign takes, so that its day's budget follows the day's traffic.

A controller per campaign, off the request path. It knows the campaign's absolute spend (committed + reserved, from the
ledger), which all servers share, so any number of them paces together without talking to each other. Every period it
- estimates what the campaign would spend per second if it took part in everything: what was spent, divided by the
  share that was let through; an exponential mean over `_MEMORY_S`. This is the integral part: it settles on the
  level of traffic, however far the forecast was off;
- sets the share so that the plan is met `_HORIZON_S` from now: the budget that the plan has for then, less what is
  spent now. This is the proportional part: what is ahead or behind is made good within that time.
A change is at most `_STEP` fold per period, so that a quiet moment does not open the gate for a burst.

The plan is the forecast's cumulative curve: evenly follows it; frontloaded runs a quarter ahead of it, and ends when
four fifths of the traffic have passed; as fast as possible has no plan and no gate. The last `_TAIL_S` of a plan are
spent towards its end, so that an even plan ends at the budget rather than a period short of it.

The gate is in front of ranking: an ad that is held back takes no part in the auction, so its bid says nothing about
pacing (a throttle, not a bid multiplier). It is a hash of request and campaign, so a repeated request decides alike.
Source: Agarwal, Ghosh, Wei, You, "Budget pacing for targeted online advertisements at LinkedIn", KDD 2014 (pass-through
rate against a forecast of traffic, slow start); Xu, Lee, Li, Qi, Lu, "Smart pacing for effective online ad campaign
optimization", KDD 2015 (feedback on the rate).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from schemas.catalog import Campaign

EVENLY, FRONTLOADED, AS_FAST_AS_POSSIBLE = "evenly", "frontloaded", "as_fast_as_possible"
PACINGS = (EVENLY, FRONTLOADED, AS_FAST_AS_POSSIBLE)
HOURS = 24
DAY_MS, HOUR_MS = 86_400_000, 3_600_000

#: How far ahead of the traffic a frontloaded campaign spends.
_AHEAD = 1.25
_HORIZON_S, _TAIL_S, _MEMORY_S = 600.0, 120.0, 300.0
_STEP, _FIRST_SHARE, _LEAST_SHARE = 2.0, 0.05, 0.001
_FULL = 1 << 32
_MIX = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class Curve:
    """A day's traffic: which share of it has passed at a moment of the UTC day. Flat when nothing is forecast.

    Errors: ValueError for weights that are not 24, negative, or all 0.

    Example:
    >>> Curve().passed(6 * 3_600_000), Curve([0] * 12 + [1] * 12).passed(18 * 3_600_000)
    (0.25, 0.5)
    """

    __slots__ = ("_sums", "_total")

    def __init__(self, weights: Sequence[float] = ()) -> None:
        weights = weights or [1.0] * HOURS
        if len(weights) != HOURS or min(weights) < 0 or not sum(weights) > 0:
            raise ValueError("a curve has 24 weights, none negative, not all 0")
        self._total = float(sum(weights))
        self._sums = [0.0, *accumulate(map(float, weights))]

    def passed(self, of_day_ms: float) -> float:
        """The share of the day's traffic before a moment of the day."""
        hours = min(max(of_day_ms, 0.0), DAY_MS) / HOUR_MS
        hour = min(int(hours), HOURS - 1)
        return (self._sums[hour] + (hours - hour) * (self._sums[hour + 1] - self._sums[hour])) / self._total


@dataclass(frozen=True, slots=True)
class DayPlan:
    """A campaign's day: its budget, and the part of the day's traffic in which it runs."""

    pacing: str
    budget_micros: int
    curve: Curve
    from_ms: float = 0.0  # of the day
    until_ms: float = float(DAY_MS)

    def target_micros(self, of_day_ms: float) -> float:
        """What should be spent by a moment of the day."""
        first, last = self.curve.passed(self.from_ms), self.curve.passed(self.until_ms)
        if last <= first:
            return float(self.budget_micros)
        share = (self.curve.passed(min(of_day_ms, self.until_ms)) - first) / (last - first)
        if self.pacing == FRONTLOADED:
            share *= _AHEAD
        return self.budget_micros * min(max(share, 0.0), 1.0)


def day_plan(campaign: Campaign, budget_micros: int, curve: Curve, now_ms: int) -> DayPlan:
    """The plan of the UTC day of `now_ms`. `budget_micros` is of this day: its own, or what is left of the lifetime."""
    midnight_ms = now_ms - now_ms % DAY_MS
    return DayPlan(
        campaign.pacing,
        budget_micros,
        Curve(campaign.traffic_curve) if campaign.traffic_curve else curve,
        float(min(max(campaign.start_ms - midnight_ms, 0), DAY_MS)),
        float(min(max(campaign.end_ms - midnight_ms, 0), DAY_MS)),
    )


class Throttle:
    """The share of opportunities of one campaign, adjusted with every look at its spend. Pure: time is given."""

    __slots__ = ("_full_micros_per_s", "_last", "share")

    def __init__(self) -> None:
        self.share = _FIRST_SHARE
        self._full_micros_per_s: float | None = None
        self._last: tuple[int, int] | None = None  # when (ms), what was spent of that day

    def look(self, plan: DayPlan, spent_micros: int, now_ms: int) -> float:
        """The share from now on, given what is spent of this UTC day."""
        if plan.pacing == AS_FAST_AS_POSSIBLE:
            self.share = 1.0
            return 1.0
        last, self._last = self._last, (now_ms, spent_micros)
        if last is not None and now_ms > last[0] and now_ms // DAY_MS == last[0] // DAY_MS:
            self._learn(max(0, spent_micros - last[1]), (now_ms - last[0]) / 1000)
        of_day_ms = now_ms % DAY_MS
        wanted = self._wanted_micros_per_s(plan, spent_micros, of_day_ms)
        if self._full_micros_per_s is None:
            return self.share  # nothing is known of its traffic yet: the first share stays
        share = wanted / self._full_micros_per_s if self._full_micros_per_s > 0 else math.inf
        self.share = min(max(share, self.share / _STEP, _LEAST_SHARE), self.share * _STEP, 1.0)
        if wanted <= 0:
            self.share = _LEAST_SHARE
        return self.share

    def _learn(self, spent_micros: int, for_s: float) -> None:
        rate = spent_micros / for_s / self.share
        known = self._full_micros_per_s
        weight = 1.0 - math.exp(-for_s / _MEMORY_S)
        # the first looks weigh as in a plain mean, so that the estimate is not led by its first value
        self._full_micros_per_s = rate if known is None else known + weight * (rate - known)

    @staticmethod
    def _wanted_micros_per_s(plan: DayPlan, spent_micros: int, of_day_ms: int) -> float:
        ahead_ms = of_day_ms + _HORIZON_S * 1000
        horizon_s = _HORIZON_S
        if ahead_ms > plan.until_ms - _TAIL_S * 1000:  # the end is near: aim at it, a little early
            ahead_ms = plan.until_ms
            horizon_s = max((plan.until_ms - of_day_ms) / 1000 - _TAIL_S, 30.0)
        return (plan.target_micros(ahead_ms) - spent_micros) / horizon_s


def threshold(share: float) -> int:
    """A share as the gate compares it: of 2^32."""
    return _FULL if share >= 1.0 else int(share * _FULL)


def request_seed(request_id: str) -> int:
    """A request as the gate mixes it with a campaign."""
    return zlib.crc32(request_id.encode()) * 0x100000001 & _MASK


def passes(seed: int, campaign_hash: int, threshold: int) -> bool:
    """Whether a campaign takes part in a request: always the same for both.

    Example:
    >>> passes(request_seed("r"), 7, _FULL), passes(request_seed("r"), 7, 0)
    (True, False)
    """
    mixed = (seed ^ campaign_hash) * _MIX & _MASK
    mixed ^= mixed >> 29
    return (mixed * 0xBF58476D1CE4E5B9 & _MASK) >> 32 < threshold


def learnt_curve(impressions_by_hour: Mapping[int, int], now_s: int) -> Curve:
    """The forecast that tomorrow is as today: impressions by start of the hour (epoch s) of the last day, smoothed
    by a tenth of the mean so that no hour is forecast to be empty. Flat until a whole day was counted.

    Example:
    >>> learnt_curve({}, 86_400 * 3).passed(12 * 3_600_000)
    0.5
    """
    weights = [0.0] * HOURS
    hours = 0
    this_hour_s = now_s - now_s % 3600
    for start_s, impressions in impressions_by_hour.items():
        if this_hour_s - HOURS * 3600 <= start_s < this_hour_s:
            weights[start_s // 3600 % HOURS] += impressions
            hours += 1
    if hours < HOURS or not sum(weights):
        return Curve()
    floor = sum(weights) / HOURS / 10
    return Curve([weight + floor for weight in weights])
