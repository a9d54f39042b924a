"""Which DSPs are asked, how long they are given, what they are worth; overload; metrics of several processes."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.http_client import PoolLimits
from connectors.http_messages import plain_answer
from schemas.catalog import Bidder
from schemas.decisions import Outcome
from schemas.errors import TimedOut, Unavailable
from serving.adserver.auction.rules import Candidate
from serving.adserver.decision import Decision
from serving.adserver.dsps.bidders import Bidders, CallRules
from serving.adserver.dsps.desk import FAILURES, Tally
from serving.adserver.dsps.fanout import Fanout, Judge
from serving.adserver.dsps.latency import AdaptiveTimeout, LatencySketch
from serving.adserver.dsps.tiers import tiers, worth
from serving.adserver.exposition import merged
from serving.adserver.openrtb.context import Opportunity
from serving.adserver.openrtb.messages import Imp
from serving.adserver.overload import CALM, Overload

NO_BID, BIDS = 204, 200
ANSWER = b'{"id": "r", "seatbid": [{"bid": [{"id": "b", "impid": "1", "price": 7.5}]}]}'


class PlannedPool:
    """Connections that keep what was sent; the test answers."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Fanout, int]] = []

    def start(self, payload: bytes, taker: Fanout, tag: int) -> None:
        self.sent.append((payload, taker, tag))

    def request_bytes(self, method: str, path: str, headers: str) -> bytes:
        return f"{method} {path} HTTP/1.1\r\n{headers}".encode()

    def close(self) -> None:
        pass


def _bidders(*rows: Bidder, draw: float = 0.5, **rules: float) -> tuple[Bidders, dict[str, PlannedPool]]:
    made = Bidders(CallRules(PoolLimits(), probe_share=0.0, **rules), draw=lambda: draw)  # type: ignore[arg-type]
    made.replace(rows)
    pools = {name: PlannedPool() for name in made.desks}
    for name, desk in made.desks.items():
        desk.pool = pools[name]  # type: ignore[assignment]
    return made, pools


def _row(name: str, **changes: object) -> Bidder:
    return Bidder(name, f"http://{name}.test/bid", **changes)  # type: ignore[arg-type]


def _call(made: Bidders, country: str = "US", **more: object) -> Fanout:
    return made.call(lambda _: b"{}", country, 1e12, **more)  # type: ignore[arg-type]


@given(st.lists(st.floats(0.001, 1.5), min_size=50, max_size=300), st.floats(0.05, 0.99))
def test_a_quantile_is_within_a_step_of_the_true_one(latencies_s: list[float], share: float) -> None:
    sketch = LatencySketch()
    for latency_s in latencies_s:
        sketch.observe(latency_s)
    below = sorted(latencies_s)
    at = next(i for i in range(len(below)) if i + 1 >= share * len(below) - 1e-6)
    nearby = below[max(0, at - 1) : at + 2]
    assert min(nearby) / 1.13 <= sketch.quantile_s(share) <= max(nearby) * 1.13


def test_a_timeout_follows_a_dsp_down_and_up_again() -> None:
    timeout = AdaptiveTimeout(longest_s=0.12, floor_s=0.02, quantile=0.97, headroom=1.3)
    rng = random.Random(1)
    for _ in range(500):
        timeout.observe(rng.uniform(0.018, 0.022))
    fast_s = timeout.timeout_s
    assert 0.025 < fast_s < 0.035
    for _ in range(800):  # all of these are late, and are seen all the same
        timeout.observe(rng.uniform(0.05, 0.06))
    assert fast_s < 0.06 < timeout.timeout_s < 0.09
    for _ in range(1_600):
        timeout.observe(0.002)
    assert timeout.timeout_s == 0.02  # the floor


