"""Settings of the reporting API, from the environment with the prefix `HEADWATER_REPORTING_`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ReportingSettings(BaseSettings):
    """What may be chosen; the defaults are those of one machine."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_REPORTING_", frozen=True, extra="forbid")

    min_users: int = Field(default=50, ge=1, description="counts of users below this are not shown")
    max_rows: int = Field(default=10_000, ge=1, description="most rows of one page")
    max_days: int = Field(default=400, ge=1, description="longest interval of one report")
    query_timeout_s: float = Field(default=10.0, gt=0, description="a query may take this long")
    freshness_interval_s: float = Field(default=2.0, gt=0, description="how often Druid's progress is looked at")
    behind_ms: int = Field(default=15_000, ge=0, description="Druid counts as behind above this lag")
