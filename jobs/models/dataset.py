"""gold/training_set as arrays, split forward in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from connectors.delta import sql, table
from schemas.errors import Refused
from schemas.features import CATEGORICAL_FEATURES, CONTEXT_FEATURES, FEATURES, model_inputs

NUMERIC: tuple[str, ...] = tuple(f.name for f in FEATURES) + CONTEXT_FEATURES
TRAINING_SET = "gold/training_set"

#: Sums behind the rates that the ad server uses while there is no model (serving/adserver: SmoothedRates).
_CLICKS, _IMPRESSIONS = "creative_clicks_hour_86400", "creative_impressions_hour_86400"
BASELINE_PRIOR_IMPRESSIONS = 100.0


@dataclass(frozen=True, slots=True)
class Dataset:
    """Ads in the order in which they were decided.

    Shape: `numeric` float64 (rows, NUMERIC); `categories` by name, object arrays with None; `clicked` 0.0 or 1.0.
    """

    decision_time_ms: np.ndarray
    numeric: np.ndarray
    categories: Mapping[str, np.ndarray]
    clicked: np.ndarray
    baseline: np.ndarray

    def __len__(self) -> int:
        return len(self.clicked)

    def part(self, rows: slice) -> Dataset:
        return Dataset(
            self.decision_time_ms[rows],
            self.numeric[rows],
            {name: values[rows] for name, values in self.categories.items()},
            self.clicked[rows],
            self.baseline[rows],
        )

    def encoded(self, codes: Mapping[str, Sequence[str]]) -> np.ndarray:
        """Model inputs in the order of `schemas.features.model_inputs()`; a value without a code is NaN."""
        columns = [self.numeric]
        for name in CATEGORICAL_FEATURES:
            code = {value: float(i) for i, value in enumerate(codes[name])}
            columns.append(np.array([[code.get(v, np.nan)] for v in self.categories[name]]).reshape(-1, 1))
        return np.hstack(columns)

    def inputs_of(self, row: int) -> dict[str, Any]:
        """One row as `{input: value}`, as a reader of the model's spec gives it."""
        values: dict[str, Any] = dict(zip(NUMERIC, (float(v) for v in self.numeric[row]), strict=True))
        values |= {name: self.categories[name][row] for name in CATEGORICAL_FEATURES}
        return {name: values[name] for name in model_inputs()}


def load(lake_uri: str | None = None) -> tuple[Dataset, int]:
    """The training set and its version. Errors: Refused when it is not there or empty."""
    handle = table(TRAINING_SET, lake_uri)
    rows = sql("SELECT * FROM ads ORDER BY decision_time_ms, record_id", ads=handle)
    if not rows.num_rows:
        raise Refused(f"{TRAINING_SET} is empty: no ad was shown yet")
    return from_arrow(rows), handle.version()


def from_arrow(rows: pa.Table) -> Dataset:
    """Shape: a table with the columns of gold/training_set, in decision order."""

    def numbers(name: str) -> np.ndarray:
        return rows.column(name).to_numpy().astype(np.float64)

    numeric = np.column_stack([numbers(name) for name in NUMERIC])
    campaign_rate = numeric[:, NUMERIC.index("campaign_ctr_24h")]
    baseline = (numbers(_CLICKS) + BASELINE_PRIOR_IMPRESSIONS * campaign_rate) / (
        numbers(_IMPRESSIONS) + BASELINE_PRIOR_IMPRESSIONS
    )
    return Dataset(
        rows.column("decision_time_ms").to_numpy(),
        numeric,
        {n: np.array(rows.column(n).to_pylist(), dtype=object) for n in CATEGORICAL_FEATURES},
        numbers("clicked"),
        np.clip(baseline, 1e-6, 1 - 1e-6),
    )


def split(data: Dataset, train_share: float, validation_share: float) -> tuple[Dataset, Dataset, Dataset]:
    """(train, validation, held-out tail), forward in time: no part has an ad decided before one of an earlier part.

    Ads of one millisecond stay together, so that equal times never lie on both sides.
    """
    first = _boundary(data.decision_time_ms, train_share)
    second = max(first, _boundary(data.decision_time_ms, train_share + validation_share))
    return data.part(slice(0, first)), data.part(slice(first, second)), data.part(slice(second, None))


def _boundary(times_ms: np.ndarray, share: float) -> int:
    wanted = min(int(len(times_ms) * share), len(times_ms) - 1)
    return int(np.searchsorted(times_ms, times_ms[wanted], side="left"))


def vocabulary(data: Dataset) -> dict[str, list[str]]:
    """Values of each category in code order: sorted, so that the same data gives the same codes."""
    return {name: sorted({v for v in data.categories[name] if v}) for name in CATEGORICAL_FEATURES}
