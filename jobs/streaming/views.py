"""The tables and views that all stream jobs read: events, their one deduplication, the lives of ads, and the clock.

    ad_events -> judged_events -> events -> lives -> deduplicated_events, closed_sessions
                              \\-> rejected_events

Time: row time is publish time (docs/architecture.md "Two clocks").
State: that of the function `ad_lives` (java/AdLives.java), or of `first_copies` (java/FirstCopies.java) in a deployment
without sessions: what was seen, kept for `deduplication_ttl_s`.
Columns: a deployment declares, decodes and carries only the columns that its queries name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import cache

from connectors.flink.tables import Column, columns
from jobs.streaming.job import IDS, IDS_COLUMN, Job, View, named_ids, sql, text_list
from jobs.streaming.settings import Settings
from jobs.transforms.event_rules import PSEUDONYMS
from schemas.campaign_metrics import DIMENSIONS, PACKED_COLUMN
from schemas.events import LATENESS_MS, OLDEST_MS, OPT_OUT, YES

#: The source table; its columns are AdEvent's, then these.
SOURCE = "ad_events"
SOURCE_TIME_COLUMNS = ("`rowtime` AS TO_TIMESTAMP_LTZ(`published_time_ms`, 3)",)
#: Where a record is kept, what it is byte for byte, and the id of its schema.
METADATA_COLUMNS: dict[str, str] = {
    "kafka_partition": "INT METADATA FROM 'partition' VIRTUAL",
    "kafka_offset": "BIGINT METADATA FROM 'offset' VIRTUAL",
    "raw": "BYTES METADATA FROM 'value.raw' VIRTUAL",
    "schema_id": "INT METADATA FROM 'value.schema_id' VIRTUAL",
    PACKED_COLUMN: "BYTES METADATA FROM 'value.packed' VIRTUAL",
    "reasons": "STRING METADATA FROM 'value.reasons' VIRTUAL",
    "opt_out_flag": "STRING METADATA FROM 'value.opt_out_flag' VIRTUAL",
}
#: Metadata columns to what of AdEvent they say in one text.
TEXTS = {"reasons": "quality_reasons", "opt_out_flag": f"consent.{OPT_OUT}"}
CLOCK = "stream_clock"
#: The table of decisions, declared for jobs whose views read it, and what they need of it.
DECISIONS = "ad_decisions"
DECISION_COLUMNS = frozenset(("record_id", "decision_time_ms", "winner_campaign_id", "price_cpm_micros", "currency"))

#: What `judged_events` reads; and deduplication, without and with sessions, beside what the queries name.
_JUDGED = frozenset(
    [
        "record_id",
        "event_type",
        "campaign_id",
        "creative_id",
        "cost_micros",
        "ordinal",
        "event_time_ms",
        "received_time_ms",
        "published_time_ms",
        "reasons",
    ]
)
_OF_DEDUPLICATION = frozenset(("event_id", "published_time_ms"))
_OF_SESSIONS = frozenset(
    [
        PACKED_COLUMN,
        "record_id",
        "user_pseudonym",
        "event_type",
        "event_time_ms",
        "cost_micros",
        "source",
        "watch_percent",
        "creative_length_s",
    ]
)

#: Columns that view `events` adds to AdEvent's, in its order, but for its row time.
_OF_EVENTS = (
    Column("late_raw", "BYTES"),
    Column("marked_invalid", "BOOLEAN"),
    Column("from_data_center", "BOOLEAN"),
    Column("id_bucket", "INT"),
)


def watermark(settings: Settings) -> str:
    """DDL of the source's watermark."""
    return f"WATERMARK FOR `rowtime` AS `rowtime` - INTERVAL '{settings.watermark_delay_ms / 1000:.3f}' SECOND"


def clock_ddl(settings: Settings, *, bounded: bool = False) -> str:
    """CREATE TABLE of the clock: a row a second whose watermark follows the time of day at a distance.

    The distance is what an event may take from publisher to the jobs while the source counts as idle (a quiet night, a
    restart of the TaskManager) without finding that its ad's life was closed before it came.

    It is united with the events so that lives close when traffic stops. Its rows are no events: `tick` is never
    negative, and readers keep only rows with `tick < 0` (a predicate that the planner can't fold away).
    `bounded`: one tick only, for input that ends, which closes all lives itself.
    """
    ticks = "'number-of-rows' = '1'" if bounded else "'rows-per-second' = '1'"
    return f"""CREATE TEMPORARY TABLE `{CLOCK}` (
  `tick` BIGINT,
  `rowtime` AS CAST(CURRENT_TIMESTAMP AS TIMESTAMP_LTZ(3)),
  WATERMARK FOR `rowtime` AS `rowtime` - INTERVAL '{settings.clock_delay_s}' SECOND
) WITH (
  'connector' = 'datagen',
  {ticks},
  'scan.parallelism' = '1',
  'fields.tick.kind' = 'random',
  'fields.tick.min' = '0'
)"""


@cache
def event_columns() -> tuple[Column, ...]:
    """Columns of AdEvent, in its order."""
    return columns("ad_event")


def named(queries: Iterable[str]) -> frozenset[str]:
    """Columns of AdEvent, and metadata columns, that queries name anywhere."""
    words = set(re.findall(r"\w+", "\n".join(queries)))
    return frozenset(words & ({column.name for column in event_columns()} | METADATA_COLUMNS.keys()))