def test_a_desks_timeout_follows_as_if_each_answer_were_taken_in_at_once() -> None:
    made, _ = _bidders(_row("one"))
    desk, rng = made.desks["one"], random.Random(2)
    alone = AdaptiveTimeout(desk.timeout.longest_s, 0.02, 0.97, 1.3)
    for n in range(1, 400):
        latency_s = rng.uniform(0.001, 0.1)
        desk.observe(latency_s)
        alone.observe(latency_s)
        assert desk.timeout.timeout_s == alone.timeout_s
        if n % 37 == 0:  # somebody looks in between
            assert sum(desk.latency_counts) == n


def test_who_is_asked() -> None:
    rows = (_row("any"), _row("de", regions=["DE"]), _row("rare"), _row("deal", seat_ids=["s1"]), _row("none"))
    made, pools = _bidders(*rows, draw=0.5)
    made.desks["rare"].tier = made.desks["deal"].tier = 3
    fanout = made.call(lambda b: None if b.id == "none" else b"{}", "US", 1e12, must_ask=lambda b: "s1" in b.seat_ids)
    assert [desk.bidder.id for desk in fanout.calls] == ["any", "deal"]
    assert made.desks["rare"].tally.skipped_tier == 1 and not pools["de"].sent
    assert [d.bidder.id for d in _call(made, "DE").calls] == ["any", "de", "none"]


def test_a_dsp_of_the_last_tier_keeps_its_share_of_requests() -> None:
    made, pools = _bidders(_row("rare"))
    made.desks["rare"].tier = 3
    made._draw = random.Random(3).random
    for _ in range(2_000):
        _call(made)
    assert 60 < len(pools["rare"].sent) < 140


def test_a_rate_limit_is_shared_by_the_processes() -> None:
    made, _ = _bidders(_row("slow", max_qps=100), workers=4)
    desk = made.desks["slow"]
    asked = sum(desk.may_ask(now_s=1000 + i / 1000) for i in range(10_000))
    assert 248 <= asked <= 255  # 25 a second for ten seconds, and the burst
    assert desk.tally.skipped_limit == 10_000 - asked


def test_a_breaker_opens_for_errors_probes_and_closes() -> None:
    made, pools = _bidders(_row("down"))
    desk, pool = made.desks["down"], pools["down"]
    for _ in range(FAILURES):
        _call(made)
        _, taker, tag = pool.sent[-1]
        taker.failed(tag, Unavailable("refused"), 0.0)
    assert desk.open_breaker and desk.tally.errors == FAILURES
    assert not _call(made).calls and desk.tally.skipped_breaker == 1
    desk._resume_s = 0.0  # the pause is over
    assert len(_call(made).calls) == 1 and not _call(made).calls
    _, taker, tag = pool.sent[-1]
    taker.answered(tag, NO_BID, b"", 0.01)
    assert not desk.open_breaker and len(_call(made).calls) == 1


def _judged(*could_win_cpm_micros: int) -> Judge:
    """Says of every response that it has these bids for imp 1."""
    return lambda _response, bidder: [
        ("1", Candidate("dsp", "rtb", "a", "c", f"x-{bidder.id}", bid_cpm_micros=cpm)) for cpm in could_win_cpm_micros
    ]


def _shown(imp_id: str, cpm_micros: int, priority: int = 0) -> Decision:
    """A decision that shows an ad of our own."""
    decision = Decision(Opportunity(Imp(id=imp_id), ("video",), "place", "publisher", None, 0, False))
    decision.winner = Candidate("internal", "cpm", "a", "c", "cr", bid_cpm_micros=cpm_micros, priority=priority)
    return decision


