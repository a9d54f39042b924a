"""What did each campaign deliver, minute by minute?

In: deduplicated_events. Out: campaign-metrics-v1 (no key, JSON for Druid): additive deltas per minute of event time
and dimensions, and the distinct users that saw an impression.
Time: minutes are event time; what has come is added up until the next checkpoint. Sums do not
care where they are cut, so no row is ever too late. State: none (connectors/flink/java/AdditiveKafkaSink.java).
Delivery: exactly once.
Run: python -m jobs.streaming submit --jobs campaign_metrics
"""

from __future__ import annotations

from jobs.streaming.job import Job, Output, sql
from jobs.streaming.settings import Settings
from schemas.campaign_metrics import PACKED_COLUMN
from schemas.events import LATENESS_MS

NAME = "campaign_metrics"


def build(_settings: Settings) -> Job:
    """The job over logical tables."""
    query = sql("campaign_metrics", dimensions=PACKED_COLUMN, lateness_ms=LATENESS_MS)
    return Job(NAME, outputs=(Output("campaign_metrics", query),))
