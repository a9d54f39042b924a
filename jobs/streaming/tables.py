"""The logical tables that queries write, and the topics behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from connectors.flink.tables import (
    Cluster,
    Column,
    ExactlyOnce,
    campaign_metrics_columns,
    columns,
    exactly_once_sink_ddl,
    json_sink_ddl,
    upsert_sink_ddl,
)
from jobs.streaming.job import Output
from jobs.streaming.settings import Settings
from schemas.topics import (
    AD_EVENTS_DLQ,
    AD_EVENTS_LATE,
    AD_SESSIONS,
    CAMPAIGN_METRICS,
    CAMPAIGN_SPEND,
    FREQUENCY_COUNTS,
    STREAMING_FEATURES,
    Topic,
)


@dataclass(frozen=True, slots=True)
class Sink:
    """A logical table that one job writes. `key` is the column that becomes the Kafka key, if any."""

    table: str
    topic: Topic
    kind: Literal["exactly_once", "upsert", "json"]
    key: str | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, the key of an upsert first."""
        if self.topic.schema is None:
            return campaign_metrics_columns()
        row = columns(self.topic.schema)
        return (Column(str(self.key), "STRING NOT NULL"), *row) if self.kind == "upsert" else row

    def ddl(self, job: str, cluster: Cluster, settings: Settings) -> str:
        """CREATE TABLE for `job`, whose name makes the transactional ids unique."""
        how = ExactlyOnce(f"{job}-{self.table}", settings.transaction_timeout_ms)
        if self.kind == "json":
            return json_sink_ddl(self.table, self.topic, cluster, how, self.columns)
        assert self.key is not None
        if self.kind == "upsert":
            return upsert_sink_ddl(self.table, self.topic, cluster, key=self.key)
        return exactly_once_sink_ddl(self.table, self.topic, cluster, how, key=self.key)


SINKS: dict[str, Sink] = {
    sink.table: sink
    for sink in (
        Sink("ad_events_late", AD_EVENTS_LATE, "exactly_once", "record_id"),
        Sink("ad_events_dlq", AD_EVENTS_DLQ, "exactly_once", "key"),
        Sink("ad_sessions", AD_SESSIONS, "exactly_once", "record_id"),
        Sink("session_metrics", CAMPAIGN_METRICS, "json"),  # a second writer of the topic needs its own transactions
        Sink("campaign_metrics", CAMPAIGN_METRICS, "json"),
        Sink("frequency_counts", FREQUENCY_COUNTS, "upsert", "counter_key"),
        Sink("streaming_features", STREAMING_FEATURES, "upsert", "counter_key"),
        Sink("campaign_spend", CAMPAIGN_SPEND, "upsert", "spend_key"),
    )
}


def select_statement(output: Output) -> str:
    """SELECT of an output's rows with its table's columns in order; what else the query has is dropped."""
    names = ", ".join(f"`{column.name}`" for column in SINKS[output.table].columns)
    return f"SELECT {names}\nFROM (\n{output.query}\n)"


def insert_statement(output: Output) -> str:
    """INSERT of an output's rows into its table."""
    return f"INSERT INTO `{output.table}`\n{select_statement(output)}"
