"""What has happened lately to a creative, a campaign, a placement, an advertiser, and what does a user like?

In: deduplicated_events. Out: streaming-features-v2 (compacted, key counter_key): absolute counts and costs per entity
and bucket, from which readers make sums and rates over rolling windows (schemas/features.py).
Time: buckets of event time; no window, so nothing waits and nothing is too late.
State: a packed map per entity; a bucket is kept until no event can come for it. Delivery: at least once, absolute
values; changes of one bucket within `absolute_interval_ms` are one message.
Run: python -m jobs.streaming submit --jobs streaming_features
"""

from __future__ import annotations

from jobs.streaming.counters import counted_events, counted_ids
from jobs.streaming.job import Job, Output
from jobs.streaming.settings import Settings
from schemas.counters import FEATURE_COUNTERS

NAME = "streaming_features"


def build(_settings: Settings) -> Job:
    """The job over logical tables."""
    return Job(NAME, outputs=(Output(NAME, counted_events(FEATURE_COUNTERS)),), ids=counted_ids(FEATURE_COUNTERS))
