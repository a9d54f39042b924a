"""What the stream jobs' topics must hold after some events, by the plain-Python rules, and what they do hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from connectors.registry import SchemaRegistry
from jobs.streaming.settings import Settings
from jobs.transforms.attribution import attribution_deltas, attributions
from jobs.transforms.delivery_health import delivery_health
from jobs.transforms.event_rules import accepted, is_late
from jobs.transforms.invalid_traffic import GENERAL, invalid_deltas, verdicts
from jobs.transforms.rollups import campaign_metrics, campaign_spend, counter_values, metrics_key, open_wins
from jobs.transforms.sessions import sessions
from jobs.transforms.valkey_writes import OPEN
from schemas.campaign_metrics import INVALID_TRAFFIC_SUMS, MAXIMA, SESSION_SUMS, SUMS
from schemas.counters import FEATURE_COUNTERS, FREQUENCY_COUNTERS
from schemas.topics import (
    AD_DECISIONS,
    AD_EVENTS_DLQ,
    AD_EVENTS_LATE,
    AD_SESSIONS,
    ATTRIBUTIONS,
    CAMPAIGN_METRICS,
    CAMPAIGN_SPEND,
    DELIVERY_HEALTH,
    FREQUENCY_COUNTS,
    INVALID_TRAFFIC,
    STREAMING_FEATURES,
    Topic,
)
from tests.samples.counters import unpacked
from tests.samples.stream_io import read_avro, read_json
from tests.samples.stream_rules import health_rules_under, limits_under, lookback_under

#: Columns of campaign-metrics-v1 that wait for the watermark: closed sessions, patterns.
_OF_CLOSED = frozenset((*SESSION_SUMS, *INVALID_TRAFFIC_SUMS))
#: Columns of a credit that depend on the order in which its touches came.
_OF_THE_ORDER = ("revision", "decided_time_ms", "sign")

Row = dict[str, Any]


def assert_outputs_equal_the_rules(
    written: list[dict[str, Any]],
    reasons: list[str],
    registry: SchemaRegistry,
    gap_s: int,
    *,
    closed: bool = True,
    suffix: str = "",
) -> None:
    """Every output as a set: what was written in transactions once each, absolute values by their last.

    `written` are all events that are committed, `reasons` those of the dead letters among them. With `closed` every
    session, verdict and signal must be there; without, those that are there must be right, and of sessions, signals and
    their metrics only that none is there twice is looked at. `suffix`: of a backfill's topics.
    """

    def rows(topic: Topic) -> list[dict[str, Any]]:
        there = replace(topic, name=topic.name + suffix)
        return read_json(there) if topic.schema is None else read_avro(there, registry)

    kept = list(accepted(written))
    _compare(AD_EVENTS_LATE, _by_id(rows(AD_EVENTS_LATE)), _by_id([e for e in kept if is_late(e)]))
    refused = Counter(row["reason"] for row in rows(AD_EVENTS_DLQ))
    assert refused == Counter(reasons), f"{AD_EVENTS_DLQ.name}: {refused}, expected {Counter(reasons)}"
    for topic, counters in ((FREQUENCY_COUNTS, FREQUENCY_COUNTERS), (STREAMING_FEATURES, FEATURE_COUNTERS)):
        last = _last_of(rows(topic), "entity_type", "entity_id", "bucket_s", "bucket_start_ms")
        _compare(topic, _values(unpacked(last, kept)), counter_values(kept, counters))
    settings = Settings()
    spend = rows(CAMPAIGN_SPEND)
    _compare(CAMPAIGN_SPEND, _last_spend(row for row in spend if row["day"] != OPEN), campaign_spend(kept))
    won = open_wins(read_avro(AD_DECISIONS, registry), kept, settings.win_open_s * 1000)
    _compare(CAMPAIGN_SPEND, _last_wins(row for row in spend if row["day"] == OPEN), won)
    credits = attributions(kept, lookback_under(settings))
    _compare(ATTRIBUTIONS, _last_credits(rows(ATTRIBUTIONS)), _last_credits(r for r in credits if r["sign"] > 0))
    metrics = _added_up(rows(CAMPAIGN_METRICS))
    expected = campaign_metrics(kept)
    for row in credits:
        _add(expected, row, row["conversion_time_ms"], attribution_deltas(row))
    judged = verdicts(kept, limits_under(settings))
    found_verdicts, all_verdicts = _rules(rows(INVALID_TRAFFIC)), _rules(judged)
    found_lives = _last_revisions(rows(AD_SESSIONS))
    found_signals = _signals(rows(DELIVERY_HEALTH))
    if not closed:
        _compare(CAMPAIGN_METRICS, _without(_OF_CLOSED, metrics), _without((), expected))
        at_once = {event_id: rule for event_id, rule in all_verdicts.items() if rule.startswith(GENERAL)}
        of_patterns = {i: rule for i, rule in all_verdicts.items() if i in found_verdicts and i not in at_once}
        _compare(INVALID_TRAFFIC, found_verdicts, at_once | of_patterns)
        return
    for row in judged:
        _add(expected, row, row["event_time_ms"], invalid_deltas(row))
    _compare(INVALID_TRAFFIC, found_verdicts, all_verdicts)
    _compare(DELIVERY_HEALTH, found_signals, _signals(delivery_health(kept, health_rules_under(settings))))
    lives = sessions(kept, gap_s * 1000)
    of_record = {event["record_id"]: event for event in kept}
    for session in lives:
        deltas = {
            "sessions": int(session["impressions"] > 0),
            "sessions_completed": int(session["state"] == "completed"),
            "watch_time_ms": session["watch_time_ms"],
        }
        _add(expected, {**of_record[session["record_id"]], **session}, session["first_event_time_ms"], deltas)
    _compare(AD_SESSIONS, found_lives, {row["record_id"]: row for row in lives})
    _compare(CAMPAIGN_METRICS, metrics, _without((), expected))


def spend_is(kept: list[dict[str, Any]], registry: SchemaRegistry) -> bool:
    """Whether the committed spend is that of these accepted events."""
    spend = [row for row in read_avro(CAMPAIGN_SPEND, registry) if row["day"] != OPEN]
    return _last_spend(spend) == campaign_spend(kept)


def _compare(topic: Topic, found: dict[Any, Any], expected: dict[Any, Any]) -> None:
    """Fails with the first differences in words: the rows themselves are too long to read."""
    wrong = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
    shown = "\n".join(f"{key}: {_difference(found.get(key), expected.get(key))}" for key in wrong[:3])
    assert not wrong, f"{topic.name}: {len(wrong)} of {len(expected)} differ\n{shown}"


def _difference(found: Any, expected: Any) -> str:
    if not isinstance(found, dict) or not isinstance(expected, dict):
        return f"found {found}, expected {expected}"
    wrong = [name for name in {**expected, **found} if found.get(name, "absent") != expected.get(name, "absent")]
    return ", ".join(f"{n} is {found.get(n, 'absent')}, expected {expected.get(n, 'absent')}" for n in wrong)


def _last_revisions(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The last row of each ad, without its revision: how often a life was closed depends on when events came."""
    revisions = {(row["record_id"], row["revision"]): row for row in rows}
    assert len(revisions) == len(rows), "a revision twice"
    last = {record_id: revisions[record_id, revision] for record_id, revision in sorted(revisions)}
    return {
        record_id: {name: value for name, value in row.items() if name != "revision"} for record_id, row in last.items()
    }


