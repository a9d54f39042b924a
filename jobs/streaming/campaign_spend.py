"""What has a campaign spent, today and ever, and what of its wins is still to be confirmed?

In: deduplicated_events, ad_decisions. Out: campaign-spend-v1 (compacted, key spend_key): absolute micros per UTC day of
event time, absolute micros of all time, and per minute of decision the expected cost of what was won and of what was
shown of it. Wins of younger minutes that are not confirmed are in flight; the share that is confirmed of older minutes
is how likely they are (serving/adserver/limits/budget.py).
Time: days of event time, minutes of decision time; no window, so committed spend never waits for a decision.
State: one record per win or impression for `win_open_s` by the topic that is behind, sums per minute for a day, per day
until no event can come for it, per campaign for ever. Delivery: at least once, absolute values.
Run: python -m jobs.streaming submit --jobs campaign_spend
"""

from __future__ import annotations

from jobs.streaming.job import Job, Output, View, sql
from jobs.streaming.settings import Settings
from schemas.counters import DAY_S
from schemas.events import OLDEST_MS
from schemas.redis_layout import OPEN_WINS_TTL_S

NAME = "campaign_spend"


def build(settings: Settings) -> Job:
    """The job over logical tables."""
    query = sql(
        "campaign_spend",
        open_s=settings.win_open_s,
        minute_s=OPEN_WINS_TTL_S,
        day_s=OLDEST_MS // 1000 + DAY_S,
    )
    return Job(NAME, outputs=(Output(NAME, query),), views=(View("spend_changes", sql("spend_changes")),))
