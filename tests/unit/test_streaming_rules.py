"""The plain rules of stream and batch: the golden cases, and that order and repeats change nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.streaming.application import JOBS
from jobs.transforms.attribution import attribution_deltas, attributions
from jobs.transforms.delivery_health import HealthRules, delivery_health
from jobs.transforms.event_rules import Event, accepted, is_late, reject_reason
from jobs.transforms.invalid_traffic import invalid_deltas, verdicts
from jobs.transforms.rollups import (
    MetricsKey,
    campaign_metrics,
    campaign_spend,
    counter_values,
    metrics_key,
    open_wins,
)
from jobs.transforms.sessions import NOT_OF_THE_AD, sessions
from schemas.campaign_metrics import DIMENSIONS, MAXIMA, SUMS, TIME_COLUMN
from schemas.counters import COUNTERS, FEATURE_COUNTERS, FREQUENCY_COUNTERS, Counter
from schemas.events import EVENT_TYPES, SOURCES
from tests.samples.ad_traffic import traffic
from tests.samples.additive import add_up
from tests.samples.golden import SETTINGS, Case, cases, differences, rows_of
from tests.samples.stream_io import complete
from tests.samples.stream_rules import limits_under, lookback_under

GAP_MS = SETTINGS.session_gap_s * 1000
OPEN_MS = SETTINGS.win_open_s * 1000
CASES = cases(tuple(JOBS))
LOOKBACK_S = lookback_under(SETTINGS)
LIMITS = limits_under(SETTINGS)
HEALTH = HealthRules(**{f.name: getattr(SETTINGS, f"health_{f.name}") for f in fields(HealthRules)})


def outputs(events: list[Event], decisions: Sequence[dict[str, Any]] = ()) -> dict[str, list[dict[str, Any]]]:
    """Rows of every logical table by the plain rules."""
    kept = list(accepted(events))
    closed = sessions(kept, GAP_MS)
    credits = attributions(kept, LOOKBACK_S)
    judged = verdicts(kept, LIMITS)
    return {
        "ad_events_late": [dict(event) for event in kept if is_late(event)],
        "ad_events_dlq": [
            {
                "reason": str(reject_reason(event)),
                "key": event["record_id"],
                "source_topic": "ad-events-v1",
                "partition": 0,
                "job": "event_quality",
            }
            for event in events
            if reject_reason(event)
        ],
        "ad_sessions": closed,
        "session_metrics": [
            _session_metrics(row) for row in closed if row["impressions"] or row["state"] == "completed"
        ],
        "campaign_metrics": [
            {
                TIME_COLUMN: key[0],
                **dict(zip(DIMENSIONS, key[1:], strict=True)),
                **dict.fromkeys(SUMS, 0),
                **row,
                "reach_users": sorted(row["reach_users"]),
            }
            for key, row in campaign_metrics(kept).items()
        ],
        "frequency_counts": _counter_rows(kept, FREQUENCY_COUNTERS),
        "streaming_features": _counter_rows(kept, FEATURE_COUNTERS),
        "campaign_spend": [
            *(
                {"campaign_id": campaign_id, "day": day, **row}
                for (campaign_id, day), row in campaign_spend(kept).items()
            ),
            *(
                {"campaign_id": campaign_id, "day": "open", "decision_minute_ms": minute_ms, **row}
                for (campaign_id, minute_ms), row in open_wins(decisions, kept, OPEN_MS).items()
            ),
        ],
        "attributions": list({row["order_id"]: row for row in credits if row["sign"] > 0}.values()),
        "attribution_metrics": _summed(
            (metrics_key(row, row["conversion_time_ms"]), attribution_deltas(row))
            for row in credits
            if row["outcome"] == "attributed"
        ),
        "invalid_traffic": judged,
        "invalid_metrics": _summed(
            (metrics_key(row, row["event_time_ms"]), invalid_deltas(row))
            for row in judged
            if row["event_type"] in ("impression", "click") or row["cost_micros"]
        ),
        "delivery_health": delivery_health(kept, HEALTH),
    }


def _summed(deltas: Iterable[tuple[MetricsKey, dict[str, int]]]) -> list[dict[str, Any]]:
    """Rows of campaign-metrics-v1 as a reader adds them up."""
    rows: dict[Any, dict[str, Any]] = {}
    for key, row in deltas:
        named = {TIME_COLUMN: key[0], **dict(zip(DIMENSIONS, key[1:], strict=True))}
        add_up(rows, {**named, **dict.fromkeys((*SUMS, *MAXIMA), 0), **row})
    return list(rows.values())


def _session_metrics(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **dict.fromkeys(SUMS, 0),
        "campaign_id": row["campaign_id"],
        TIME_COLUMN: row["first_event_time_ms"] - row["first_event_time_ms"] % 60_000,
        "sessions": int(row["impressions"] > 0),
        "sessions_completed": int(row["state"] == "completed"),
        "watch_time_ms": row["watch_time_ms"],
    }


def _counter_rows(kept: list[Event], counters: tuple[Counter, ...]) -> list[dict[str, Any]]:
    names = ("entity_type", "entity_id", "counter", "scope_id", "bucket_start_ms")
    values = counter_values(kept, counters)
    return [{**dict(zip(names, key, strict=True)), "value": value} for key, value in values.items()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.job}-{case.name}")
def test_plain_rules_give_the_expected_rows(case: Case) -> None:
    found = outputs(sorted(case.events, key=lambda e: e["published_time_ms"]), case.decisions)
    for table, rows in case.expected.items():
        # what only a stream job writes (bookkeeping columns) is not in the plain rows
        known = {name for row in found[table] for name in row}
        expected = [{name: value for name, value in row.items() if name in known} for row in rows]
        plain = Case(case.job, case.name, case.why, case.events, {table: expected})
        assert not differences(plain, table, rows_of(case, found[table])), case.why


def test_a_wrong_expectation_is_reported() -> None:
    case = next(c for c in CASES if c.name == "utc_days")
    wrong = Case(case.job, case.name, case.why, case.events, {"campaign_spend": [{"spend_micros": 1}]})
    rows = rows_of(case, outputs(list(case.events))["campaign_spend"])
    assert len(differences(wrong, "campaign_spend", rows)) == 4  # one missing, two days and their total too many


EVENTS = [complete(event) for event in traffic(seed=3, ads=40, span_ms=60_000).events]


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.lists(st.integers(0, len(EVENTS) - 1), max_size=40))
def test_order_and_repeats_change_no_sum(rng: random.Random, repeats: list[int]) -> None:
    shuffled = [*EVENTS, *(EVENTS[n] for n in repeats)]
    rng.shuffle(shuffled)
    once, again = list(accepted(EVENTS)), list(accepted(shuffled))
    assert counter_values(again, COUNTERS) == counter_values(once, COUNTERS)
    assert campaign_spend(again) == campaign_spend(once)
    for key, row in campaign_metrics(again).items():
        same = campaign_metrics(once)[key]
        assert {n: v for n, v in row.items() if n not in ("late_events", "last_published_ms")} == {
            n: v for n, v in same.items() if n not in ("late_events", "last_published_ms")
        }


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_of_arrival_changes_no_session(rng: random.Random) -> None:
    kept = list(accepted(EVENTS))
    shuffled = list(kept)
    rng.shuffle(shuffled)
    assert sessions(shuffled, GAP_MS) == sessions(kept, GAP_MS)


LIFE_TYPES = [kind.name for kind in EVENT_TYPES]
STATES = ("shown", "abandoned", "errored", "completed")


@st.composite
def lives(draw: st.DrawFn) -> list[Event]:
    """Events of up to three ads, each event once: any types, starts missing, quartiles in any order, two devices."""
    return [
        complete(
            {
                "event_id": n.to_bytes(16),
                "record_id": draw(st.sampled_from("abc")),
                "event_type": draw(st.sampled_from(LIFE_TYPES)),
                "event_time_ms": draw(st.integers(1, 10**9)),
                "received_time_ms": 10**9,
                "published_time_ms": 10**9 + draw(st.integers(0, 10**6)),
                "source": draw(st.sampled_from(SOURCES)),
                "advertiser_id": "advertiser",
                "campaign_id": draw(st.sampled_from(("campaign", "another"))),
                "creative_id": "creative",
                "user_pseudonym": draw(st.sampled_from((None, "v1:a", "v1:b"))),
                "device_type": draw(st.sampled_from((None, "ctv", "phone"))),
                "watch_percent": draw(st.none() | st.integers(0, 100)),
                "creative_length_s": draw(st.sampled_from((None, 15, 30))),
                "cost_micros": draw(st.integers(0, 10**6)),
            }
        )
        for n in range(draw(st.integers(1, 12)))
    ]


@settings(max_examples=150, deadline=None)
@given(lives(), st.randoms(use_true_random=False))
def test_a_session_is_what_its_events_say_and_only_grows(events: list[Event], rng: random.Random) -> None:
    rng.shuffle(events)
    before: dict[str, dict[str, Any]] = {}
    for so_far in range(1, len(events) + 1):  # what revisions would say, after each event
        rows = {row["record_id"]: row for row in sessions(events[:so_far], GAP_MS)}
        for record_id, row in rows.items():
            was = before.get(record_id, row)
            for name in ("events", "cost_micros", "furthest_quartile", "watch_time_ms", "dwell_ms", "closed_time_ms"):
                assert row[name] >= was[name], name
            assert STATES.index(row["state"]) >= STATES.index(was["state"])
            assert row["first_event_time_ms"] <= was["first_event_time_ms"]
            assert row["watch_time_ms"] <= 30_000 and (row["state"] == "completed") == (row["furthest_quartile"] == 100)
            assert row["started"] or row["state"] in ("shown", "errored")
        before = rows
    of_ads = [e for e in events if e["event_type"] not in NOT_OF_THE_AD]
    assert sum(row["events"] for row in before.values()) == len(of_ads)
    assert sum(row["impressions"] for row in before.values()) == sum(e["event_type"] == "impression" for e in of_ads)
    assert list(before.values()) == sessions(sorted(events, key=lambda e: e["event_id"]), GAP_MS), "order is nothing"
