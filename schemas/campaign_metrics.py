"""The row of campaign-metrics-v1: additive deltas, JSON, for Druid. Flink's sink, the supervisor and reports read this.

A row may repeat for the same minute and dimensions: whoever reads it adds. `reach_users` lists the distinct
pseudonyms of the row's impressions; Druid turns them into sketches and keeps no user.
"""

from __future__ import annotations

TIME_COLUMN = "minute_ms"  # start of the event's minute, epoch ms UTC

DIMENSIONS: tuple[str, ...] = (
    "advertiser_id",
    "campaign_id",
    "line_item_id",
    "creative_id",
    "creative_version",
    "placement_id",
    "publisher_id",
    "country",
    "device_type",
    "platform",
    "creative_format",
    "pricing",
    "bidder_id",
    "currency",
)

#: How a dimension that the event has not is written: `bidder_id` of an internal campaign, an unknown `country`.
ABSENT = ""

#: Event type to the delta that counts it.
COUNTED: dict[str, str] = {
    "impression": "impressions",
    "viewable": "viewables",
    "start": "starts",
    "first_quartile": "first_quartiles",
    "midpoint": "midpoints",
    "third_quartile": "third_quartiles",
    "complete": "completes",
    "click": "clicks",
    "engage": "engagements",
    "skip": "skips",
    "error": "errors",
    "conversion": "conversions",
}

#: Columns that Druid sums.
SUMS: tuple[str, ...] = (
    "events",
    *COUNTED.values(),
    "late_events",
    "invalid_events",  # events with a quality reason that starts with "ivt_"
    "spend_micros",
    "conversion_value_micros",
    "sessions",  # these two come from ad_sessions, when a session closes
    "sessions_completed",
)
#: Columns that Druid takes the greatest of: freshness.
MAXIMA: tuple[str, ...] = ("last_event_time_ms", "last_published_ms")
#: Array of pseudonyms: theta and HLL sketches.
REACH_COLUMN = "reach_users"

DATASOURCE = "campaign_metrics_v1"
