"""Which campaigns stopped delivering, and whose errors spike?

In: deduplicated_events (impressions and errors). Out: delivery-health-v1 (key campaign_id), a row when a signal is
raised and one when it is cleared: `zero_delivery` (at least `health_min_impressions` in a window, none in the next;
cleared by the next impression) and `error_spike` (more than `health_error_percent` errors among at least
`health_min_events` impressions and errors; cleared by the first window that is not so).
When the impressions of all campaigns together fall below `health_platform_percent` of the window before, the platform
is silent, and no campaign's zero delivery is raised. The job does not know the catalogue: a campaign that was paused,
or has spent its budget, raises the signal once, too. One that does not come back after a silence of the platform raises
none.
Time: windows of `health_window_s` of publish time; they close when traffic stops, by the clock. Events behind the
watermark are not counted here.
State: four counts per campaign and open window, and each campaign's last turn for `deduplication_ttl_s`.
Delivery: exactly once.
Run: python -m jobs.streaming submit --jobs delivery_health
"""

from __future__ import annotations

from jobs.streaming.job import Job, Output, View, sql
from jobs.streaming.settings import Settings

NAME = "delivery_health"


def build(settings: Settings) -> Job:
    """The job over logical tables."""
    window_s = settings.health_window_s
    windows = sql("delivery_windows", window_s=window_s, window_ms=window_s * 1000, both_s=2 * window_s)
    health = sql(
        "delivery_health",
        window_s=window_s,
        min_impressions=settings.health_min_impressions,
        min_events=settings.health_min_events,
        error_percent=settings.health_error_percent,
        platform_percent=settings.health_platform_percent,
    )
    return Job(NAME, views=(View("delivery_windows", windows),), outputs=(Output("delivery_health", health),))
