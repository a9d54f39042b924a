"""How often has a user, or of an unknown user the household, seen a creative, a campaign, an advertiser?

In: deduplicated_events. Out: frequency-counts-v2 (compacted, key counter_key): absolute impressions per viewer, bucket
of event time and scope. Buckets are minutes, hours, days and a lifetime: a reader sums any window of them.
Time: buckets of event time; no window, so nothing waits and nothing is too late.
State: a packed map per viewer; a bucket is kept until no event can come for it, a lifetime for 400 days after the last
impression. Delivery: at least once, absolute values; changes of one bucket within `absolute_interval_ms` are one
message.
Run: python -m jobs.streaming submit --jobs frequency_counts
"""

from __future__ import annotations

from jobs.streaming.counters import counted_events, counted_ids
from jobs.streaming.job import Job, Output
from jobs.streaming.settings import Settings
from schemas.counters import FREQUENCY_COUNTERS

NAME = "frequency_counts"


def build(_settings: Settings) -> Job:
    """The job over logical tables."""
    return Job(NAME, outputs=(Output(NAME, counted_events(FREQUENCY_COUNTERS)),), ids=counted_ids(FREQUENCY_COUNTERS))
