"""What became of each ad: how far it played, whether it was clicked, what it cost.

In: lives (java/AdLives.java). Out: ad-sessions-v1 (key record_id), one row when the ad's life closes;
campaign-metrics-v1 (no key), the same row as deltas `sessions`, `sessions_completed` and `watch_time_ms`.
Time: publish time; a life closes when `session_gap_s` of it have passed without an event of the ad. When all traffic
stops the clock takes over after `source_idle_s`.
Lateness: an event that comes after its ad's life was closed makes a whole new row with the next `revision`, which
replaces the older one; the deltas make up the difference, and move to the minute in which the life began. So how often
a life was cut changes no final row and no sum.
State: one value per ad, shared with the deduplication. Delivery: exactly once.
Run: python -m jobs.streaming submit --jobs ad_sessions
"""

from __future__ import annotations

from jobs.streaming.job import Job, Output, View, packed_dimension, sql
from jobs.streaming.settings import Settings
from schemas.campaign_metrics import PACKED_COLUMN, PACKED_TEXTS

NAME = "ad_sessions"

_COUNTS = ("impressions", "clicks", "engagements", "errors", "events", "cost_micros", "qr_scans", "pause_ads", "skips")


def of_session(names: tuple[str, ...]) -> str:
    """Select list of fields of a session row."""
    return ",\n  ".join(f"`session`.`{name}` AS {name}" for name in names)


def build(settings: Settings) -> Job:
    """The job over logical tables."""
    closed_sessions = sql(
        "closed_sessions",
        texts=",\n  ".join(packed_dimension(name, f"`session`.`{PACKED_COLUMN}`") for name in PACKED_TEXTS),
        counts=of_session(_COUNTS),
        gap_ms=settings.session_gap_s * 1000,
    )
    session_metrics = sql("session_metrics", dimensions=PACKED_COLUMN)
    return Job(
        NAME,
        views=(View("closed_sessions", closed_sessions),),
        outputs=(
            Output("ad_sessions", "SELECT * FROM closed_sessions WHERE revision > 0"),
            Output("session_metrics", session_metrics),
        ),
    )
