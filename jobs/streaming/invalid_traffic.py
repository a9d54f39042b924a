"""Which events did no person cause?

In: deduplicated_events. Out: invalid-traffic-v1 (key record_id), a verdict per event with its class, rule and what was
seen; campaign-metrics-v1 (no key), deltas of what to take off the gross columns, in the event's own minute and
dimensions. Nothing is deleted: gross stays gross. Of several verdicts on an event the first is written, and counted.

general (lists and rates): `data_center` (quality reason `ivt_data_center`), `data_center_repeat` (other events of an
address that sent more than `ivt_data_center_events` of those in an hour), `click_flood` (clicks of a user, or address,
past `ivt_click_flood_clicks` in a window), `many_users_one_address` (events past `ivt_address_users` users in an hour).
What came before a limit was reached has no verdict.
sophisticated (patterns of an ad's events): `click_before_impression` (verdict on the click), `quartiles_too_fast` and
`quartile_before_impression` (on the impression), `quartiles_out_of_order` (on the higher quartile).

Time: rates count in fixed windows of received time, or of event time for what servers logged, and do not wait for a
watermark. Patterns compare event times, in either order of arrival, of events published within `ivt_pattern_window_s`;
their verdicts come when the watermark has passed both events, behind those of lists and rates.
State: 24 bytes per user or address and window, and 8 for each user of an address (java/CountsSoFar.java), for
`deduplication_ttl_s` of publish time; an id per verdict, for as long by the clock; of an ad 47 bytes for each
impression, click and quartile (java/AdMoments.java), for `ivt_pattern_window_s`.
Delivery: exactly once.
Run: python -m jobs.streaming submit --jobs invalid_traffic
Source: MRC Invalid Traffic Detection and Filtration Standards Addendum (2020), general and sophisticated techniques.
"""

from __future__ import annotations

from jobs.streaming.job import IDS_COLUMN, Job, Output, View, id_text, packed_dimensions, sql, text_list
from jobs.streaming.settings import Settings
from jobs.transforms.event_rules import PSEUDONYMS
from schemas.campaign_metrics import PACKED_COLUMN
from schemas.events import EVENT_TYPES

NAME = "invalid_traffic"

#: What a verdict repeats of its event.
_REPEATED = (
    "event_id",
    "event_type",
    "event_time_ms",
    "cost_micros",
    IDS_COLUMN,
    PACKED_COLUMN,
)
_COLUMNS = ", ".join(_REPEATED)


def build(settings: Settings) -> Job:
    """The job over logical tables."""
    by_rate = sql(
        "invalid_by_rate",
        columns=_COLUMNS,
        counted_columns=", ".join(f"`event`.`{name}` AS `{name}`" for name in _REPEATED),
        buckets=settings.key_buckets,
        kept_ms=settings.deduplication_ttl_s * 1000,
        flood_clicks=settings.ivt_click_flood_clicks,
        flood_window_s=settings.ivt_click_flood_window_s,
        flood_window_ms=settings.ivt_click_flood_window_s * 1000,
        address_users=settings.ivt_address_users,
        data_center_events=settings.ivt_data_center_events,
    )
    judged = ("impression", "click", *(kind.name for kind in EVENT_TYPES if kind.quartile is not None))
    by_pattern = sql(
        "invalid_by_pattern",
        columns=_COLUMNS,
        ids=IDS_COLUMN,
        packed=PACKED_COLUMN,
        event_types=text_list(judged),
        buckets=settings.key_buckets,
        window_ms=settings.ivt_pattern_window_s * 1000,
        tolerance_ms=settings.ivt_clock_tolerance_ms,
        fastest_percent=settings.ivt_fastest_percent,
    )
    ids = ", ".join(f"{id_text(name)} AS {name}" for name in ("record_id", *PSEUDONYMS))
    rows = f"SELECT *,\n  {ids},\n  {packed_dimensions(PACKED_COLUMN)}\nFROM invalid_verdicts"
    metrics = sql("invalid_metrics", dimensions=PACKED_COLUMN)
    return Job(
        NAME,
        views=(
            View("invalid_by_list", sql("invalid_by_list", columns=_COLUMNS)),
            View("invalid_by_rate", by_rate),
            View("invalid_by_pattern", by_pattern),
            View("invalid_verdicts", sql("invalid_verdicts")),
        ),
        outputs=(
            Output("invalid_traffic", rows),
            Output("invalid_metrics", metrics),
        ),
    )
