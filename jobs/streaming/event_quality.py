"""Which events came too late for the live view, and which break the contract's rules?

In: deduplicated_events (key event_id), rejected_events. Out: ad-events-late-v1 (key record_id), copies of late
events, which are counted in their own minute all the same; ad-events-v1-dlq (key as read), a reason each.
Time: none; late is a property of the event (received after `event time + LATENESS_MS`).
State: that of the deduplication.
Delivery: exactly once. Records that do not decode never get here: see README.md "Poison".
Run: python -m jobs.streaming submit --jobs event_quality
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from jobs.streaming.job import Job, Output, sql
from jobs.streaming.settings import Settings
from schemas.events import LATENESS_MS
from schemas.topics import AD_EVENTS

NAME = "event_quality"


def build(_settings: Settings) -> Job:
    """The job over logical tables."""
    return Job(
        NAME,
        outputs=(
            Output("ad_events_late", sql("late_events", lateness_ms=LATENESS_MS)),
            Output(
                "ad_events_dlq",
                sql("rejected_events", source_topic=AD_EVENTS.name, job_version=_job_version()),
            ),
        ),
    )


def _job_version() -> str:
    try:
        return version("headwater")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return ""
