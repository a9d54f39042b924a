"""Settings of the collector, prefix `HEADWATER_COLLECTOR_`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CollectorSettings(BaseSettings):
    """What is taken at once, how much is buffered, how long a batch waits for the broker."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_COLLECTOR_", frozen=True, extra="forbid")

    body_bytes: int = Field(default=2 * 1_048_576, ge=1_024, description="a larger body is answered 413")
    batch_items: int = Field(default=1_000, ge=1, description="most items of a telemetry or conversion batch")
    batch_lines: int = Field(default=20_000, ge=1, description="most lines of an upstream log per request")
    buffer_messages: int = Field(default=200_000, ge=1, description="records held while the broker is away")
    buffer_kbytes: int = Field(default=65_536, ge=1_024, description="the same in memory")
    delivery_timeout_s: int = Field(
        default=600, ge=120, description="how long a record is tried before it is given up and counted as lost"
    )
    ack_wait_s: float = Field(
        default=3.0, gt=0, description="a batch that the broker has not acknowledged by then is answered 202"
    )
    data_center_networks: Path | None = Field(
        default=None, description="file of networks, one CIDR a line, whose events are marked as invalid traffic"
    )
    forwarded_hops: int = Field(
        default=0, ge=0, description="our proxies in front of the collector: the address is taken from X-Forwarded-For"
    )
    retry_after_s: int = Field(default=5, ge=1, description="what a batch is told when the buffer is full")
    drain_s: float = Field(default=30.0, gt=0, description="at SIGTERM: how long buffered records are still sent")
