"""Settings of the streaming application. Each can be set from the environment with prefix `HEADWATER_STREAMING_`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """How the stream jobs run. The defaults suit one machine; the values for production stand beside them."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_STREAMING_", frozen=True, extra="forbid")

    parallelism: int = Field(
        default=1, ge=1, description="subtasks of each operator; production: partitions of a topic"
    )
    checkpoint_interval_ms: int = Field(
        default=2_000,
        ge=200,
        description="how often exactly-once sinks commit: the freshness of Druid and sessions; production: 10,000",
    )
    session_gap_s: int = Field(
        default=15,
        ge=1,
        description="publish time without an event that ends an ad's session; production: 1,800",
    )
    source_idle_s: int = Field(
        default=45,
        ge=1,
        description="silence after which a partition stops holding back the watermark; longer than any outage of Kafka "
        "that is to be ridden out, because sessions that the clock closed meanwhile stay closed",
    )
    clock_delay_s: int = Field(
        default=45,
        ge=1,
        le=99,
        description="how far the clock, which closes sessions when traffic stops, follows the time of day: longer than "
        "any latency or restart to be ridden out, because events behind it are dropped from sessions",
    )
    watermark_delay_ms: int = Field(
        default=2_000, ge=0, description="how much out of order publish times in one partition may be"
    )
    deduplication_ttl_s: int = Field(
        default=86_400, ge=1, description="how long an event id is remembered: the life of a token"
    )
    metrics_window_ms: int = Field(default=1_000, ge=100, description="processing time that one row for Druid sums up")
    buffer_timeout_ms: int = Field(
        default=5,
        ge=0,
        description="longest wait of a record between operators; production: 50, for throughput",
    )
    transaction_timeout_ms: int = Field(
        default=900_000,
        ge=60_000,
        description="longest outage after which a checkpointed transaction is still committed; at most the broker's "
        "transaction.max.timeout.ms",
    )
    state_backend: str = Field(default="hashmap", pattern="^(hashmap|rocksdb)$", description="production: rocksdb")
