"""Settings of training, prefix `HEADWATER_MODELS_`."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ModelSettings(BaseSettings):
    """How the data is split, how trees grow, when a model may be judged at all."""

    model_config = SettingsConfigDict(env_prefix="HEADWATER_MODELS_", frozen=True, extra="forbid")

    seed: int = Field(default=20, description="of everything drawn: the same data and seed give the same model")
    train_share: float = Field(default=0.6, gt=0, lt=1, description="earliest share of the ads: trees")
    validation_share: float = Field(default=0.2, gt=0, lt=1, description="next share: early stop, calibration")
    min_clicks: int = Field(default=10, ge=2, description="fewer clicks in a part of the split: no judgement")
    learning_rate: float = Field(default=0.05, gt=0)
    max_trees: int = Field(default=300, ge=1)
    max_leaves: int = Field(default=15, ge=2)
    early_stop_trees: int = Field(default=30, ge=1, description="trees without gain on validation end the training")
    bootstrap_rounds: int = Field(default=1000, ge=100)
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of the interval that the gate looks at")
