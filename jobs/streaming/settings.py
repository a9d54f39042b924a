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
        "any latency or restart to be ridden out, because it closes sessions that go on, and windows "
        "leave out what is behind it",
    )
    watermark_delay_ms: int = Field(
        default=2_000, ge=0, description="how much out of order publish times in one partition may be"
    )
    deduplication_ttl_s: int = Field(
        default=86_400, ge=1, description="how long an event id is remembered: the life of a token"
    )
    id_buckets: int = Field(
        default=4_096,
        ge=1,
        description="parts of all event ids in a deployment without sessions, each a key of state; production with "
        "rocksdb, which reads and writes all of a part: a fiftieth of the events within deduplication_ttl_s. A "
        "savepoint fits the same number only",
    )
    key_buckets: int = Field(
        default=65_536,
        ge=1,
        description="parts of all users, ads and other entities of which lives, counters, touches and patterns are "
        "kept, each read, written and copied (hashmap, after a checkpoint) as one; production: a tenth of the "
        "entities, with rocksdb as many. A savepoint fits the same number only",
    )
    deduplicate: bool = Field(
        default=True,
        description="off: repeated events count again; the twin of a deployment that measures the share of duplicates",
    )
    event_types: tuple[str, ...] = Field(default=(), description="read events of these types only; empty: all")
    attribution_click_lookback_s: int = Field(
        default=604_800,
        ge=0,
        description="how long before a conversion a click of an advertiser without own look-backs counts",
    )
    attribution_view_lookback_s: int = Field(
        default=86_400, ge=0, description="the same of an impression; 0: conversions are credited to clicks only"
    )
    attribution_lookbacks_s: dict[str, tuple[int, int]] = Field(
        default={},
        description="advertiser to its click and view look-backs, as JSON: [86400, 0] for a day and none; submit and "
        "run take them from the catalogue unless they are set",
    )
    attribution_touches: int = Field(
        default=50, ge=1, description="clicks, and impressions, remembered per user (or ad) and advertiser"
    )
    attribution_orders: int = Field(
        default=50, ge=1, description="conversions per user and advertiser that wait for a better touch"
    )
    ivt_click_flood_clicks: int = Field(
        default=10, ge=1, description="clicks of a user per window that are no flood yet"
    )
    ivt_click_flood_window_s: int = Field(default=60, ge=1, description="window of click floods, received time")
    ivt_address_users: int = Field(
        default=50, ge=1, description="users behind one address per hour that are not too many yet"
    )
    ivt_data_center_events: int = Field(
        default=5,
        ge=1,
        description="events of an address per hour from data centres, after which its others are invalid too",
    )
    ivt_fastest_percent: int = Field(
        default=80, ge=0, le=100, description="share of its length that an ad takes at least to play to a quartile"
    )
    ivt_clock_tolerance_ms: int = Field(
        default=1_000, ge=0, description="by how much events of an ad may be in the wrong order"
    )
    ivt_pattern_window_s: int = Field(
        default=300, ge=1, description="publish time between the events of an ad that are judged together"
    )
    health_window_s: int = Field(default=60, ge=1, description="publish time over which deliveries are compared")
    health_min_impressions: int = Field(
        default=20, ge=1, description="impressions in a window after which none in the next is an alarm"
    )
    health_min_events: int = Field(
        default=20, ge=1, description="impressions and errors in a window that an alarm about errors needs"
    )
    health_error_percent: int = Field(
        default=20, ge=0, le=99, description="share of errors in impressions and errors above which they are an alarm"
    )
    health_platform_percent: int = Field(
        default=10,
        ge=0,
        le=100,
        description="of the impressions of the window before: with fewer of all campaigns together the platform is "
        "silent, and no campaign alone is to be blamed",
    )
    absolute_interval_ms: int = Field(
        default=150, ge=1, description="how long changes of one absolute value are collected into one message"
    )
    win_open_s: int = Field(
        default=900,
        ge=60,
        description="how long a won impression may take to be shown and still confirm its win; at most a token's life",
    )
    buffer_timeout_ms: int = Field(
        default=25,
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
