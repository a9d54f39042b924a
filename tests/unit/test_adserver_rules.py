"""Rules of the auction that hold for any market: the highest valid bid wins, above the floor, whoever comes first."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.decisions import Outcome
from serving.adserver.auction import rules
from serving.adserver.auction.macros import substitute
from serving.adserver.auction.rates import Rates
from serving.adserver.auction.rules import Candidate

_OUTCOMES = st.sampled_from([Outcome.LOST_TO_HIGHER_BID] * 4 + [Outcome.NOT_SECURE, Outcome.FREQUENCY_CAP])
_CANDIDATES = st.lists(
    st.builds(
        lambda pricing, bid, p, urgency, priority, outcome: {
            "pricing": pricing,
            "bid_micros": bid,
            "p_ctr": p,
            "p_view": p,
            "urgency": urgency,
            "priority": priority if pricing == "rtb" else 0,
            "under_deal": priority > 0 and pricing == "rtb",
            "deal_id": "d" if priority > 0 and pricing == "rtb" else None,
            "outcome": outcome,
        },
        st.sampled_from(["cpm", "cpc", "cpv", "guaranteed", "rtb"]),
        st.integers(1, 20_000_000),
        st.floats(0, 1),
        st.floats(0, 5),
        st.sampled_from([0, 0, 0, 1, 2]),
        _OUTCOMES,
    ),
    max_size=12,
)
_FLOORS = st.one_of(st.none(), st.integers(0, 10_000_000))


def _market(rows: list[dict[str, Any]]) -> list[Candidate]:
    made = [
        Candidate("x", advertiser_id="a", campaign_id=f"c{i}", creative_id=f"{i}", **row) for i, row in enumerate(rows)
    ]
    rules.price(made)
    return made


def _held(candidates: list[Candidate], floor: int | None, seed: int = 1) -> Candidate | None:
    rules.apply_floor(candidates, floor)
    choice = rules.choose(candidates, random.Random(seed).randrange)
    if choice is None:
        return None
    choice.candidate.outcome = Outcome.WON
    rules.mark_losers(candidates, choice.candidate)
    return choice.candidate


@given(_CANDIDATES, _FLOORS)
def test_the_highest_valid_bid_of_the_highest_priority_wins(rows: list[dict[str, Any]], floor: int | None) -> None:
    candidates = _market(rows)
    winner = _held(candidates, floor)
    in_the_running = [
        c
        for c, row in zip(candidates, rows, strict=True)
        if row["outcome"] is Outcome.LOST_TO_HIGHER_BID
        and c.bid_cpm_micros > 0
        and (c.under_deal or c.pricing == "guaranteed" or (floor is not None and c.bid_cpm_micros >= floor))
    ]
    if winner is None:
        assert not in_the_running
        return
    assert (winner.priority, winner.bid_cpm_micros) == max((c.priority, c.bid_cpm_micros) for c in in_the_running)
    assert [c for c in candidates if c.outcome is Outcome.WON] == [winner]
    assert all(c.bid_cpm_micros > winner.bid_cpm_micros for c in candidates if c.outcome is Outcome.LOST_TO_DEAL)


@given(_CANDIDATES, _FLOORS)
def test_nothing_wins_below_a_floor_that_holds_for_it(rows: list[dict[str, Any]], floor: int | None) -> None:
    winner = _held(_market(rows), floor)
    if winner is not None and not winner.under_deal and winner.pricing != "guaranteed":
        assert floor is not None and winner.bid_cpm_micros >= floor


@given(_CANDIDATES, _FLOORS, st.randoms(use_true_random=False))
def test_the_order_of_bidders_changes_ties_alone(rows: list[dict[str, Any]], floor: int | None, rng: Any) -> None:
    shuffled = rows[:]
    rng.shuffle(shuffled)
    first, second = _held(_market(rows), floor), _held(_market(shuffled), floor)
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert (first.priority, first.bid_cpm_micros) == (second.priority, second.bid_cpm_micros)


@given(_CANDIDATES, _FLOORS)
def test_what_would_have_been_enough_is_at_most_what_was_bid(rows: list[dict[str, Any]], floor: int | None) -> None:
    candidates = _market(rows)
    winner = _held(candidates, floor)
    if winner is not None:
        least = rules.least_to_win(candidates, winner, floor)
        assert 0 <= least <= winner.bid_cpm_micros


def test_each_kind_is_ranked_and_paid_as_it_is_sold() -> None:
    cpc, cpv, guaranteed = _market(
        [
            {"pricing": "cpc", "bid_micros": 400_000, "p_ctr": 0.01},
            {"pricing": "cpv", "bid_micros": 20_000, "p_view": 0.5},
            {"pricing": "guaranteed", "bid_micros": 3_000_000, "urgency": 2.5},
        ]
    )
    assert (cpc.bid_cpm_micros, cpc.price_cpm_micros) == (4_000_000, 4_000_000)
    assert (cpv.bid_cpm_micros, cpv.price_cpm_micros) == (10_000_000, 10_000_000)
    assert (guaranteed.bid_cpm_micros, guaranteed.price_cpm_micros) == (7_500_000, 3_000_000)


@given(st.integers(0, 10**12), st.integers(1, 10**9))
def test_converting_never_gives_anything_away(micros: int, rate: int) -> None:
    rates = Rates("USD", {"EUR": rate})
    theirs = rates.from_ours(micros, "EUR")
    assert theirs is not None and (rates.to_ours(theirs, "EUR") or 0) >= micros - rate // 1_000_000 - 1
    ours = rates.to_ours(micros, "EUR")
    assert ours is not None and ours <= (rates.floor_to_ours(micros, "EUR") or 0) <= ours + 1


@given(st.text(max_size=60), st.text(max_size=20))
def test_substituting_leaves_no_macro_and_opens_no_tag(text: str, value: str) -> None:
    made = substitute("<a href='https://d.example/${AUCTION_ID}${AUCTION_ID:B64}${AUCTION_FOO}'>", {"ID": value})
    assert "${AUCTION" not in made.replace(value, "") and made.count("<") == 1 and made.count("'") == 2
    assert substitute(text, {}) == text or "${AUCTION_" in text
