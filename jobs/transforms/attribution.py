"""Which touch a conversion is credited to, and what each correction adds to the sums.

The stream's job is jobs/streaming/attribution.py; the golden tests run both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jobs.transforms.event_rules import Event
from schemas.campaign_metrics import DIMENSIONS

Lookback = tuple[int, int]  # click_s, view_s
Row = dict[str, Any]

_TOUCHES = ("impression", "click")
#: Dimensions of a credit that are the touch's; its currency is that of the conversion's value.
OF_THE_TOUCH = tuple(name for name in DIMENSIONS if name != "currency")


def lookback_of(by_advertiser: Mapping[str, Lookback], others: Lookback) -> Callable[[str, str], int]:
    """Seconds that a touch of an event type counts for with an advertiser."""
    return lambda advertiser, event_type: by_advertiser.get(advertiser, others)[0 if event_type == "click" else 1]


def is_touch(event: Event) -> bool:
    """Whether an event may be credited with anything: impressions and clicks that nothing is known against."""
    return event["event_type"] in _TOUCHES and not any(r.startswith("ivt_") for r in event["quality_reasons"])


def eligible(touch: Event, conversion: Event, lookback_s: int) -> bool:
    """Whether a touch lies before a conversion of the same advertiser and user, or ad, and near enough.

    Example:
    >>> ad = {"advertiser_id": "a", "user_pseudonym": None, "record_id": "r", "event_time_ms": 1_000}
    >>> eligible(ad, ad | {"event_time_ms": 61_000}, 60), eligible(ad, ad | {"event_time_ms": 61_001}, 60)
    (True, False)
    """
    user = touch["user_pseudonym"]
    same = (user is not None and user == conversion["user_pseudonym"]) or touch["record_id"] == conversion["record_id"]
    before_ms = conversion["event_time_ms"] - touch["event_time_ms"]
    return (
        same
        and touch["advertiser_id"] == conversion["advertiser_id"]
        and lookback_s > 0
        and 0 <= before_ms <= lookback_s * 1000
    )


def rank(touch: Event) -> tuple[bool, int, bytes]:
    """Orders touches: a click before a view, then the later one, then the greater event id."""
    return touch["event_type"] == "click", touch["event_time_ms"], touch["event_id"]


def attributions(events: Iterable[Event], lookback_s: Callable[[str, str], int]) -> list[Row]:
    """Attribution rows of deduplicated events in the order in which they came, every revision, with its `sign`.

    A row with sign -1 takes back what an earlier revision gave: it is no attribution, but a delta.
    """
    touches: list[Event] = []
    held: dict[bytes, tuple[Event, Event | None, int]] = {}
    rows: list[Row] = []
    for event in events:
        if event["event_type"] == "conversion":
            if event["event_id"] not in held:
                found = [t for t in touches if eligible(t, event, lookback_s(t["advertiser_id"], t["event_type"]))]
                best = max(found, key=rank, default=None)
                held[event["event_id"]] = (event, best, 1)
                rows.append(_row(1, 1, event, best, event, lookback_s))
        elif is_touch(event):
            touches.append(event)
            for key, (conversion, best, revision) in held.items():
                better = best is None or rank(event) > rank(best)
                if better and eligible(event, conversion, lookback_s(event["advertiser_id"], event["event_type"])):
                    rows.append(_row(-1, revision, conversion, best, event, lookback_s))
                    rows.append(_row(1, revision + 1, conversion, event, event, lookback_s))
                    held[key] = (conversion, event, revision + 1)
    return rows


def _row(
    sign: int,
    revision: int,
    conversion: Event,
    touch: Event | None,
    cause: Event,
    lookback_s: Callable[[str, str], int],
) -> Row:
    of_the_touch = touch or conversion
    return {
        "sign": sign,
        "conversion_event_id": conversion["event_id"],
        "order_id": conversion["order_id"] or "",
        "outcome": "unattributed" if touch is None else "attributed",
        "revision": revision,
        "touch_type": None if touch is None else "click" if touch["event_type"] == "click" else "view",
        "touch_event_id": touch and touch["event_id"],
        "touch_record_id": touch and touch["record_id"],
        "touch_time_ms": touch and touch["event_time_ms"],
        "conversion_time_ms": conversion["event_time_ms"],
        "lookback_s": lookback_s(touch["advertiser_id"], touch["event_type"]) if touch else 0,
        "user_pseudonym": conversion["user_pseudonym"],
        "value_micros": conversion["conversion_value_micros"] or 0,
        **{name: of_the_touch[name] for name in OF_THE_TOUCH},
        "currency": conversion["currency"],
        "decided_time_ms": cause["published_time_ms"],
    }


def attribution_deltas(row: Row) -> dict[str, int]:
    """What a row of `attributions` adds to the sums of the conversion's minute and the touch's ad."""
    return {
        "click_through_conversions": row["sign"] * (row["touch_type"] == "click"),
        "view_through_conversions": row["sign"] * (row["touch_type"] == "view"),
        "attributed_value_micros": row["sign"] * row["value_micros"] * (row["outcome"] == "attributed"),
    }
