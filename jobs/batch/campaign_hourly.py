"""What did each campaign deliver in each hour? The batch sibling of campaign-metrics-v1, to compare Druid with.

In: silver/ad_events. Out: gold/campaign_hourly, one row per hour and dimensions of schemas/campaign_metrics.py.
Time: the hour of the event time, late or not. Sessions count in the hour of their ad's first event.
What only the stream finds out (attribution, verdicts on traffic) is 0 here: `ATTRIBUTION_SUMS`, `INVALID_TRAFFIC_SUMS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.campaign_metrics import ABSENT, COUNTED, DIMENSIONS, SUMS
from schemas.events import EVENT_TYPES, LATENESS_MS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

#: Events that are no part of an ad's playback.
_NOT_OF_THE_AD = ("conversion", "post_view_conversion", "opt_out")

#: Percent of the ad that has played when an event of a type comes.
_PLAYED = " ".join(f"WHEN '{kind.name}' THEN {kind.quartile}" for kind in EVENT_TYPES if kind.quartile)

_HOUR = "date_format(timestamp_millis(event_time_ms), 'yyyy-MM-dd-HH') AS event_hour"


def campaign_hourly(silver: DataFrame) -> DataFrame:
    """Sums by hour and dimensions. Shape: event_hour, DIMENSIONS, SUMS, MAXIMA, `reach` (distinct users reached)."""
    dimensions = [
        name if name == "creative_version" else f"coalesce({name}, '{ABSENT}') AS {name}" for name in DIMENSIONS
    ]
    measured = silver.selectExpr(_HOUR, *dimensions, *_event_columns())
    lives = (
        silver.where(f"event_type NOT IN {_NOT_OF_THE_AD}")
        .groupBy("record_id")
        .agg(
            *_expressions(
                "min(event_time_ms) AS event_time_ms",
                *[f"max({name}) AS {name}" for name in DIMENSIONS],
                "count_if(event_type = 'impression') AS shown",
                "count_if(event_type = 'complete') AS completed",
                f"max(greatest(coalesce(watch_percent, 0), CASE event_type {_PLAYED} ELSE 0 END)) AS watched",
                "max(coalesce(creative_length_s, 0)) AS length_s",
            )
        )
    )
    sessions = lives.selectExpr(_HOUR, *dimensions, *_session_columns())
    sums = [f"sum({name}) AS {name}" for name in SUMS]
    maxima = ["max(last_event_time_ms) AS last_event_time_ms", "max(last_published_ms) AS last_published_ms"]
    return (
        measured.unionByName(sessions)
        .groupBy("event_hour", *DIMENSIONS)
        .agg(*_expressions(*sums, *maxima, "count(DISTINCT reached_user) AS reach"))
    )


def _event_columns() -> list[str]:
    made = {
        "events": "1L",
        "late_events": f"CAST(received_time_ms - event_time_ms > {LATENESS_MS} AS BIGINT)",
        "invalid_events": "CAST(exists(quality_reasons, r -> startswith(r, 'ivt_')) AS BIGINT)",
        "spend_micros": "cost_micros",
        "conversion_value_micros": "coalesce(conversion_value_micros, 0L)",
    } | {column: f"CAST(event_type = '{event_type}' AS BIGINT)" for event_type, column in COUNTED.items()}
    return [
        *[f"{made.get(name, '0L')} AS {name}" for name in SUMS],
        "event_time_ms AS last_event_time_ms",
        "published_time_ms AS last_published_ms",
        "CASE WHEN event_type = 'impression' THEN user_pseudonym END AS reached_user",
    ]


def _session_columns() -> list[str]:
    made = {
        "sessions": "CAST(shown > 0 AS BIGINT)",
        "sessions_completed": "CAST(completed > 0 AS BIGINT)",
        "watch_time_ms": "CAST(watched AS BIGINT) * length_s * 10",
    }
    return [
        *[f"{made.get(name, '0L')} AS {name}" for name in SUMS],
        "CAST(NULL AS BIGINT) AS last_event_time_ms",
        "CAST(NULL AS BIGINT) AS last_published_ms",
        "CAST(NULL AS STRING) AS reached_user",
    ]


def _expressions(*texts: str) -> list[Column]:
    from pyspark.sql import functions as F

    return [F.expr(text) for text in texts]
