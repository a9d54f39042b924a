"""Which events no person caused, by lists, rates and patterns. The stream's is jobs/streaming/invalid_traffic.py."""

from __future__ import annotations

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jobs.transforms.event_rules import Event
from schemas.campaign_metrics import DIMENSIONS
from schemas.events import BY_NAME

Row = dict[str, Any]

GENERAL, SOPHISTICATED = "general", "sophisticated"
DATA_CENTER_REASON = "ivt_data_center"
_BILLED = ("impression", "click")
_CLICK, _IMPRESSION = -2, -1
_HOUR_MS = 3_600_000
_COPIED = (
    "event_id",
    "record_id",
    "event_type",
    "event_time_ms",
    "user_pseudonym",
    "household_pseudonym",
    "cost_micros",
    *DIMENSIONS,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is still believed. The settings `ivt_...` of the stream jobs say what each is, and its default."""

    click_flood_clicks: int
    click_flood_window_s: int
    address_users: int
    data_center_events: int
    fastest_percent: int
    clock_tolerance_ms: int
    pattern_window_s: int


def verdicts(events: Iterable[Event], limits: Limits) -> list[Row]:
    """InvalidTraffic rows of deduplicated events in the order in which they came: one per event, its first verdict.

    Lists and rates speak at once, patterns when the watermark has passed; so a pattern's verdict never comes first.
    """
    arrived = list(events)
    first: dict[bytes, Row] = {}
    for row in (*_by_list_and_rate(arrived, limits), *_by_pattern(arrived, limits)):
        first.setdefault(row["event_id"], row)
    return list(first.values())


def invalid_deltas(row: Row) -> dict[str, int]:
    """What a verdict takes off the gross sums of the event's minute and dimensions."""
    kind = "givt" if row["traffic_class"] == GENERAL else "sivt"
    counted = {f"{kind}_{row['event_type']}s": 1} if row["event_type"] in _BILLED else {}
    return counted | {"invalid_spend_micros": row["cost_micros"]}


def conflict(former: Event, latter: Event, limits: Limits) -> tuple[Event, str] | None:
    """The event that can't be true beside the other, and the rule that says so; None when both can be.

    Example:
    >>> limits = Limits(10, 60, 50, 5, fastest_percent=80, clock_tolerance_ms=1_000, pattern_window_s=300)
    >>> shown = {"event_type": "impression", "event_time_ms": 10_000, "creative_length_s": 30}
    >>> conflict(shown | {"event_type": "click", "event_time_ms": 8_000}, shown, limits)[1]
    'click_before_impression'
    >>> conflict(shown, shown | {"event_type": "complete", "event_time_ms": 20_000}, limits)[1]
    'quartiles_too_fast'
    """
    low, high = sorted((former, latter), key=_step)
    apart_ms = high["event_time_ms"] - low["event_time_ms"]
    if _step(low) == _CLICK:
        late = _step(high) == _IMPRESSION and apart_ms > limits.clock_tolerance_ms
        return (low, "click_before_impression") if late else None
    if _step(low) == _IMPRESSION:
        length_ms = (high["creative_length_s"] or 0) * 1000
        least_ms = _step(high) * length_ms * limits.fastest_percent // 10_000 - limits.clock_tolerance_ms
        if _step(high) <= 0 or apart_ms >= least_ms:
            return None
        return low, "quartile_before_impression" if apart_ms < -limits.clock_tolerance_ms else "quartiles_too_fast"
    if _step(low) < _step(high) and apart_ms < -limits.clock_tolerance_ms:
        return high, "quartiles_out_of_order"
    return None


def _by_list_and_rate(arrived: list[Event], limits: Limits) -> Iterator[Row]:
    clicks: Tally[tuple[str, int]] = Tally()
    users: dict[tuple[str, int], set[str]] = defaultdict(set)
    listed: Tally[tuple[str, int]] = Tally()
    for event in arrived:
        from_data_center = DATA_CENTER_REASON in event["quality_reasons"]
        if from_data_center:
            yield _row(event, GENERAL, "data_center", event)
        if event["event_type"] not in _BILLED:
            continue
        clock_ms = event["received_time_ms"] if event["source"] == "video_player" else event["event_time_ms"]
        visitor = event["user_pseudonym"] or event["household_pseudonym"]
        if event["event_type"] == "click" and visitor is not None:
            window = visitor, clock_ms // (limits.click_flood_window_s * 1000)
            clicks[window] += 1
            if clicks[window] > limits.click_flood_clicks:
                yield _row(event, GENERAL, "click_flood", event)
        if event["household_pseudonym"] is not None:
            hour = event["household_pseudonym"], clock_ms // _HOUR_MS
            users[hour] |= {event["user_pseudonym"]} - {None}
            listed[hour] += from_data_center
            if len(users[hour]) > limits.address_users:
                yield _row(event, GENERAL, "many_users_one_address", event)
            elif listed[hour] > limits.data_center_events:
                yield _row(event, GENERAL, "data_center_repeat", event)


def _by_pattern(arrived: list[Event], limits: Limits) -> Iterator[Row]:
    seen: dict[str, list[Event]] = defaultdict(list)
    for latter in arrived:
        own_time = latter["source"] == "video_player" or latter["event_time_ms"] < latter["received_time_ms"]
        if not own_time or _step(latter) is None:
            continue
        for former in seen[latter["record_id"]]:
            found = conflict(former, latter, limits)
            near_ms = abs(latter["published_time_ms"] - former["published_time_ms"])
            listed = found and DATA_CENTER_REASON in found[0]["quality_reasons"]
            if found and not listed and near_ms < limits.pattern_window_s * 1000:
                last = max(former, latter, key=lambda event: event["published_time_ms"])
                yield _row(found[0], SOPHISTICATED, found[1], last)
        seen[latter["record_id"]].append(latter)


def _step(event: Event) -> Any:
    """Where an event stands in the playing of an ad; None for one that does not."""
    fixed = {"click": _CLICK, "impression": _IMPRESSION}
    kind = BY_NAME.get(event["event_type"])
    return fixed.get(event["event_type"], kind.quartile if kind else None)


def _row(event: Event, traffic_class: str, rule: str, cause: Event) -> Row:
    return {
        **{name: event[name] for name in _COPIED},
        "traffic_class": traffic_class,
        "rule": rule,
        "verdict_time_ms": cause["published_time_ms"],
    }