def _last_credits(rows: Iterable[Row]) -> dict[str, Row]:
    """The last credit of each order."""
    last: dict[str, Row] = {}
    for row in rows:
        if row["order_id"] not in last or row["revision"] > last[row["order_id"]]["revision"]:
            last[row["order_id"]] = row
    return {
        order: {name: value for name, value in row.items() if name not in _OF_THE_ORDER} for order, row in last.items()
    }


def _rules(rows: Iterable[Row]) -> dict[bytes, str]:
    """Which rule each event was judged by. Fails when one was judged twice."""
    judged = [(row["event_id"], f"{row['traffic_class']}: {row['rule']}") for row in rows]
    assert len(dict(judged)) == len(judged), "an event judged twice"
    return dict(judged)


def _by_id(events: list[dict[str, Any]]) -> dict[bytes, dict[str, Any]]:
    found = {event["event_id"]: event for event in events}
    assert len(found) == len(events), "an event twice"
    return found


def _signals(rows: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
    """Signals of deliveries by campaign, window and kind. Fails when one was raised, or cleared, twice."""
    told = list(rows)
    of_key = ("campaign_id", "signal", "state", "window_start_ms")
    found = {tuple(row[name] for name in of_key): row for row in told}
    assert len(found) == len(told), "a signal twice"
    return {key: {name: value for name, value in row.items() if name != "detail"} for key, row in found.items()}


def _last_wins(rows: Iterable[Row]) -> dict[tuple[str, int], Row]:
    """Wins of each campaign and minute. Numbers of wins only grow, also when a restart sends some of them again."""
    names = ("won_micros", "confirmed_micros", "wins", "confirmed_wins")
    last: dict[tuple[str, int], Row] = {}
    for row in rows:
        key = (row["campaign_id"], row["decision_minute_ms"])
        now = {name: row[name] for name in names}
        last[key] = max(last.get(key, now), now, key=lambda r: (r["wins"], r["confirmed_wins"]))
    return last


def _last_of(rows: Iterable[Row], *of_key: str) -> list[Row]:
    """The last row of each key: what compaction leaves, and a reader that begins anew gets."""
    return list({tuple(row[name] for name in of_key): row for row in rows}.values())


def _values(rows: list[Row]) -> dict[tuple[Any, ...], int]:
    names = ("entity_type", "entity_id", "counter", "scope_id", "bucket_start_ms")
    return {tuple(row[name] for name in names): row["value"] for row in rows}


def _last_spend(rows: Iterable[Row]) -> dict[tuple[str, str], dict[str, int]]:
    return {
        (row["campaign_id"], row["day"]): {"spend_micros": row["spend_micros"], "impressions": row["impressions"]}
        for row in _last_of(rows, "campaign_id", "day")
    }


def _added_up(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Deltas added up as Druid does; columns that are 0 are left out."""
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        total = sums.setdefault(metrics_key(row, row["minute_ms"]), {"reach_users": set()})
        for name in SUMS:
            if row.get(name):
                total[name] = total.get(name, 0) + row[name]
        for name in MAXIMA:
            total[name] = max(total.get(name, 0), row.get(name, 0))
        total["reach_users"] |= set(row.get("reach_users", ()))
    return _without((), sums)


def _without(columns: Iterable[str], sums: dict[tuple[Any, ...], Row]) -> dict[tuple[Any, ...], Row]:
    """Sums without some columns, and without what is 0."""
    bare = {
        key: {name: value for name, value in total.items() if name not in columns and (value or name == "reach_users")}
        for key, total in sums.items()
    }
    return {key: total for key, total in bare.items() if any(total.values())}


def _add(sums: dict[tuple[Any, ...], Row], row: Row, time_ms: int, deltas: Mapping[str, int]) -> None:
    total = sums.setdefault(metrics_key(row, time_ms), {"reach_users": set()})
    for name, delta in deltas.items():
        total[name] = total.get(name, 0) + delta
