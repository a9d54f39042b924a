"""Sums over deduplicated events: campaign metrics, counters, spend. The stream's SQL files have the same names."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from jobs.transforms.event_rules import Event, is_late
from schemas.campaign_metrics import ABSENT, COUNTED, DIMENSIONS
from schemas.features import ID_COLUMNS, Counter

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
        invalid = any(reason.startswith("ivt_") for reason in event["quality_reasons"])
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

    Order does not matter: a value is a number of events.
    """
    chosen = tuple(counters)
    values: Tally[CounterKey] = Tally()
    for event in events:
        for counter in chosen:
            entity_id = event[ID_COLUMNS[counter.entity]]
            scope_id = event[ID_COLUMNS[counter.scope]] if counter.scope else ""
            if event["event_type"] in counter.event_types and entity_id and scope_id is not None:
                bucket_ms = counter.bucket_s * 1000
                start_ms = event["event_time_ms"] - event["event_time_ms"] % bucket_ms
                values[counter.entity, entity_id, counter.name, scope_id, start_ms] += 1
    return dict(values)


def campaign_spend(events: Iterable[Event]) -> dict[tuple[str, str], dict[str, int]]:
    """Spend and impressions by campaign and UTC day (yyyymmdd) of event time."""
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for event in events:
        shown = event["event_type"] == "impression"
        if event["cost_micros"] > 0 or shown:
            day = datetime.fromtimestamp(event["event_time_ms"] / 1000, UTC).strftime("%Y%m%d")
            row = rows.setdefault((event["campaign_id"], day), {"spend_micros": 0, "impressions": 0})
            row["spend_micros"] += event["cost_micros"]
            row["impressions"] += int(shown)
    return rows
