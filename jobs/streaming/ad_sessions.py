"""What became of each ad: how far it played, whether it was clicked, what it cost.

In: deduplicated_events, stream_clock. Out: ad-sessions-v1 (key record_id), one row when the ad's session closes;
campaign-metrics-v1 (no key), the same row as deltas `sessions` and `sessions_completed`.
Time: publish time; a session closes when `session_gap_s` of it have passed without an event of the ad. When all
traffic stops the clock takes over after `source_idle_s`.
Lateness: an event that comes after its session closed opens another one of the same record_id; counts of sessions
stay right, because a session counts only where the ad's one impression (or its one completion) is.
State: one window per open ad, about 1 KB.
Delivery: exactly once.
Run: python -m jobs.streaming submit --jobs ad_sessions
"""

from __future__ import annotations

from jobs.streaming.job import Job, Output, View, sql, text_list
from jobs.streaming.metrics_columns import dimensions, zeros_but
from jobs.streaming.settings import Settings
from jobs.transforms.sessions import ENGAGEMENTS, NOT_OF_THE_AD
from schemas import campaign_metrics
from schemas.events import EVENT_TYPES

NAME = "ad_sessions"


def build(settings: Settings) -> Job:
    """The job over logical tables."""
    quartiles = " ".join(f"WHEN '{t.name}' THEN {t.quartile}" for t in EVENT_TYPES if t.quartile is not None)
    closed_sessions = sql(
        "closed_sessions",
        quartiles=quartiles,
        not_of_the_ad=text_list(NOT_OF_THE_AD),
        engagements=text_list(ENGAGEMENTS),
        gap_s=settings.session_gap_s,
    )
    session_metrics = sql(
        "session_metrics",
        dimensions=dimensions(),
        zeros=zeros_but(*campaign_metrics.SESSION_SUMS),
    )
    return Job(
        NAME,
        views=(View("closed_sessions", closed_sessions),),
        outputs=(
            Output("ad_sessions", "SELECT * FROM closed_sessions"),
            Output("session_metrics", session_metrics),
        ),
    )
