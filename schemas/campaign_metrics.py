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
    "deal_type",
    "experiment_cell",
    "pricing",
    "bidder_id",
    "currency",
)

#: The dimensions as one value: these texts, then these numbers (connectors/flink/java/PackedFields.java).
PACKED_COLUMN = "packed_dimensions"
PACKED_NUMBERS: tuple[str, ...] = ("creative_version",)
PACKED_TEXTS: tuple[str, ...] = tuple(name for name in DIMENSIONS if name not in PACKED_NUMBERS)

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
    "mute": "mutes",
    "pause_ad": "pause_ads",
    "qr_scan": "qr_scans",
    "error": "errors",
    "opt_out": "opt_outs",
    "conversion": "conversions",
    "post_view_conversion": "post_view_conversions",
}

#: Deltas of `campaign_metrics` beside the counts of types, of each event.
OTHER_EVENT_SUMS: tuple[str, ...] = (
    "events",
    "late_events",
    "invalid_events",  # events with a quality reason that starts with "ivt_"
    "spend_micros",
    "conversion_value_micros",
)
EVENT_SUMS: tuple[str, ...] = (*OTHER_EVENT_SUMS, *COUNTED.values())
#: Deltas of `ad_sessions`, when a session closes.
SESSION_SUMS: tuple[str, ...] = ("sessions", "sessions_completed", "watch_time_ms")
#: Deltas of `attribution`; a correction takes back what it replaces, so these can be negative.
ATTRIBUTION_SUMS: tuple[str, ...] = (
    "click_through_conversions",
    "view_through_conversions",
    "attributed_value_micros",
)
#: Deltas of `invalid_traffic`: what to take off the gross columns for the net ones.
INVALID_TRAFFIC_SUMS: tuple[str, ...] = (
    "givt_impressions",
    "sivt_impressions",
    "givt_clicks",
    "sivt_clicks",
    "invalid_spend_micros",
)

#: Columns that Druid sums. A row leaves out what is 0.
SUMS: tuple[str, ...] = (*EVENT_SUMS, *SESSION_SUMS, *ATTRIBUTION_SUMS, *INVALID_TRAFFIC_SUMS)
#: Columns that Druid takes the greatest of: freshness.
MAXIMA: tuple[str, ...] = ("last_event_time_ms", "last_published_ms")
#: Array of pseudonyms: theta and HLL sketches.
REACH_COLUMN = "reach_users"

DATASOURCE = "campaign_metrics_v1"