def test_early_end_partial_bids_and_late_bids() -> None:
    async def run() -> None:
        made, pools = _bidders(_row("quick"), _row("late", timeout_ms=20))
        began_s = asyncio.get_running_loop().time()
        fanout = made.call(lambda _: b"{}", "US", began_s + 5)
        pools["quick"].sent[0][1].answered(0, BIDS, ANSWER, 0.001)
        turns = {t.bidder.id: t for t in await fanout.collect()}
        assert turns["quick"].outcome is None and turns["late"].outcome is Outcome.EXPIRED
        fanout.settled([_shown("1", 5_000_000)], _judged(6_000_000))
        fanout.answered(1, BIDS, ANSWER, 0.5)
        late = made.desks["late"].tally
        assert (late.late_bids, late.bids, late.expired) == (1, 0, 1)
        assert late.late_lost_cpm_micros == 1_000_000
        assert made.desks["late"].latency_counts[-2] + made.desks["late"].latency_counts[-3] == 1
        both = made.call(lambda _: b"{}", "US", began_s + 60)
        for tag in (0, 1):
            both.answered(tag, NO_BID, b"", 0.001)
        assert [t.outcome for t in await asyncio.wait_for(both.collect(), 1)] == [Outcome.NO_BID, Outcome.NO_BID]
        gone = made.call(lambda _: b"{}", "US", began_s + 60)
        gone.failed(0, TimedOut("hangs"), 2.0)
        gone.failed(1, Unavailable("reset"), 0.0)
        assert [t.outcome for t in await gone.collect()] == [Outcome.EXPIRED, Outcome.DSP_ERROR]

    asyncio.run(run())


@pytest.mark.parametrize("body", [b"", b" \r\n"])
def test_an_empty_answer_is_no_bid(body: bytes) -> None:
    async def run() -> None:
        made, pools = _bidders(_row("empty"))
        fanout = _call(made)
        _, taker, tag = pools["empty"].sent[0]
        taker.answered(tag, BIDS, body, 0.001)
        assert [turn.outcome for turn in await fanout.collect()] == [Outcome.NO_BID]
        tally = made.desks["empty"].tally
        assert (tally.no_bids, tally.invalid) == (1, 0)

    asyncio.run(run())


@pytest.mark.parametrize(
    "seats",
    [
        [{"bid": [{"id": "b", "impid": "1", "price": 1.0}] * 257}],
        [{"bid": [{"id": "b"}]}] * 257,
        [{"bid": [{"id": 1}] * 257}],
        [{}] * 257,
        [1] * 257,
    ],
    ids=["bids", "seats", "broken bids", "empty seats", "broken seats"],
)
def test_a_flood_of_bids_is_no_answer(seats: list[Any]) -> None:
    for count, outcome in ((256, None), (257, Outcome.INVALID_RESPONSE)):
        kept = [{"bid": seats[0]["bid"][:count]}] if len(seats) == 1 else seats[:count]

        async def run(kept: list[Any] = kept) -> Outcome | None:
            made, pools = _bidders(_row("flood"))
            fanout = _call(made)
            _, taker, tag = pools["flood"].sent[0]
            taker.answered(tag, BIDS, json.dumps({"id": "1", "seatbid": kept}).encode(), 0.001)
            (turn,) = await fanout.collect()
            return turn.outcome

        assert asyncio.run(run()) in ((outcome,) if outcome else (None, Outcome.NO_BID))


@pytest.mark.parametrize("before_the_end", [True, False])
@pytest.mark.parametrize(
    ("shown", "could_win", "lost_cpm_micros"),
    [
        ([("1", 5_000_000, 0)], (7_000_000, 7_500_000, 4_000_000), 2_500_000),
        ([("1", 0, 0)], (7_500_000,), 7_500_000),
        ([], (7_500_000,), 7_500_000),
        ([("1", 5_000_000, 0)], (), 0),
        ([("1", 5_000_000, 0)], (4_000_000,), 0),
        ([("1", 5_000_000, 1)], (7_500_000,), 0),
        ([("1", 5_000_000, 0), ("1", 3_000_000, 0)], (7_500_000,), 4_500_000),
    ],
    ids=["best-counts", "house", "nothing-shown", "refused", "not-enough", "deal-goes-first", "cheapest-of-a-pod"],
)
def test_what_late_bids_would_have_brought(
    shown: list[tuple[str, int, int]], could_win: tuple[int, ...], lost_cpm_micros: int, before_the_end: bool
) -> None:
    """Whenever they come after the time for them: while the auction is held, or after it."""

    async def run() -> int:
        made, _ = _bidders(_row("late", timeout_ms=1))
        fanout = made.call(lambda _: b"{}", "US", asyncio.get_running_loop().time() + 5)
        await fanout.collect()
        if before_the_end:
            fanout.answered(0, BIDS, ANSWER, 0.5)
        fanout.settled([_shown(*each) for each in shown], _judged(*could_win))
        if not before_the_end:
            fanout.answered(0, BIDS, ANSWER, 0.5)
        assert made.desks["late"].tally.late_bids == 1
        return made.desks["late"].tally.late_lost_cpm_micros

    assert asyncio.run(run()) == lost_cpm_micros


