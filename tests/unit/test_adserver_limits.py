"""Limits in front of ranking, guaranteed line items, and what of a catalogue the server can't keep."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.valkey import AsyncValkey
from schemas.catalog import Catalog, FrequencyCap, LineItem, Targeting
from schemas.decisions import Outcome
from schemas.errors import ConfigError
from serving.adserver.auction.rules import Candidate, from_row
from serving.adserver.inventory import AdRow, Inventory
from serving.adserver.limits import caps, gate, guaranteed
from serving.adserver.limits.budgets import Budgets
from serving.adserver.limits.leases import Demand, Lease
from serving.adserver.limits.ledger import Account, Budget
from serving.adserver.limits.pacing import threshold
from serving.adserver.limits.pending import PendingWins, Scope
from serving.adserver.targeting import Audience
from tests.samples.adserver import NOW_S, catalog, user_blob

LIVES = caps.Lives(120_000, 3_600_000, NOW_S * 1000)


def _ads(**changes: Any) -> Inventory:
    ads = [{"id": "a", "pricing": "cpm", "bid_micros": 2_000_000}, {"id": "b", "pricing": "cpc", "bid_micros": 300_000}]
    ads[0] |= changes
    return Inventory(catalog(ads))


def _request(**pending: Any) -> caps.RequestCaps:
    return caps.RequestCaps(user_blob(()), caps.PendingRead(b"p:u:x", **pending), LIVES, NOW_S * 1000)


def _internal(inventory: Inventory) -> list[tuple[AdRow, Candidate]]:
    return [(row, from_row(row)) for row in inventory.rows]


def _budgets(known: bool = True, **headroom_micros: int) -> Budgets:
    budgets = Budgets(AsyncValkey("redis://nowhere.test"))
    accounts = {f"cmp-{name}": Account(0, micros, 0, 0, 0, 0, 0) for name, micros in headroom_micros.items()}
    budgets.know(accounts, time.monotonic() if known else float("-inf"))
    return budgets


def _checked(inventory: Inventory, budgets: Budgets) -> list[Outcome]:
    internal = _internal(inventory)
    gate.check(internal, _request(), inventory.cap_kinds, budgets, "request-1")
    return [candidate.outcome for _, candidate in internal]


def test_a_win_must_fit_into_what_is_left() -> None:
    inventory = _ads()
    runs = Outcome.LOST_TO_HIGHER_BID
    assert _checked(inventory, _budgets(a=2_000, b=300_000)) == [runs, runs]
    assert _checked(inventory, _budgets(a=1_999, b=299_999)) == [Outcome.BUDGET, Outcome.BUDGET]
    assert _checked(inventory, _budgets(known=False, a=2_000, b=300_000)) == [Outcome.BUDGET, Outcome.BUDGET]


def test_what_pacing_holds_back_takes_no_part() -> None:
    inventory, budgets = _ads(), _budgets(a=2_000, b=300_000)
    budgets.thresholds = {"cmp-a": threshold(0.0), "cmp-b": threshold(1.0)}
    assert _checked(inventory, budgets) == [Outcome.PACING, Outcome.LOST_TO_HIGHER_BID]


def test_a_cap_per_pod_counts_this_request_alone() -> None:
    inventory = _ads(caps=[{"scope": "advertiser", "limit": 2, "per": "pod"}])
    row, request = inventory.rows[0], _request()
    for allowed in (True, True, False):
        internal = _internal(inventory)
        gate.check_again(internal, request)
        assert internal[0][1].runs is allowed
        gate.note_win(row, request)
    assert gate.claims(row, request) == (), "nobody else has to know"


def test_a_cap_that_is_not_strict_asks_nobody_else() -> None:
    inventory = _ads(caps=[{"scope": "campaign", "limit": 1, "window_s": 60, "strict": False}])
    assert gate.claims(inventory.rows[0], _request()) == ()


def test_wins_of_other_ads_in_a_capped_scope_are_kept_too() -> None:
    """An advertiser's cap counts all of its ads; those of its campaign without a cap must be known to be on the way."""
    made = catalog([{"id": n, "pricing": "cpm", "bid_micros": 1_000_000} for n in ("a", "b")])
    campaigns = [made.campaigns[0], _with(made.campaigns[1], advertiser_id="adv-a")]
    campaigns[0] = _with(campaigns[0], frequency_caps=[FrequencyCap("advertiser", 1, 60)])
    inventory = Inventory(_with(made, campaigns=campaigns))
    (claim,) = gate.claims(inventory.rows[1], _request())
    (advertiser,) = inventory.rows[0].viewer_scopes
    assert advertiser == Scope(12, inventory.rows[0].scopes[2])
    assert [field for field, _, _ in claim.scopes] == [advertiser.field]


def _with(thing: Any, **changes: Any) -> Any:
    return type(thing)(**{name: getattr(thing, name) for name in thing.__dataclass_fields__} | changes)


@given(
    goal=st.integers(1, 10**7),
    share=st.floats(0, 1.2),
    passed=st.floats(0, 1),
)
def test_urgency_rises_as_a_promise_falls_behind(goal: int, share: float, passed: float) -> None:
    delivered = int(goal * share)
    now = guaranteed.urgency(goal, delivered, passed)
    assert 0 <= now <= guaranteed.MOST
    assert (now == 0) == (delivered >= goal)
    assert guaranteed.urgency(goal, delivered + 1, passed) <= now, "more delivered, less urgent"
    assert guaranteed.urgency(goal, delivered, min(1.0, passed + 0.01)) >= now, "less time, more urgent"
    if delivered < goal and delivered / goal < passed < 1:
        assert now >= 1, "behind schedule it bids more than its price"


