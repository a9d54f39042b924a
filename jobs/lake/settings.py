"""Settings of the lake worker, prefix `HEADWATER_LAKE_`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LakeSettings(BaseSettings):
    """How often bronze is committed, and how much is held in memory until then."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_LAKE_", frozen=True, extra="forbid")

    commit_interval_s: float = Field(default=10.0, gt=0, description="a table with new rows is committed this often")
    max_buffered_rows: int = Field(default=20_000, ge=1, description="a table with this many rows is committed at once")
    poll_timeout_s: float = Field(default=0.25, gt=0, description="longest wait for records")
    poll_records: int = Field(default=1_000, ge=1, description="most records decoded between two looks at the clock")
    retry_s: float = Field(default=2.0, gt=0, description="pause before a failed commit or look-up is tried again")
    topic_refresh_s: float = Field(
        default=30.0, gt=0, description="new topics and partitions are looked for this often"
    )
    max_reject_share: float = Field(default=0.5, gt=0, le=1, description="more refused records than this stop the job")
    min_records_to_judge: int = Field(default=1_000, ge=1, description="... once so many of a topic were read")