def test_worth_and_tiers() -> None:
    tallies = {
        "best": Tally(calls=1_000, bids=600, wins=300, gained_cpm_micros=900_000_000),
        "good": Tally(calls=1_000, bids=300, wins=50, gained_cpm_micros=120_000_000),
        "some": Tally(calls=1_000, bids=50, wins=2, gained_cpm_micros=2_000_000),
        "mute": Tally(calls=1_000),
        "broken": Tally(calls=1_000, bids=600, wins=300, gained_cpm_micros=900_000_000, errors=1_000),
        "new": Tally(calls=10),
    }
    assert tiers(tallies) == {"new": 1, "best": 1, "good": 1, "some": 3, "mute": 3, "broken": 3}
    assert tiers({"mute": Tally(calls=1_000)}) == {"mute": 3}
    slow = Tally(calls=1_000, bids=600, wins=300, gained_cpm_micros=900_000_000, answers=1_000, latency_ms=100_000)
    assert 0 < worth(slow) < worth(tallies["best"]), "an auction ends with its last answer"
    assert worth(tallies["some"]) > worth(Tally(calls=1_000, bids=50)) > worth(tallies["mute"]) == 0


def test_a_row_that_is_given_twice_changes_nothing_and_a_kept_row_keeps_its_desk() -> None:
    made, _ = _bidders(_row("a"), _row("b"))
    kept = made.desks["a"]
    made.replace([_row("a"), _row("b", timeout_ms=50)])
    assert made.desks["a"] is kept and made.desks["b"].timeout.longest_s == 0.05


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_only_plain_answers_go_without_a_parser(data: bytes) -> None:
    assert plain_answer(data) is None


def test_overload_refuses_a_share_that_grows_with_the_delay() -> None:
    overload = Overload(lag_ms=40, most_in_flight=100)
    overload.observe(0.025)
    assert overload.refuses() is None  # hardly anything is under way: the delay is not of our making
    overload.in_flight = CALM
    assert sum(overload.refuses() == "lag" for _ in range(100)) == 50
    overload.observe(0.2)
    assert all(overload.refuses() == "lag" for _ in range(10))
    for _ in range(20):
        overload.observe(0.0)
    assert overload.refuses() is None
    overload.in_flight = 100
    assert overload.refuses() == "in_flight"


def test_metrics_of_processes_are_added_up() -> None:
    one = (
        "# HELP n_total Things\n# TYPE n_total counter\n"
        'n_total{a="x y"} 2.0\n# TYPE g gauge\ng 3.0\n# TYPE h histogram\nh_bucket{le="+Inf"} 4.0\nh_sum 0.5\n'
    )
    other = one.replace(" 2.0", " 5.0").replace("g 3.0", "g 1.0") + "new_total NaN\n"
    lines = merged([one, other]).splitlines()
    assert lines == [
        "# HELP n_total Things",
        "# TYPE n_total counter",
        'n_total{a="x y"} 7',
        "# TYPE g gauge",
        "g 3",
        "# TYPE h histogram",
        'h_bucket{le="+Inf"} 8',
        "h_sum 1",
        "new_total nan",
    ]
