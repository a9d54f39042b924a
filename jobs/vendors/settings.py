"""Settings of the event handler, prefix `HEADWATER_VENDORS_`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class VendorSettings(BaseSettings):
    """How calls are queued, made, repeated and given up. A partner's own limits are in the partners file."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_VENDORS_", frozen=True, extra="forbid")

    worker: int = Field(default=0, ge=0, description="index of this worker: its name in Kafka, stable over restarts")
    group: str = Field(default="vendors", description="consumer groups' and transactional ids' prefix")
    batch_records: int = Field(default=2_000, ge=1, description="most events that one transaction expands to calls")
    batch_wait_s: float = Field(default=0.1, gt=0, le=1, description="how long a transaction collects events")
    transaction_timeout_ms: int = Field(
        default=10_000, ge=2_000, description="a dead worker's open transaction holds up calls for at most this"
    )
    deduplication_s: int = Field(
        default=172_800, ge=60, description="how long an event that was seen is known: the life of a token and more"
    )
    cached_records: int = Field(default=50_000, ge=0, description="ads whose trackers are kept in memory")
    lane_calls: int = Field(default=500, ge=1, description="calls of one partner and partition in memory")
    memory_calls: int = Field(default=20_000, ge=1, description="calls of all partners in memory")
    first_pause_s: float = Field(default=0.5, gt=0, description="longest pause after a call's first failure")
    longest_pause_s: float = Field(default=60.0, gt=0, description="longest pause between attempts")
    longest_wait_s: float = Field(default=3_600.0, gt=0, description="most that a partner's Retry-After is obeyed for")
    max_age_s: float = Field(
        default=86_400.0, gt=0, description="a call that no partner took for this long becomes a dead letter"
    )
    max_redirects: int = Field(default=3, ge=0, description="redirects that a call follows")
    connect_s: float = Field(default=3.0, gt=0, description="longest wait for a connection")
    commit_s: float = Field(default=1.0, gt=0, description="how often progress is committed to Kafka")
    retry_s: float = Field(default=0.5, gt=0, description="pause before something of ours is asked again")
    drain_s: float = Field(default=10.0, ge=0, description="how long SIGTERM waits for calls on the wire")
    allow_private: bool = Field(default=False, description="call trackers in private networks: for tests, local stacks")
    metrics_port: int | None = Field(
        default=None, ge=1, le=65_535, description="where /status and /metrics answer, if not at the stack's port"
    )
