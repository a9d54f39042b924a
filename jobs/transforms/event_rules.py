"""Rules of single events: which are refused, which are late, which copy counts. The same in stream and batch.

The stream's SQL is jobs/streaming/sql/judged_events.sql, events.sql and deduplicated_events.sql; the golden tests run
both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from schemas.errors import RejectReason
from schemas.events import LATENESS_MS, OLDEST_MS, opted_out

Event = Mapping[str, Any]

_REQUIRED = ("record_id", "event_type")
#: Required but for conversions: only they may be of no known ad, which attribution finds.
_OF_AN_AD = ("campaign_id", "creative_id")
#: Columns that tell one viewer from another.
PSEUDONYMS = ("user_pseudonym", "household_pseudonym")


def reject_reason(event: Event) -> RejectReason | None:
    """Why an event that fits its schema is refused all the same, or None.

    Example:
    >>> reject_reason({"record_id": "", "event_type": "click", "campaign_id": "c", "creative_id": "d"})
    <RejectReason.MISSING_FIELD: 'missing_field'>
    """
    required = _REQUIRED if event["event_type"] == "conversion" else _REQUIRED + _OF_AN_AD
    if any(event[name] == "" for name in required):
        return RejectReason.MISSING_FIELD
    event_ms, received_ms = event["event_time_ms"], event["received_time_ms"]
    if event_ms <= 0 or received_ms - event_ms > OLDEST_MS:
        return RejectReason.ABSURD_TIME
    if event_ms > received_ms or event["cost_micros"] < 0 or event["ordinal"] < 0:
        return RejectReason.BAD_VALUE
    return None


def is_late(event: Event) -> bool:
    """Whether an event was received later than the lateness limit: a property of the event, not of the run.

    Example:
    >>> is_late({"event_time_ms": 0, "received_time_ms": LATENESS_MS})
    False
    """
    return bool(event["received_time_ms"] - event["event_time_ms"] > LATENESS_MS)


def without_the_opted_out(event: Event) -> Event:
    """An event as it may be used: without pseudonyms when its user opted out, whatever its sender has put in."""
    return {**event, **dict.fromkeys(PSEUDONYMS)} if opted_out(event["consent"]) else event


def accepted(events: Iterable[Event]) -> Iterator[Event]:
    """The first copy of every event that is not refused, as it may be used, in the order in which they came."""
    seen: set[bytes] = set()
    for event in events:
        if reject_reason(event) is None and event["event_id"] not in seen:
            seen.add(event["event_id"])
            yield without_the_opted_out(event)
