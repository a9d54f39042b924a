"""Settings of the batch chain, prefix `HEADWATER_BATCH_`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BatchSettings(BaseSettings):
    """Limits of the gates, and how far duplicates are looked for."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_BATCH_", frozen=True, extra="forbid")

    max_quarantine_share: float = Field(default=0.05, ge=0, le=1, description="a batch with more refused rows fails")
    copies_within_h: int = Field(
        default=168,
        ge=1,
        description="copies of an event lie at most this far apart: as far as an event may be late, which is longer "
        "than the stream remembers",
    )
    seed: int = Field(default=20, description="of everything drawn; kept in the lineage")
