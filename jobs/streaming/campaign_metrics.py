"""What did each campaign deliver, minute by minute?

In: deduplicated_events. Out: campaign-metrics-v1 (no key, JSON for Druid): additive deltas per minute of event time
and dimensions, and the distinct users that saw an impression.
Time: minutes are event time; deltas are cut every `metrics_window_ms` of processing time. Sums do not care where they
are cut, so no row is ever too late. State: one second of deltas. Delivery: exactly once.
Run: python -m jobs.streaming submit --jobs campaign_metrics
"""

from __future__ import annotations

from jobs.streaming.job import Job, Output, sql
from jobs.streaming.metrics_columns import dimensions, zeros
from jobs.streaming.settings import Settings
from schemas.campaign_metrics import ATTRIBUTION_SUMS, COUNTED, DIMENSIONS, INVALID_TRAFFIC_SUMS, SESSION_SUMS
from schemas.events import LATENESS_MS

NAME = "campaign_metrics"


def build(settings: Settings) -> Job:
    """The job over logical tables."""
    query = sql(
        "campaign_metrics",
        dimensions=dimensions(),
        dimension_names=", ".join(DIMENSIONS),
        counts=",\n  ".join(
            f"COUNT(*) FILTER (WHERE event_type = '{event_type}') AS {column}" for event_type, column in COUNTED.items()
        ),
        zeros=zeros(SESSION_SUMS + ATTRIBUTION_SUMS + INVALID_TRAFFIC_SUMS),
        lateness_ms=LATENESS_MS,
        window_s=f"{settings.metrics_window_ms / 1000:.3f}",
    )
    return Job(NAME, outputs=(Output("campaign_metrics", query),))