def test_a_guaranteed_line_item_keeps_its_promise_and_no_more() -> None:
    made = catalog([{"id": "g", "pricing": "guaranteed", "bid_micros": 4_000_000}])
    line = _with(made.line_items[0], goal_impressions=1_000, start_ms=(NOW_S - 50) * 1000, end_ms=(NOW_S + 50) * 1000)
    inventory = Inventory(_with(made, line_items=[line]))
    row = inventory.rows[0]
    assert inventory.budgets["cmp-g"] == Budget("cmp-g", 100_000_000, 4_000_000), "a thousand times 4,000 micros"
    assert row.runs_at(NOW_S * 1000) and not row.runs_at((NOW_S + 50) * 1000)
    budgets = _budgets(g=4_000_000)
    budgets.urgency = {"li-g": 2.5}
    internal = _internal(inventory)
    gate.check(internal, _request(), inventory.cap_kinds, budgets, "r")
    assert internal[0][1].urgency == 2.5


def _lines(*lines: LineItem) -> Catalog:
    made = catalog([{"id": "a", "pricing": "cpm", "bid_micros": 1_000_000}])
    return _with(made, line_items=list(lines))


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (_lines(LineItem("li-a", "cmp-a", "guaranteed", 2_000_000)), "goal_impressions"),
        (_lines(LineItem("li-a", "cmp-a", "guaranteed", 999, goal_impressions=5)), "bid_micros >= 1000"),
        (
            _lines(
                LineItem("li-a", "cmp-a", "guaranteed", 2_000_000, goal_impressions=5),
                LineItem("li-b", "cmp-a", "cpm", 1),
            ),
            "campaign of its own",
        ),
        (catalog([{"id": "a", "pricing": "cpm", "bid_micros": 1, "campaign": {"pacing": "somehow"}}]), "pacing"),
        (catalog([{"id": "a", "pricing": "cpm", "bid_micros": 1, "campaign": {"traffic_curve": [1]}}]), "24 weights"),
        (catalog([{"id": "a", "pricing": "cpm", "bid_micros": 1, "targeting": {"daypart_clock": "my"}}]), "clock"),
        (
            catalog(
                [
                    {
                        "id": "a",
                        "pricing": "cpm",
                        "bid_micros": 1,
                        "caps": [{"scope": "campaign", "limit": 1, "per": "year"}],
                    }
                ]
            ),
            "per is viewer",
        ),
        (
            catalog(
                [
                    {
                        "id": "a",
                        "pricing": "cpm",
                        "bid_micros": 1,
                        "caps": [{"scope": "campaign", "limit": 1, "per": "pod", "window_s": 5}],
                    }
                ]
            ),
            "per is viewer",
        ),
    ],
)
def test_what_can_not_be_kept_is_refused_with_the_catalogue(wrong: Catalog, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        Inventory(wrong)


def test_exclusion_labels_are_the_advertisers_and_the_line_items() -> None:
    made = catalog([{"id": "a", "pricing": "cpm", "bid_micros": 1_000_000}])
    advertiser = _with(made.advertisers[0], exclusion_labels=["cars"])
    line = _with(made.line_items[0], exclusion_labels=["cars", "luxury"], targeting=Targeting(regions=["US-CA"]))
    inventory = Inventory(_with(made, advertisers=[advertiser], line_items=[line]))
    assert inventory.rows[0].exclusion_labels == {"cars", "luxury"}
    assert inventory.targeted("video", inventory.audience(Audience(region="US-CA")))[0] == inventory.rows
    assert inventory.targeted("video", inventory.audience(Audience(region="US-NY")))[0] == []


def test_a_lease_gives_what_it_has_while_it_lives() -> None:
    lease = Lease("L", 1_000, 1_000, until_s=10.0)
    assert [lease.take(400, 1.0), lease.take(400, 2.0), lease.take(400, 3.0)] == [True, True, False]
    assert lease.is_due(3.0, 1.0) and not lease.take(1, 10.0)


def test_leases_are_as_large_as_what_is_won_in_their_life() -> None:
    demand = Demand()
    for _ in range(30):
        for _ in range(100):
            demand.won(2_000)
        demand.look(1.0)
    size_micros, least_micros = demand.size(5.0)
    assert demand.wins_per_s == pytest.approx(100, rel=0.01)
    assert size_micros == pytest.approx(100 * 2_000 * 5 * 1.5, rel=0.01)
    assert least_micros == pytest.approx(16_000, rel=0.01)


@pytest.mark.parametrize("bad", [b"", b" ", b"x", b"1 a:b", b"1.5 a:1", b"\xff", b"9" * 5_000, b"1 a:"])
def test_bad_values_of_wins_under_way_count_as_none(bad: bytes) -> None:
    pending = PendingWins([b"12:9", bad, b"11:1", b"2 r1:9000000000000 r2:9000000000000"])
    assert pending.waiting("12:9", 5, 0) == 0
    assert pending.waiting("11:1", 2, 0) == 2
    assert pending.scopes() == [1]


def test_a_field_of_another_layout_is_none() -> None:
    assert not PendingWins([b"12:x", b"1 a:1", b"\xff", b"1 a:1"])
