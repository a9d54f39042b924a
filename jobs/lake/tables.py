"""The bronze tables: one per topic, the decoded columns of its contract plus where and when each row was read.

A row's hour is that of its event time, so that an hour's rows lie together whenever they arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import pyarrow as pa

from connectors.delta import arrow_schema
from schemas import topics
from schemas.topics import Topic

HOUR_COLUMN = "event_hour"

#: Where a row came from, on every bronze table. (kafka_partition, kafka_offset) is unique within a table.
SOURCE_FIELDS: tuple[pa.Field, ...] = (
    pa.field("kafka_partition", pa.int32()),
    pa.field("kafka_offset", pa.int64()),
    pa.field("kafka_time_ms", pa.int64()),
    pa.field("ingest_time_ms", pa.int64()),
    pa.field(HOUR_COLUMN, pa.string()),
)

#: Bronze is immutable: Delta itself refuses deletes and updates.
CONFIGURATION: dict[str, str] = {"delta.appendOnly": "true", "delta.checkpointInterval": "50"}

_HOUR_MS = 3_600_000
_LATEST_MS = 4_102_444_800_000  # the year 2100: beyond it an hour is no partition but rubbish


@dataclass(frozen=True, slots=True)
class BronzeTable:
    """One topic's table. `time_column` is the contract's event time, epoch ms UTC."""

    name: str
    topic: Topic
    time_column: str

    @property
    def path(self) -> str:
        """Name within the lake."""
        return f"bronze/{self.name}"

    @property
    def schema_name(self) -> str:
        assert self.topic.schema is not None
        return self.topic.schema

    def arrow_schema(self) -> pa.Schema:
        fields = list(arrow_schema(self.schema_name))
        return pa.schema([*fields, *SOURCE_FIELDS])

    def app_id(self, partition: int) -> str:
        """Delta's transaction id under which a partition's next offset is kept."""
        return f"lake:{self.topic.name}:{partition}"

    @property
    def dead_letter_topic(self) -> str:
        """Where refused records go; topics that only the platform writes share that of the events."""
        return self.topic.dead_letter or topics.AD_EVENTS_DLQ.name


BRONZE: tuple[BronzeTable, ...] = (
    BronzeTable("ad_events", topics.AD_EVENTS, "event_time_ms"),
    BronzeTable("ad_decisions", topics.AD_DECISIONS, "decision_time_ms"),
    BronzeTable("ad_conversions", topics.AD_CONVERSIONS, "event_time_ms"),
    BronzeTable("ad_sessions", topics.AD_SESSIONS, "first_event_time_ms"),
    BronzeTable("ad_events_late", topics.AD_EVENTS_LATE, "event_time_ms"),
)


def event_hour(time_ms: int) -> str | None:
    """The UTC hour's partition name, which sorts by time; None for a time that can't be one.

    Example:
        >>> event_hour(0), event_hour(1_700_000_000_000), event_hour(-1)
        ('1970-01-01-00', '2023-11-14-22', None)
    """
    if not 0 <= time_ms < _LATEST_MS:
        return None
    return _hour_name(time_ms // _HOUR_MS)


@lru_cache(maxsize=1024)
def _hour_name(hour: int) -> str:
    return datetime.fromtimestamp(hour * _HOUR_MS // 1000, UTC).strftime("%Y-%m-%d-%H")
