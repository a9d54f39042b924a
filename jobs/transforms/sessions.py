"""Sessions: what became of each ad. The stream's way is jobs/streaming/java/AdLives.java."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from jobs.transforms.event_rules import Event
from schemas.events import BY_NAME

#: Types that come long after the ad was shown, or are not about playing it.
NOT_OF_THE_AD = ("conversion", "post_view_conversion", "opt_out")
ENGAGEMENTS = ("engage", "qr_scan", "pause_ad")

#: What all events of an ad have in common; of differing values the greatest is taken, so that order does not matter.
_SAME_IN_ALL = (
    "record_id",
    "advertiser_id",
    "campaign_id",
    "line_item_id",
    "creative_id",
    "creative_version",
    "placement_id",
    "publisher_id",
    "user_pseudonym",
    "country",
    "device_type",
    "platform",
    "creative_format",
    "deal_type",
    "experiment_cell",
    "currency",
)


def sessions(events: Iterable[Event], gap_ms: int) -> list[dict[str, Any]]:
    """Last revision of the AdSession row of every ad, by record id, of deduplicated events in any order."""
    by_record: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event["event_type"] not in NOT_OF_THE_AD:
            by_record[event["record_id"]].append(event)
    return [_session(by_record[record_id], gap_ms) for record_id in sorted(by_record)]


def _session(life: Sequence[Event], gap_ms: int) -> dict[str, Any]:
    types = [event["event_type"] for event in life]
    times = [event["event_time_ms"] for event in life]
    quartiles = [q for q in (getattr(BY_NAME.get(t), "quartile", None) for t in types) if q is not None]
    furthest = max(quartiles, default=0)
    errors = types.count("error")
    watched = max([0, *quartiles, *(event["watch_percent"] or 0 for event in life)])
    if furthest == 100:
        state = "completed"
    elif errors:
        state = "errored"
    elif quartiles:
        state = "abandoned"
    else:
        state = "shown"
    return {
        **{name: _greatest(event[name] for event in life) for name in _SAME_IN_ALL},
        "first_event_time_ms": min(times),
        "last_event_time_ms": max(times),
        "started": bool(quartiles),
        "furthest_quartile": furthest,
        "state": state,
        "impressions": types.count("impression"),
        "clicks": types.count("click"),
        "engagements": sum(t in ENGAGEMENTS for t in types),
        "errors": errors,
        "viewable": "viewable" in types,
        "dwell_ms": max(times) - min(times),
        "events": len(life),
        "cost_micros": sum(event["cost_micros"] for event in life),
        "qr_scans": types.count("qr_scan"),
        "pause_ads": types.count("pause_ad"),
        "skips": types.count("skip"),
        "watch_percent": watched,
        "watch_time_ms": watched * max(event["creative_length_s"] or 0 for event in life) * 10,
        "sources": len({event["source"] for event in life}),
        "closed_time_ms": max(event["published_time_ms"] for event in life) + gap_ms,
    }


def _greatest(values: Iterable[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)
