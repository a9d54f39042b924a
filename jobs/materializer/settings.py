"""Settings of the materializer, prefix `HEADWATER_MATERIALIZER_`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class MaterializerSettings(BaseSettings):
    """How a worker reads and writes."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_MATERIALIZER_", frozen=True, extra="forbid")

    group: str = Field(default="materializer", description="consumer group")
    batch_records: int = Field(
        default=10_000, ge=1, description="most records of one pipeline, each of which waits for the disk once"
    )
    batch_wait_s: float = Field(default=0.02, gt=0, le=1, description="how long a pipeline collects records")
    check_marker_s: float = Field(
        default=1.0, gt=0, description="how often Valkey is asked, without traffic, whether it still has everything"
    )
    prune_every_s: float = Field(default=3_600.0, gt=0, description="a hash that is written to is pruned this often")
    prune_keys: int = Field(default=20, ge=0, description="most hashes that are pruned after one pipeline")
    retry_s: float = Field(default=0.2, gt=0, description="pause before something unreachable is asked again")
