"""The logical tables that queries write, and the topics behind them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from connectors.flink.tables import (
    COUNTED_COLUMN,
    PACKED_DIMENSIONS,
    Additive,
    Cluster,
    Column,
    ExactlyOnce,
    absolute_sink_ddl,
    additive_sink_ddl,
    avro_sink_ddl,
    campaign_metrics_columns,
    columns,
    raw_sink_ddl,
)
from jobs.streaming.counters import COUNTERS_KAFKA, counted_columns, declared, kept_s
from jobs.streaming.job import Output
from jobs.streaming.settings import Settings
from schemas.campaign_metrics import (
    ATTRIBUTION_SUMS,
    COUNTED,
    INVALID_TRAFFIC_SUMS,
    MAXIMA,
    OTHER_EVENT_SUMS,
    PACKED_COLUMN,
    REACH_COLUMN,
    SESSION_SUMS,
)
from schemas.counters import FEATURE_COUNTERS, FREQUENCY_COUNTERS, Counter
from schemas.topics import (
    AD_EVENTS_DLQ,
    AD_EVENTS_LATE,
    AD_SESSIONS,
    ATTRIBUTIONS,
    CAMPAIGN_METRICS,
    CAMPAIGN_SPEND,
    DELIVERY_HEALTH,
    FREQUENCY_COUNTS,
    INVALID_TRAFFIC,
    STREAMING_FEATURES,
    Topic,
)


@dataclass(frozen=True, slots=True)
class Sink:
    """A logical table that one job writes. `key` is the column that becomes the Kafka key, if any.

    `exactly_once`: Avro in transactions. `raw`: bytes as they were read, in transactions. `absolute`: absolute
    values, the latest of a key counts. `counted`: the same, counted by the table of the events that it is given.
    `additive`: JSON deltas in transactions, added up before they are written.
    """

    table: str
    topic: Topic
    kind: Literal["exactly_once", "raw", "absolute", "counted", "additive"]
    key: str | None = None
    #: Of an additive table: the deltas that the job gives. Tables `of_events` have maxima, users and types counted too.
    sums: tuple[str, ...] = ()
    of_events: bool = False
    #: Of an additive table: the dimensions are one column.
    packed: bool = False
    #: Of an absolute table: what the query gives first, the key among it, and columns that are not written too. To put
    #: a row's columns in another order Flink would copy every text of it.
    first: tuple[Column, ...] = ()
    #: Of a counted table.
    counters: tuple[Counter, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns."""
        if self.kind == "additive":
            maxima = MAXIMA if self.of_events else ()
            return campaign_metrics_columns(self.sums, maxima, counted=self.of_events, packed=self.packed)
        if self.kind == "raw":
            return (Column(str(self.key), "STRING"), Column("raw", "BYTES"))
        if self.kind == "counted":
            return counted_columns()
        assert self.topic.schema is not None
        before = {column.name for column in self.first}
        return (*self.first, *(column for column in columns(self.topic.schema) if column.name not in before))

    def beside(self, suffix: str) -> Sink:
        """The same table over a topic of its own: `suffix` is added to the topic's name."""
        return replace(self, topic=replace(self.topic, name=self.topic.name + suffix)) if suffix else self

    def ddl(self, job: str, cluster: Cluster, settings: Settings) -> str:
        """CREATE TABLE for `job`, whose name makes the transactional ids unique."""
        how = ExactlyOnce(f"{job}-{self.table}", settings.transaction_timeout_ms)
        if self.kind == "additive":
            additive = Additive(self.sums)
            if self.of_events:
                additive = Additive(self.sums, MAXIMA, (REACH_COLUMN,), COUNTED_COLUMN, COUNTED)
            if self.packed:
                additive = replace(additive, packed_column=PACKED_COLUMN, packed=PACKED_DIMENSIONS)
            return additive_sink_ddl(self.table, self.topic, cluster, how, additive, self.columns)
        assert self.key is not None
        if self.kind == "raw":
            return raw_sink_ddl(self.table, self.topic, cluster, how, key=self.key)
        interval_ms = settings.absolute_interval_ms
        if self.kind == "absolute":
            return absolute_sink_ddl(
                self.table, self.topic, cluster, self.columns, interval_ms=interval_ms, own={"key": self.key}
            )
        if self.kind == "counted":
            counting = {
                "declaration": declared(self.counters),
                "kept.s": str(kept_s(self.counters)),
                "buckets": str(settings.key_buckets),
                "gather.ms": str(max(interval_ms // _GATHERED_OF_INTERVAL, 1)),
            }
            return absolute_sink_ddl(
                self.table,
                self.topic,
                cluster,
                self.columns,
                interval_ms=interval_ms,
                connector=COUNTERS_KAFKA,
                own=counting,
            )
        return avro_sink_ddl(self.table, self.topic, cluster, how, key=self.key)


#: What events add is gathered for this part of the interval at which values are written.
_GATHERED_OF_INTERVAL = 3

_FIRST_OF_SPEND = (Column("campaign_id", "STRING NOT NULL"), Column("spend_key", "STRING NOT NULL"))

SINKS: dict[str, Sink] = {
    sink.table: sink
    for sink in (
        Sink("ad_events_late", AD_EVENTS_LATE, "raw", "record_id"),
        Sink("ad_events_dlq", AD_EVENTS_DLQ, "exactly_once", "key"),
        Sink("ad_sessions", AD_SESSIONS, "exactly_once", "record_id"),
        # a second writer of the topic needs its own transactions
        Sink("session_metrics", CAMPAIGN_METRICS, "additive", sums=SESSION_SUMS, packed=True),
        Sink("campaign_metrics", CAMPAIGN_METRICS, "additive", sums=OTHER_EVENT_SUMS, of_events=True, packed=True),
        Sink("frequency_counts", FREQUENCY_COUNTS, "counted", "counter_key", counters=FREQUENCY_COUNTERS),
        Sink("streaming_features", STREAMING_FEATURES, "counted", "counter_key", counters=FEATURE_COUNTERS),
        Sink("campaign_spend", CAMPAIGN_SPEND, "absolute", "spend_key", first=_FIRST_OF_SPEND),
        Sink("attributions", ATTRIBUTIONS, "exactly_once", "order_id"),
        Sink("attribution_metrics", CAMPAIGN_METRICS, "additive", sums=ATTRIBUTION_SUMS),
        Sink("invalid_traffic", INVALID_TRAFFIC, "exactly_once", "record_id"),
        Sink("invalid_metrics", CAMPAIGN_METRICS, "additive", sums=INVALID_TRAFFIC_SUMS, packed=True),
        Sink("delivery_health", DELIVERY_HEALTH, "exactly_once", "campaign_id"),
    )
}


def select_statement(output: Output) -> str:
    """SELECT of an output's rows with its table's columns in order; what else the query has is dropped."""
    names = ", ".join(f"`{column.name}`" for column in SINKS[output.table].columns)
    return f"SELECT {names}\nFROM (\n{output.query}\n)"


def insert_statement(output: Output) -> str:
    """INSERT of an output's rows into its table."""
    return f"INSERT INTO `{output.table}`\n{select_statement(output)}"
