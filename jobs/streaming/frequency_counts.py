"""How often has a user seen a creative, a campaign, an advertiser?

In: deduplicated_events. Out: frequency-counts-v1 (compacted, key counter_key): absolute impressions per user, scope
and bucket of event time. Time: buckets of event time; no window, so nothing waits and nothing is too late.
State: one number per bucket, kept until no event can come for it. Delivery: at least once, absolute values.
Run: python -m jobs.streaming submit --jobs frequency_counts
"""

from __future__ import annotations

from jobs.streaming.counters import counter_values_query
from jobs.streaming.job import Job, Output
from jobs.streaming.settings import Settings
from schemas.features import FREQUENCY_COUNTERS

NAME = "frequency_counts"


def build(_settings: Settings) -> Job:
    """The job over logical tables."""
    return Job(NAME, outputs=(Output("frequency_counts", counter_values_query(FREQUENCY_COUNTERS)),))
