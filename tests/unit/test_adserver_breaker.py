"""The breaker of features, on a clock that is set by hand; what the store asks while it is open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.valkey_wire import Timer
from schemas.errors import TimedOut, Unavailable
from serving.adserver.features.breaker import BreakerLimits, FeatureBreaker, State
from serving.adserver.limits.budgets import BudgetTimes
from serving.adserver.store import Store

LIMITS = BreakerLimits(slow_s=0.015, window_s=60.0, min_reads=200, retry_s=5.0, probes=20)
FAST_S, SLOW_S = 0.002, 0.016


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def _reads(breaker: FeatureBreaker, clock: Clock, seconds: float, slow_share: float, per_s: int = 10) -> None:
    """Evenly spread reads; of every hundred, so many are slow."""
    for n in range(int(seconds * per_s)):
        clock.now_s += 1 / per_s
        breaker.record(SLOW_S if n % 100 < slow_share * 100 else FAST_S)


def _opened() -> tuple[FeatureBreaker, Clock]:
    clock = Clock()
    breaker = FeatureBreaker(LIMITS, clock)
    while breaker.state is State.CLOSED:
        assert clock.now_s < 1100
        _reads(breaker, clock, 0.1, 1.0)
    return breaker, clock


@pytest.mark.parametrize(
    ("seconds", "slow_share", "per_s", "state"),
    [
        (75, 0.02, 100, State.OPEN),
        (75, 0.01, 100, State.CLOSED),  # the 99th percentile is fast
        (55, 1.0, 10, State.CLOSED),  # not for long enough
        (190, 1.0, 1, State.CLOSED),  # too few to say
        (75, 1.0, 10, State.OPEN),
    ],
)
def test_opens_when_the_99th_percentile_was_slow_for_a_minute(
    seconds: float, slow_share: float, per_s: int, state: State
) -> None:
    clock = Clock()
    breaker = FeatureBreaker(LIMITS, clock)
    _reads(breaker, clock, seconds, slow_share, per_s)
    assert breaker.state is state


def test_a_good_slot_in_between_starts_the_minute_anew() -> None:
    clock = Clock()
    breaker = FeatureBreaker(LIMITS, clock)
    for _ in range(4):
        _reads(breaker, clock, 40, 1.0)
        _reads(breaker, clock, 31, 0.0)
    assert breaker.state is State.CLOSED


def test_closes_after_good_probes_and_lets_no_more_through_until_then() -> None:
    breaker, clock = _opened()
    assert not breaker.allows()
    clock.now_s += LIMITS.retry_s
    assert [breaker.allows() for _ in range(30)] == [True] * 20 + [False] * 10
    assert breaker.state is State.HALF_OPEN
    for n in range(20):
        assert breaker.state is State.HALF_OPEN, n
        breaker.record(FAST_S)
    assert breaker.state is State.CLOSED and breaker.allows()


def test_a_slow_probe_opens_it_again_and_lost_probes_are_sent_again() -> None:
    breaker, clock = _opened()
    clock.now_s += LIMITS.retry_s
    assert breaker.allows()
    breaker.record(SLOW_S)
    assert breaker.state is State.OPEN and not breaker.allows()
    breaker.record(FAST_S)  # an answer that comes while it is open changes nothing
    clock.now_s += LIMITS.retry_s
    assert [breaker.allows() for _ in range(21)] == [True] * 20 + [False]
    clock.now_s += LIMITS.retry_s
    assert breaker.allows()


@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.booleans(), st.booleans()), max_size=200))
def test_whatever_happens_it_is_asked_again_after_the_retry(steps: list[tuple[float, bool, bool]]) -> None:
    clock = Clock()
    breaker = FeatureBreaker(BreakerLimits(window_s=6.0, min_reads=2, retry_s=5.0, probes=2), clock)
    for seconds, slow, ask in steps:
        clock.now_s += seconds
        if ask:
            breaker.allows()
        breaker.record(SLOW_S if slow else FAST_S)
    clock.now_s += 5.0
    assert breaker.allows()


class PlannedValkey:
    """Answers every command with an empty hash, or fails as planned; keeps what it was asked."""

    connected = True

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.failure: Exception | None = None
        self.patience_s = 0.0
        self.longer: Callable[[], bool] = lambda: False
        self.takes_s = 0.0

    async def pipeline(self, commands: list[Any], timeout_s: float, longer: Callable[[], bool]) -> list[Any]:
        self.asked.append(commands)
        self.patience_s, self.longer = timeout_s, longer
        await asyncio.sleep(self.takes_s)
        if self.failure is not None:
            raise self.failure
        return [[] for _ in commands]


def _read(store: Store, pseudonym: str | None, capped: bool) -> Any:
    return asyncio.run(store.read(pseudonym, "v1:house", None, 0, capped=lambda: capped))


def test_while_it_is_open_the_user_is_read_for_caps_only() -> None:
    valkey = PlannedValkey()
    store = Store(valkey, 0.02, 3600, BudgetTimes())  # type: ignore[arg-type]
    warm = _read(store, "v1:user", capped=False)
    assert (warm.cold, warm.user is not None, len(valkey.asked)) == (False, True, 1)
    store.breaker, _ = _opened()
    cold = _read(store, "v1:user", capped=False)
    assert (cold.cold, cold.user, cold.read, len(valkey.asked)) == (True, None, True, 1)
    for_caps = _read(store, "v1:user", capped=True)
    assert (for_caps.cold, for_caps.user, for_caps.read, len(valkey.asked)) == (True, None, True, 2)
    household = _read(store, None, capped=False)  # an unknown user has no features: there is nothing to save
    assert (household.cold, len(valkey.asked)) == (False, 3)


def test_a_read_that_is_not_answered_is_slow_and_a_connection_that_is_gone_is_not() -> None:
    valkey = PlannedValkey()
    store = Store(valkey, 0.02, 3600, BudgetTimes())  # type: ignore[arg-type]
    seen: list[float] = []
    store.breaker.record = seen.append  # type: ignore[method-assign]
    for valkey.failure in (Unavailable("gone"), TimedOut("late"), None):
        assert _read(store, "v1:user", capped=True).read is (valkey.failure is None)
    assert len(seen) == 2


def test_what_waited_for_our_own_loop_is_no_slowness_of_the_stores() -> None:
    valkey = PlannedValkey()
    valkey.takes_s = 0.03
    lag_s = 0.0
    store = Store(valkey, 0.02, 3600, BudgetTimes(), lambda: lag_s)  # type: ignore[arg-type]
    seen: list[float] = []
    store.breaker.record = seen.append  # type: ignore[method-assign]
    _read(store, "v1:user", capped=True)
    lag_s = 10.0
    _read(store, "v1:user", capped=True)
    assert seen[0] >= 0.03 and seen[1] == 0.0


def test_a_read_may_take_as_long_as_dsps_are_waited_for_and_never_outlasts_its_request() -> None:
    valkey = PlannedValkey()
    store = Store(valkey, 0.02, 3600, BudgetTimes())  # type: ignore[arg-type]
    waits = True

    async def patience(left_s: float) -> tuple[float, bool]:
        await store.read("v1:user", None, None, 0, lambda: waits, by_s=time.monotonic() + left_s)
        return valkey.patience_s, valkey.longer()

    assert asyncio.run(patience(10.0)) == (0.02, True)
    waits = False
    assert asyncio.run(patience(10.0)) == (0.02, False)
    waits = True
    patience_s, longer = asyncio.run(patience(-0.005))
    assert patience_s < 0 and not longer


def test_a_wait_is_over_when_there_is_no_more_time() -> None:
    async def run() -> float:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        never: asyncio.Future[list[Any]] = loop.create_future()
        Timer(loop, never, 0.01, lambda: loop.time() < began_s + 0.05)
        with pytest.raises(TimedOut):
            await never
        return loop.time() - began_s

    assert 0.05 <= asyncio.run(run()) < 1.0


def test_an_answer_is_given_up_in_time_to_be_one() -> None:
    valkey = PlannedValkey()
    store = Store(valkey, 0.02, 3600, BudgetTimes())  # type: ignore[arg-type]
    assert store._patience_s(time.monotonic() + 10) == 0.02
    assert store._patience_s(time.monotonic() + 0.015) <= 0.010
    with pytest.raises(TimedOut):
        store._patience_s(time.monotonic() + 0.005)
