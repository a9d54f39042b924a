"""Synthetic ad traffic for tests: decisions and the events that follow, with the truth about what was planted.

Deterministic by seed. Events are in publish order, duplicates and late ones included; nothing here is random at import.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from schemas.events import BY_NAME, LATENESS_MS
from schemas.ids import encode_id, event_id, pseudonym
from schemas.money import impression_cost_micros

PSEUDONYM_KEY = b"k" * 32
START_MS = 1_780_000_200_000  # 20 minutes before a full hour, so that traffic of 40 minutes has two hours

QUARTILES = ("start", "first_quartile", "midpoint", "third_quartile", "complete")


@dataclass
class Traffic:
    """What was written, in order, and what is true of it."""

    decisions: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    duplicates: int = 0
    late: int = 0
    clicked: set[str] = field(default_factory=set)


def ad_event(record: dict[str, Any], event_type: str, time_ms: int, ordinal: int = 0, **changes: Any) -> dict[str, Any]:
    """One AdEvent of a decided ad (a decision's `record`), received and published a little after it happened."""
    record_id = record["record_id"]
    raw = bytes.fromhex(record["record_hex"])
    event = {
        "event_id": event_id(raw, BY_NAME[event_type].code, ordinal),
        "record_id": record_id,
        "event_type": event_type,
        "ordinal": ordinal,
        "event_time_ms": time_ms,
        "received_time_ms": time_ms + 20,
        "published_time_ms": time_ms + 120,
        "source": "video_player",
        "cost_micros": record["cost_micros"] if event_type == "impression" else 0,
        **{k: v for k, v in record.items() if k not in {"record_hex", "cost_micros", "click_rate"}},
    }
    return event | changes


def traffic(
    seed: int = 1,
    ads: int = 300,
    users: int = 40,
    span_ms: int = 40 * 60_000,
    start_ms: int = START_MS,
    duplicate_share: float = 0.03,
    late_share: float = 0.02,
    base_rate: float = 0.08,
) -> Traffic:
    """`ads` shown ads over `span_ms`: every one has an impression, most play on, some are clicked."""
    rng = random.Random(seed)
    out = Traffic()
    for n in range(ads):
        decided_ms = start_ms + n * span_ms // ads
        raw = rng.randbytes(16)
        campaign = rng.randrange(6)
        creative = campaign * 2 + rng.randrange(2)
        user = rng.randrange(users)
        record = {
            "record_id": encode_id(raw),
            "record_hex": raw.hex(),
            "request_id": f"rq-{seed}-{n}",
            "imp_id": "1",
            "user_pseudonym": None if user % 10 == 0 else pseudonym(f"user-{user}", 1, PSEUDONYM_KEY),
            "household_pseudonym": None if user % 4 == 0 else pseudonym(f"home-{user // 3}", 1, PSEUDONYM_KEY),
            "advertiser_id": f"adv-{campaign % 3}",
            "campaign_id": f"cmp-{campaign}",
            "line_item_id": f"li-{campaign}",
            "creative_id": f"cr-{creative}",
            "placement_id": f"pl-{n % 5}",
            "publisher_id": f"pub-{n % 2}",
            "content_category": ("IAB1", "IAB17", "IAB12")[n % 3],
            "device_type": ("ctv", "phone", "desktop")[user % 3],
            "platform": "linux",
            "country": ("US", "DE")[user % 2],
            "creative_format": "video",
            "cost_micros": impression_cost_micros(2_000_000 + 100_000 * campaign),
            "click_rate": base_rate * (0.4 + 0.35 * (creative % 4)) * (1.5 if user % 3 == 1 else 0.8),
        }
        out.decisions.append(decision(record, decided_ms))
        out.events += _played(rng, record, decided_ms, duplicate_share, late_share, out)
    out.events.sort(key=lambda e: e["published_time_ms"])
    return out


def decision(record: dict[str, Any], decided_ms: int, **changes: Any) -> dict[str, Any]:
    """The AdDecision that led to a record."""
    return {
        "request_id": record["request_id"],
        "imp_id": record["imp_id"],
        "decision_time_ms": decided_ms,
        "record_id": record["record_id"],
        "user_pseudonym": record["user_pseudonym"],
        "placement_id": record["placement_id"],
        "publisher_id": record["publisher_id"],
        "country": record["country"],
        "device_type": record["device_type"],
        "winner_campaign_id": record["campaign_id"],
        "winner_creative_id": record["creative_id"],
        "price_cpm_micros": record["cost_micros"] * 1000,
        "features": {},
    } | changes


def _played(
    rng: random.Random, record: dict[str, Any], decided_ms: int, duplicates: float, late: float, out: Traffic
) -> list[dict[str, Any]]:
    shown_ms = decided_ms + rng.randrange(50, 900)
    events = [ad_event(record, "impression", shown_ms)]
    for step, quartile in enumerate(QUARTILES):
        if rng.random() < 0.1:
            break
        events.append(ad_event(record, quartile, shown_ms + 100 + step * 3_750))
    if rng.random() < record["click_rate"]:
        events.append(ad_event(record, "click", shown_ms + rng.randrange(500, 9_000)))
        out.clicked.add(record["record_id"])
    for event in list(events):
        if rng.random() < late:
            event["received_time_ms"] = event["event_time_ms"] + LATENESS_MS + 60_000
            event["published_time_ms"] = event["received_time_ms"] + 100
            out.late += 1
        if rng.random() < duplicates:
            again = dict(event, received_time_ms=event["received_time_ms"] + 500)
            again["published_time_ms"] = event["published_time_ms"] + 500
            events.append(again)
            out.duplicates += 1
    return events
