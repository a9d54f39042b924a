"""The tables and views that all stream jobs read: events, their one deduplication, and the clock.

Time: row time is publish time (docs/architecture.md "Two clocks"); `window_time` is processing time on a stream, and
row time when the input is bounded, where no processing-time window would ever close.
State: one flag per event id, kept for `deduplication_ttl_s`.
"""

from __future__ import annotations

from jobs.streaming.job import View, sql
from jobs.streaming.settings import Settings
from schemas.events import OLDEST_MS

#: The source table; its columns are AdEvent's, then these.
SOURCE = "ad_events"
SOURCE_TIME_COLUMNS = (
    "`rowtime` AS TO_TIMESTAMP_LTZ(`published_time_ms`, 3)",
    "`processed_at` AS PROCTIME()",
)
SOURCE_METADATA_COLUMNS = (
    "`kafka_partition` INT METADATA FROM 'partition' VIRTUAL",
    "`kafka_offset` BIGINT METADATA FROM 'offset' VIRTUAL",
)

CLOCK = "stream_clock"


def watermark(settings: Settings) -> str:
    """DDL of the source's watermark."""
    return f"WATERMARK FOR `rowtime` AS `rowtime` - INTERVAL '{settings.watermark_delay_ms / 1000:.3f}' SECOND"


def clock_ddl(settings: Settings) -> str:
    """CREATE TABLE of the clock: a row a second whose watermark follows the time of day at a distance.

    The distance is what an event may take from publisher to window while the source counts as idle (a quiet night, a
    restart of the TaskManager): were it nothing, whatever comes later than a session's gap would be dropped.

    It is united with the events so that windows close when traffic stops. Its rows never get into a window: `tick` is
    never negative, and readers keep only rows with `tick < 0` (a predicate that the planner can't fold away).
    """
    return f"""CREATE TEMPORARY TABLE `{CLOCK}` (
  `tick` BIGINT,
  `rowtime` AS CAST(CURRENT_TIMESTAMP AS TIMESTAMP_LTZ(3)),
  WATERMARK FOR `rowtime` AS `rowtime` - INTERVAL '{settings.clock_delay_s}' SECOND
) WITH (
  'connector' = 'datagen',
  'rows-per-second' = '1',
  'scan.parallelism' = '1',
  'fields.tick.kind' = 'random',
  'fields.tick.min' = '0'
)"""


def views(*, bounded: bool = False) -> tuple[View, ...]:
    """The shared views in the order in which they build on each other."""
    return (
        View("judged_events", sql("judged_events", source=SOURCE, oldest_ms=OLDEST_MS)),
        View("events", "SELECT * FROM judged_events WHERE reject_reason IS NULL"),
        View("rejected_events", "SELECT * FROM judged_events WHERE reject_reason IS NOT NULL"),
        View(
            "deduplicated_events",
            sql("deduplicated_events", window_time="rowtime" if bounded else "PROCTIME()"),
        ),
    )
