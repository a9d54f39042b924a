"""Settings of the publisher, prefix `HEADWATER_PUBLISHER_`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.redis_layout import REGISTRY_LAG_S


class PublisherSettings(BaseSettings):
    """How a worker reads, looks up and commits."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_PUBLISHER_", frozen=True, extra="forbid")

    worker: int = Field(default=0, ge=0, description="index of this worker: its name in Kafka, stable over restarts")
    group: str = Field(default="publisher", description="consumer group and transactional id's prefix")
    batch_records: int = Field(default=2_000, ge=1, description="most records of one transaction")
    batch_wait_s: float = Field(default=0.03, gt=0, le=1, description="how long a transaction collects records")
    transaction_timeout_ms: int = Field(
        default=10_000, ge=2_000, description="a dead worker's open transaction holds up readers for at most this"
    )
    cached_records: int = Field(default=50_000, ge=0, description="ads whose registry record is kept in memory")
    upstream_record_ttl_s: int = Field(
        default=86_400 + REGISTRY_LAG_S, ge=60, description="how long a click of an upstream log finds its impression"
    )
    hot_key_share: float = Field(
        default=0.01, gt=0, le=1, description="share of the ads from which on a user's ads are spread over several keys"
    )
    hot_key_salts: int = Field(default=16, ge=1, le=1_000, description="keys that a hot key is spread over; 1: never")
    hot_key_window_ads: int = Field(
        default=20_000, ge=100, description="ads over which shares are measured: the latest so many, up to twice that"
    )
    retry_s: float = Field(default=0.5, gt=0, description="pause before something unreachable is asked again")
    metrics_port: int | None = Field(
        default=None, ge=1, le=65_535, description="where /status and /metrics answer, if not at the stack's port"
    )
