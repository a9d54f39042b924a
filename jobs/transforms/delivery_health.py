"""Campaigns that stopped delivering or whose errors spike. The stream's job is jobs/streaming/delivery_health.py."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jobs.transforms.event_rules import Event


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a signal is raised. The settings `health_...` of the stream jobs say what each is, and its default."""

    window_s: int
    min_impressions: int
    min_events: int
    error_percent: int
    platform_percent: int


def delivery_health(events: Iterable[Event], rules: HealthRules) -> list[dict[str, Any]]:
    """DeliveryHealth rows of deduplicated events, by campaign and window of publish time."""
    counts: Tally[tuple[str, str, int]] = Tally()
    shown_by_all: Tally[int] = Tally()
    advertisers: dict[str, str] = {}
    for event in events:
        if event["event_type"] in ("impression", "error"):
            window = event["published_time_ms"] // (rules.window_s * 1000)
            counts[event["campaign_id"], event["event_type"], window] += 1
            shown_by_all[window] += event["event_type"] == "impression"
            advertisers[event["campaign_id"]] = max(advertisers.get(event["campaign_id"], ""), event["advertiser_id"])
    rows = []
    for campaign_id in sorted(advertisers):
        busy = {window for campaign, _, window in counts if campaign == campaign_id}
        stopped = False
        for window in sorted(busy | {window + 1 for window in busy}):
            impressions, before = (counts[campaign_id, "impression", w] for w in (window, window - 1))
            errors, errors_before = (counts[campaign_id, "error", w] for w in (window, window - 1))
            alive = shown_by_all[window] * 100 >= shown_by_all[window - 1] * rules.platform_percent
            signals = []
            if before >= rules.min_impressions and impressions == 0 and alive:
                signals.append(("zero_delivery", "raised"))
                stopped = True
            elif before == 0 and impressions > 0 and stopped:
                signals.append(("zero_delivery", "cleared"))
                stopped = False
            failing, failed = _fails(impressions, errors, rules), _fails(before, errors_before, rules)
            if failing != failed:
                signals.append(("error_spike", "raised" if failing else "cleared"))
            rows += [
                {
                    "campaign_id": campaign_id,
                    "advertiser_id": advertisers[campaign_id],
                    "signal": signal,
                    "state": state,
                    "window_start_ms": window * rules.window_s * 1000,
                    "window_s": rules.window_s,
                    "impressions": impressions,
                    "errors": errors,
                    "baseline_impressions": before,
                }
                for signal, state in signals
            ]
    return rows


def _fails(impressions: int, errors: int, rules: HealthRules) -> bool:
    events = impressions + errors
    return events >= rules.min_events and errors * 100 > events * rules.error_percent
