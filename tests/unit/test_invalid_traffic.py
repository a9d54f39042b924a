"""Invalid traffic by the plain rules: one verdict per event, and no verdict that depends on the order of arrival."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.transforms.event_rules import Event
from jobs.transforms.invalid_traffic import Limits, invalid_deltas, verdicts
from schemas.campaign_metrics import INVALID_TRAFFIC_SUMS
from schemas.events import BY_NAME
from schemas.ids import event_id
from tests.samples.stream_io import complete

LIMITS = Limits(
    click_flood_clicks=2,
    click_flood_window_s=60,
    address_users=2,
    data_center_events=1,
    fastest_percent=80,
    clock_tolerance_ms=1_000,
    pattern_window_s=300,
)
QUARTILES = ("start", "first_quartile", "midpoint", "third_quartile", "complete")


def event(n: int, event_type: str, time_ms: int, **changes: Any) -> Event:
    raw = n.to_bytes(16)
    return complete(
        {
            "event_id": event_id(raw, BY_NAME[event_type].code, 0),
            "record_id": f"ad-{n}",
            "event_type": event_type,
            "event_time_ms": time_ms,
            "received_time_ms": time_ms + 50,
            "published_time_ms": time_ms + 100,
            "advertiser_id": "advertiser",
            "campaign_id": "campaign",
            "creative_id": "creative",
            "creative_length_s": 30,
            "cost_micros": 7,
            "user_pseudonym": f"user-{n}",
            **changes,
        }
    )


@st.composite
def plays(draw: st.DrawFn) -> list[Event]:
    """The events of some ads at any times within a minute, so that many can't be true, in some order of arrival."""
    found = []
    for n in range(draw(st.integers(1, 3))):
        types = draw(st.sets(st.sampled_from(("impression", "click", *QUARTILES)), min_size=1))
        found += [event(n, event_type, draw(st.integers(0, 60)) * 500) for event_type in sorted(types)]
    return [
        e | {"published_time_ms": 60_000 + at, "received_time_ms": 60_000}
        for at, e in enumerate(draw(st.permutations(found)))
    ]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_order_of_arrival_changes_no_verdict_that_is_counted(data: st.DataObject) -> None:
    events = data.draw(plays())
    again = [e | {"published_time_ms": 60_000 + at} for at, e in enumerate(data.draw(st.permutations(events)))]
    counted = [
        {
            (row["event_id"], row["traffic_class"])
            for row in verdicts(some, LIMITS)
            if row["event_type"] in ("impression", "click")
        }
        for some in (events, again)
    ]
    assert counted[0] == counted[1]


@settings(max_examples=60, deadline=None)
@given(plays())
def test_one_verdict_per_event_and_it_names_events_that_are_there(events: list[Event]) -> None:
    rows = verdicts(events, LIMITS)
    ids = [row["event_id"] for row in rows]
    assert len(ids) == len(set(ids)) and set(ids) <= {e["event_id"] for e in events}
    total = sum(
        invalid_deltas(row).get(name, 0) for row in rows for name in INVALID_TRAFFIC_SUMS if "spend" not in name
    )
    assert total == sum(row["event_type"] in ("impression", "click") for row in rows)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 20_000))
def test_an_ad_that_plays_in_its_own_time_is_never_doubted(length_s: int, click_after_ms: int) -> None:
    times = {name: (BY_NAME[name].quartile or 0) * length_s * 10 for name in QUARTILES}
    played = [event(1, name, time_ms, creative_length_s=length_s) for name, time_ms in times.items()]
    shown = [event(1, "impression", 0, creative_length_s=length_s), event(1, "click", click_after_ms)]
    assert verdicts([*played, *shown], LIMITS) == []


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.permutations(range(12)))
def test_of_a_flood_all_but_the_allowed_clicks_are_invalid_whoever_comes_first(clicks: int, order: list[int]) -> None:
    flood = [event(n, "click", 1_000 * n, user_pseudonym="one", received_time_ms=1_000 * n) for n in range(clicks)]
    rows = verdicts([flood[n] for n in order if n < clicks], LIMITS)
    assert len(rows) == max(0, clicks - LIMITS.click_flood_clicks)
    assert {row["rule"] for row in rows} <= {"click_flood"}
    assert sum(invalid_deltas(row)["givt_clicks"] for row in rows) == len(rows)
    assert sum(invalid_deltas(row)["invalid_spend_micros"] for row in rows) == 7 * len(rows)


def test_users_are_counted_by_address_and_hour() -> None:
    home = [event(n, "impression", 1_000 * n, household_pseudonym="home") for n in range(4)]
    elsewhere = [event(9, "impression", 3_600_000, household_pseudonym="home")]
    assert [row["record_id"] for row in verdicts([*home, *elsewhere], LIMITS)] == ["ad-2", "ad-3"]