def wanted_columns(jobs: Sequence[Job]) -> frozenset[str]:
    """Columns that the source must give for these jobs."""
    needed = _needed(jobs)
    opt_out = {"opt_out_flag"} if needed.intersection(PSEUDONYMS) else set()
    return (needed - _within_packed(needed)) | _JUDGED | opt_out


def reads_decisions(jobs: Sequence[Job]) -> bool:
    """Whether a view of these jobs needs the table of decisions."""
    return any(re.search(rf"\b{DECISIONS}\b", view.query) for job in jobs for view in job.views)


def metadata_ddl(wanted: Collection[str]) -> tuple[str, ...]:
    """DDL of the metadata columns among `wanted`."""
    return tuple(f"`{name}` {ddl}" for name, ddl in METADATA_COLUMNS.items() if name in wanted)


def views(jobs: Sequence[Job], settings: Settings) -> tuple[View, ...]:
    """The shared views of a deployment of `jobs`, in the order in which they build on each other."""
    carried, sessions = _carried(jobs), _with_sessions(jobs)
    names = ", ".join(_packed_ids(jobs) if column.name == IDS_COLUMN else f"`{column.name}`" for column in carried)
    late_raw = "raw" in wanted_columns(jobs)
    shared = (
        View("judged_events", sql("judged_events", source=SOURCE, oldest_ms=OLDEST_MS)),
        View("rejected_events", "SELECT * FROM judged_events WHERE reject_reason IS NOT NULL"),
        View(
            "events",
            sql(
                "events",
                columns=names,
                late_raw=f"CASE WHEN received_time_ms - event_time_ms > {LATENESS_MS} THEN `raw` END"
                if late_raw
                else "CAST(NULL AS BYTES)",
                bucket=_bucket(jobs, settings),
                only=f"AND event_type IN ({text_list(settings.event_types)})" if settings.event_types else "",
            ),
        ),
    )
    nothing = ", ".join(f"CAST(NULL AS {c.type.removesuffix(' NOT NULL')})" for c in (*carried, *_OF_EVENTS))
    timed = f"SELECT * FROM events\n{sql('clock_rows', nothing=nothing)}"
    remember_ms = settings.deduplication_ttl_s * 1000
    lives = (
        sql(
            "ad_lives",
            buckets=settings.key_buckets,
            gap_ms=settings.session_gap_s * 1000,
            remember_ms=remember_ms,
        )
        if sessions
        else sql("first_copies", buckets=settings.id_buckets, remember_ms=remember_ms)
    )
    first_copies = sql(
        "deduplicated_events",
        columns=",\n  ".join(f"`event`.`{column.name}` AS `{column.name}`" for column in carried),
    )
    return (
        *shared,
        View("timed_events", timed),
        View("lives", lives),
        View("deduplicated_events", first_copies if settings.deduplicate else "SELECT * FROM events"),
    )


def _packed_ids(jobs: Sequence[Job]) -> str:
    """Select item of the ids that are needed, the others null."""
    needed = _needed(jobs)
    texts = (_as_it_may_be_used(name) if name in needed else "CAST(NULL AS STRING)" for name in IDS)
    return f"packed_texts({', '.join(texts)}) AS `{IDS_COLUMN}`"


def _as_it_may_be_used(name: str) -> str:
    """Expression of a column of the source: a pseudonym is null when its user opted out, whatever the sender says."""
    if name not in PSEUDONYMS:
        return f"`{name}`"
    return f"CASE WHEN opt_out_flag IN ({text_list(YES)}) THEN NULL ELSE `{name}` END"


def _bucket(jobs: Sequence[Job], settings: Settings) -> str:
    """In which part of all ads, or without sessions of all events, does deduplication look for copies?"""
    if _with_sessions(jobs):
        return f"life_bucket(event_type, record_id, event_id, {settings.key_buckets})"
    return f"event_bucket(event_id, {settings.id_buckets})"


def _carried(jobs: Sequence[Job]) -> list[Column]:
    """Columns that go on behind view `events`: all but what is only judged there, and what is packed."""
    needed = _needed(jobs)
    alone = needed - _within_packed(needed) - set(IDS)
    packed = [(IDS_COLUMN, not needed.isdisjoint(IDS)), (PACKED_COLUMN, PACKED_COLUMN in needed)]
    return [
        *(column for column in event_columns() if column.name in alone),
        *(Column(name, "BYTES") for name, wanted in packed if wanted),
    ]


def _needed(jobs: Sequence[Job]) -> frozenset[str]:
    """Columns of the source that the queries of jobs, and the views for them, name."""
    queries = [view.query for job in jobs for view in job.views] + [out.query for job in jobs for out in job.outputs]
    ids: set[str] = set().union(*map(named_ids, queries), *(job.ids for job in jobs))
    sessions = _OF_SESSIONS if _with_sessions(jobs) else frozenset()
    return (named(queries) - set(IDS)) | ids | _OF_DEDUPLICATION | sessions


def _within_packed(needed: frozenset[str]) -> frozenset[str]:
    """Dimensions that queries take out of the packed ones."""
    return needed.intersection(DIMENSIONS) if PACKED_COLUMN in needed else frozenset()


def _with_sessions(jobs: Sequence[Job]) -> bool:
    return any("closed_sessions" in output.query for job in jobs for output in job.outputs)
