"""Pacing over simulated days: several servers, noisy traffic, a forecast that is right or wrong."""

from __future__ import annotations

import math
import random

import pytest

from schemas.catalog import Campaign
from serving.adserver.limits import pacing
from serving.adserver.limits.pacing import Curve, DayPlan, Throttle

DAY_S = 86_400
LOOK_S = 30
START_MS = 20_000 * DAY_S * 1000
BUDGET = 500_000_000
PRICE = 5_000
#: A day with its trough at 4:00 and its peak at 20:00 UTC.
SHAPE = [1.0 + 0.8 * math.cos((hour - 20) / 24 * 2 * math.pi) for hour in range(24)]


def _poisson(rng: random.Random, mean: float) -> int:
    return max(0, round(rng.gauss(mean, math.sqrt(mean))))


def _day(plan: DayPlan, opportunities: float, servers: int = 3, seed: int = 1, shape: list[float] = SHAPE) -> list[int]:
    """Spend per UTC hour of a campaign that wins everything that it takes part in. Traffic is noisy: bursts of a
    minute, and each hour off its forecast by up to a fifth. Reserved wins count as spent; one in ten is not shown and
    comes back after two minutes."""
    rng = random.Random(seed)
    throttles = [Throttle() for _ in range(servers)]
    hours = [0] * 24
    spent = 0
    coming_back: list[tuple[int, int]] = []
    level = 1.0
    for at_s in range(0, DAY_S, LOOK_S):
        hour = at_s // 3600
        if at_s % 3600 == 0:
            level = rng.uniform(0.8, 1.2)
        now_ms = START_MS + at_s * 1000
        while coming_back and coming_back[0][0] <= at_s:
            spent -= coming_back.pop(0)[1]
        mean = opportunities * shape[hour] / sum(shape) * level * rng.uniform(0.5, 1.5) * LOOK_S / 3600
        for throttle in throttles:
            share = throttle.look(plan, spent, now_ms)
            wins = min(_poisson(rng, mean / servers * share), (plan.budget_micros - spent) // PRICE)
            spent += wins * PRICE
            unshown = round(wins * 0.1)
            coming_back.append((at_s + 120, unshown * PRICE))
            hours[hour] += (wins - unshown) * PRICE
    return hours


@pytest.mark.parametrize("plenty", [1.5, 4.0, 40.0])
def test_even_pacing_ends_at_the_budget_and_follows_the_traffic(plenty: float) -> None:
    """With traffic for 1.5 to 40 times the budget: 98 to 100 % is spent, and no hour is off the forecast by more than
    a seventh of an average hour."""
    curve = Curve(SHAPE)
    hours = _day(DayPlan(pacing.EVENLY, BUDGET, curve), BUDGET / PRICE * plenty)
    assert 0.98 * BUDGET <= sum(hours) <= BUDGET
    for hour, spent in enumerate(hours):
        planned = BUDGET * (curve.passed((hour + 1) * 3_600_000) - curve.passed(hour * 3_600_000))
        assert abs(spent - planned) < BUDGET / 24 / 7


def test_a_wrong_forecast_is_made_good() -> None:
    hours = _day(DayPlan(pacing.EVENLY, BUDGET, Curve()), BUDGET / PRICE * 6)
    assert 0.98 * BUDGET <= sum(hours) <= BUDGET


def test_traffic_that_is_too_little_is_taken_whole() -> None:
    hours = _day(DayPlan(pacing.EVENLY, BUDGET, Curve(SHAPE)), BUDGET / PRICE / 2)
    assert sum(hours) > 0.4 * BUDGET


def test_frontloaded_runs_a_quarter_ahead_and_ends_early() -> None:
    curve = Curve(SHAPE)
    hours = _day(DayPlan(pacing.FRONTLOADED, BUDGET, curve), BUDGET / PRICE * 4)
    assert 0.98 * BUDGET <= sum(hours) <= BUDGET
    for hour in range(4, 20):
        ahead = sum(hours[: hour + 1]) / BUDGET - curve.passed((hour + 1) * 3_600_000)
        assert ahead > 0.5 * 0.25 * min(curve.passed((hour + 1) * 3_600_000), 0.6)
    end = next(hour for hour in range(24) if curve.passed(hour * 3_600_000) > 0.85)
    assert sum(hours[:end]) > 0.97 * BUDGET


def test_as_fast_as_possible_takes_everything_until_the_budget_is_gone() -> None:
    hours = _day(DayPlan(pacing.AS_FAST_AS_POSSIBLE, BUDGET, Curve(SHAPE)), BUDGET / PRICE * 8)
    gone = next(hour for hour in range(24) if sum(hours[: hour + 1]) > 0.98 * BUDGET)
    assert gone < 8


def test_a_campaign_of_part_of_a_day_spends_in_it() -> None:
    campaign = Campaign(
        "c", "a", "n", BUDGET, START_MS + 6 * 3_600_000, START_MS + 12 * 3_600_000, pacing=pacing.EVENLY
    )
    plan = pacing.day_plan(campaign, BUDGET, Curve(), START_MS + 7 * 3_600_000)
    assert (plan.from_ms, plan.until_ms) == (6 * 3_600_000, 12 * 3_600_000)
    assert plan.target_micros(9 * 3_600_000) == BUDGET / 2
    tomorrow = pacing.day_plan(campaign, BUDGET, Curve(), START_MS + 31 * 3_600_000)
    assert tomorrow.target_micros(0) == BUDGET, "a plan without a part of the day has nothing to wait for"


def test_the_gate_lets_through_the_share_and_decides_alike() -> None:
    seeds = [pacing.request_seed(f"request-{i}") for i in range(20_000)]
    for share in (0.0, 0.03, 0.5, 1.0):
        through = sum(pacing.passes(seed, 123_456_789, pacing.threshold(share)) for seed in seeds)
        assert abs(through / len(seeds) - share) < 0.02
    half = pacing.threshold(0.5)
    both = sum(pacing.passes(s, 1, half) and pacing.passes(s, 2, half) for s in seeds)
    assert abs(both / len(seeds) - 0.25) < 0.02, "two campaigns are held back independently"
    again = [pacing.request_seed(f"request-{i}") for i in range(20_000)]
    assert [pacing.passes(s, 9, half) for s in again] == [pacing.passes(s, 9, half) for s in seeds]


def test_the_forecast_is_what_the_last_day_was() -> None:
    now_s = START_MS // 1000 + 5 * 3600 + 60
    hours = {now_s - now_s % 3600 - 3600 * back: 100 if back <= 5 else 10 for back in range(1, 25)}
    curve = pacing.learnt_curve(hours, now_s)
    assert curve.passed(5 * 3_600_000) > 0.5, "the hours before this one were the busy ones"
    assert pacing.learnt_curve({now_s - 3600: 5}, now_s).passed(12 * 3_600_000) == 0.5


@pytest.mark.parametrize("weights", [[1] * 23, [0] * 24, [-1] + [1] * 23])
def test_a_curve_that_is_none_is_refused(weights: list[int]) -> None:
    with pytest.raises(ValueError, match="24 weights"):
        Curve(weights)
