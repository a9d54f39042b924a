"""What has happened lately to a creative, a campaign, a placement, and what does a user like?

In: deduplicated_events. Out: streaming-features-v1 (compacted, key counter_key): absolute counts per entity, scope
and bucket, from which readers make rates over rolling windows (schemas/features.py).
Time: buckets of event time; no window, so nothing waits and nothing is too late.
State: one number per bucket, kept until no event can come for it. Delivery: at least once, absolute values.
Run: python -m jobs.streaming submit --jobs streaming_features
"""

from __future__ import annotations

from jobs.streaming.counters import counter_values_query
from jobs.streaming.job import Job, Output
from jobs.streaming.settings import Settings
from schemas.features import FEATURE_COUNTERS

NAME = "streaming_features"


def build(_settings: Settings) -> Job:
    """The job over logical tables."""
    return Job(NAME, outputs=(Output("streaming_features", counter_values_query(FEATURE_COUNTERS)),))
