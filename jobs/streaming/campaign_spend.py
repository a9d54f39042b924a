"""How much has a campaign spent today?

In: deduplicated_events. Out: campaign-spend-v1 (compacted, key campaign_id|day): absolute micros per UTC day of event
time. Time: days of event time; no window. State: one row per campaign and day, kept until no event can come for it.
Delivery: at least once, absolute values.
Run: python -m jobs.streaming submit --jobs campaign_spend
"""

from __future__ import annotations

from jobs.streaming.counters import state_ttl
from jobs.streaming.job import Job, Output, sql
from jobs.streaming.settings import Settings
from schemas.features import DAY_S

NAME = "campaign_spend"


def build(_settings: Settings) -> Job:
    """The job over logical tables."""
    return Job(NAME, outputs=(Output("campaign_spend", sql("campaign_spend", state_ttl=state_ttl(DAY_S))),))
