"""Sums over deduplicated events: campaign metrics, counters, spend. The stream's SQL files have the same names."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from jobs.transforms.event_rules import Event, is_late
from schemas.campaign_metrics import ABSENT, COUNTED, DIMENSIONS
from schemas.counters import Counter, id_of
from schemas.events import INVALID_TRAFFIC
from schemas.ids import scope_hash
from schemas.money import impression_cost_micros
from schemas.redis_layout import MOST_SCOPED, SCOPED_ENTITIES

MINUTE_MS = 60_000

MetricsKey = tuple[Any, ...]  # minute_ms, then the dimensions in order


def metrics_key(row: Event, time_ms: int) -> MetricsKey:
    """The minute and the dimensions that an event, or an ad's session, is counted under."""
    dimensions = (ABSENT if row[name] is None else row[name] for name in DIMENSIONS)
    return (time_ms - time_ms % MINUTE_MS, *dimensions)


def campaign_metrics(events: Iterable[Event]) -> dict[MetricsKey, dict[str, Any]]:
    """Sums, maxima and reached users of deduplicated events, by minute of event time and dimensions.

    Shape: a column that is 0 for a key is left out. Sessions are not in it: they come from session rows.
    """
    rows: dict[MetricsKey, dict[str, Any]] = {}
    for event in events:
        row = rows.setdefault(metrics_key(event, event["event_time_ms"]), {"reach_users": set()})
        invalid = any(reason.startswith(INVALID_TRAFFIC) for reason in event["quality_reasons"])
        deltas = {
            "events": 1,
            COUNTED.get(event["event_type"], ""): 1,
            "late_events": int(is_late(event)),
            "invalid_events": int(invalid),
            "spend_micros": event["cost_micros"],
            "conversion_value_micros": event["conversion_value_micros"] or 0,
        }
        for name, delta in deltas.items():
            if name and delta:
                row[name] = row.get(name, 0) + delta
        row["last_event_time_ms"] = max(row.get("last_event_time_ms", 0), event["event_time_ms"])
        row["last_published_ms"] = max(row.get("last_published_ms", 0), event["published_time_ms"])
        if event["event_type"] == "impression" and event["user_pseudonym"] is not None:
            row["reach_users"].add(event["user_pseudonym"])
    return rows


CounterKey = tuple[str, str, str, str, int]  # entity type, entity id, counter, scope id, bucket_start_ms


def counter_values(events: Iterable[Event], counters: Iterable[Counter]) -> dict[CounterKey, int]:
    """Absolute values of counters over deduplicated events. An event without the entity's or scope's id is not counted.

    Nor is one that is published when its bucket is of no use any more. Order does not matter: a value is a number of
    events, or a sum of costs. What is 0 is left out.
    """
    chosen = tuple(counters)
    values: Tally[CounterKey] = Tally()
    for event in events:
        for counter in chosen:
            amount = 1 if counter.measure == "events" else event["cost_micros"]
            if event["event_type"] not in counter.event_types or not amount:
                continue
            entity_id = id_of(counter.entity, event)
            scope_id = id_of(counter.scope, event) if counter.scope else ""
            if entity_id is not None and scope_id is not None:
                bucket_ms = counter.bucket_s * 1000
                start_ms = event["event_time_ms"] - event["event_time_ms"] % bucket_ms
                if event["published_time_ms"] >= start_ms + bucket_ms + counter.retention_s * 1000:
                    continue
                values[counter.entity, entity_id, counter.name, scope_id, start_ms] += amount
    return dict(values)


BucketKey = tuple[str, str, int, int]  # entity type, entity id, bucket_s, bucket_start_ms
Bucket = dict[tuple[int, int], int]  # (code, scope hash, or 0 without scopes) to value


def counter_buckets(events: Iterable[Event], counters: Iterable[Counter]) -> dict[BucketKey, Bucket]:
    """`counter_values` as the stream job keeps them: the counters of one entity and bucket together.

    The counters must be of one family. A user's or household's count stays at its greatest.
    """
    by_name = {counter.name: counter for counter in counters}
    buckets: dict[BucketKey, Bucket] = {}
    for (entity, entity_id, name, scope_id, start_ms), value in counter_values(events, by_name.values()).items():
        counter = by_name[name]
        bucket = buckets.setdefault((entity, entity_id, counter.bucket_s, start_ms), {})
        scoped = entity in SCOPED_ENTITIES
        bucket[counter.code, scope_hash(scope_id) if scoped else 0] = min(value, MOST_SCOPED) if scoped else value
    return buckets


TOTAL = "total"


def campaign_spend(events: Iterable[Event]) -> dict[tuple[str, str], dict[str, int]]:
    """Spend and impressions by campaign and UTC day (yyyymmdd) of event time, and by campaign ever (`total`)."""
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for event in events:
        shown = event["event_type"] == "impression"
        if event["cost_micros"] > 0 or shown:
            today = datetime.fromtimestamp(event["event_time_ms"] / 1000, UTC).strftime("%Y%m%d")
            for day in (today, TOTAL):
                row = rows.setdefault((event["campaign_id"], day), {"spend_micros": 0, "impressions": 0})
                row["spend_micros"] += event["cost_micros"]
                row["impressions"] += int(shown)
    return rows


def open_wins(
    decisions: Iterable[Mapping[str, Any]], events: Iterable[Event], open_ms: int
) -> dict[tuple[str, int], dict[str, int]]:
    """What was won in auctions and what of it was shown, by campaign and minute of decision.

    An impression confirms the win of its record id when it is published less than `open_ms` after the decision,
    whichever of the two is read first; both count once.
    """
    shown_ms = {
        (e["campaign_id"], e["record_id"]): e["published_time_ms"] for e in events if e["event_type"] == "impression"
    }
    rows: dict[tuple[str, int], dict[str, int]] = {}
    wins = {
        (d["winner_campaign_id"], d["record_id"]): (
            d["decision_time_ms"],
            impression_cost_micros(d["price_cpm_micros"]),
        )
        for d in decisions
        if d["record_id"] and d["winner_campaign_id"]
    }
    for (campaign_id, record_id), (decision_time_ms, cost_micros) in wins.items():
        if not cost_micros:
            continue
        minute_ms = decision_time_ms - decision_time_ms % MINUTE_MS
        nothing = {"won_micros": 0, "confirmed_micros": 0, "wins": 0, "confirmed_wins": 0}
        row = rows.setdefault((campaign_id, minute_ms), nothing)
        published_ms = shown_ms.get((campaign_id, record_id))
        confirmed = int(published_ms is not None and abs(published_ms - decision_time_ms) < open_ms)
        row["won_micros"] += cost_micros
        row["confirmed_micros"] += cost_micros * confirmed
        row["wins"] += 1
        row["confirmed_wins"] += confirmed
    return rows
