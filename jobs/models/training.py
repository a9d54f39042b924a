"""LightGBM on the training set: trees on the earliest part, early stop and Platt calibration on the next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.models.dataset import NUMERIC, Dataset, vocabulary
from jobs.models.logistic import fit_logistic, platt, sigmoid
from jobs.models.settings import ModelSettings
from schemas.counters import COUNTER_BY_NAME
from schemas.features import CATEGORICAL_FEATURES, FEATURES, FEATURES_VERSION, model_inputs

if TYPE_CHECKING:
    import lightgbm

PROBE_ROWS = 20
_MIN_LEAVES, _CLICKS_PER_LEAF = 4, 50
_INPUT_COLUMN = {name: column for column, name in enumerate(model_inputs())}
MODEL_FILE, SPEC_FILE = "model.txt", "spec.json"


@dataclass(frozen=True, slots=True)
class ClickModel:
    """A booster, the codes of its categories, its calibration and its inputs: all that a prediction needs."""

    booster: lightgbm.Booster
    categories: Mapping[str, list[str]]
    a: float
    b: float
    inputs: tuple[str, ...] = model_inputs()

    def predict(self, data: Dataset) -> np.ndarray:
        """Click probabilities, one per ad."""
        columns = [_INPUT_COLUMN[name] for name in self.inputs]
        raw = self.booster.predict(data.encoded(self.categories)[:, columns], raw_score=True)
        return sigmoid(self.a * np.asarray(raw) + self.b)

    @property
    def text(self) -> str:
        """LightGBM's own text form of the best iteration."""
        return self.booster.model_to_string(num_iteration=self.booster.best_iteration or -1)

    def spec(self, probe: Dataset, trained_at_ms: int, entropy: float) -> dict[str, Any]:
        """The sidecar that the ad server needs: inputs, categories, calibration, and rows to check itself with."""
        rows = np.linspace(0, len(probe) - 1, min(PROBE_ROWS, len(probe))).astype(int)
        p = self.predict(probe)
        return {
            "inputs": list(self.inputs),
            "features_version": FEATURES_VERSION,
            "categories": {name: list(values) for name, values in self.categories.items()},
            "calibration": {"kind": "platt", "a": self.a, "b": self.b},
            "probe": [{"inputs": probe.inputs_of(row), "p": float(p[row])} for row in rows],
            "trained_at_ms": trained_at_ms,
            "normalised_entropy": entropy,
        }


def load_model(text: str, spec: bytes) -> ClickModel:
    """The model of its two files, also one that was trained before features were added.

    Errors: ValueError, KeyError when they are not such files.
    """
    import lightgbm

    found = json.loads(spec)
    calibration = found["calibration"]
    return ClickModel(
        lightgbm.Booster(model_str=text),
        found["categories"],
        calibration.get("a", 1.0) if calibration["kind"] == "platt" else 1.0,
        calibration.get("b", 0.0) if calibration["kind"] == "platt" else 0.0,
        tuple(found["inputs"]),
    )


def parameters(settings: ModelSettings, data: Dataset) -> dict[str, Any]:
    """LightGBM's parameters for an amount of data.

    Few clicks carry few leaves: a tree gets one per fifty clicks, and a leaf holds a hundredth of the ads. A higher
    click rate in the past never lowers the prediction: knowing that saves the clicks it would take to learn it.
    """
    smallest = max(20, len(data) // 100)
    leaves = min(settings.max_leaves, max(_MIN_LEAVES, int(data.clicked.sum()) // _CLICKS_PER_LEAF))
    rates = {f.name for f in FEATURES if f.denominator and COUNTER_BY_NAME[f.numerator].event_types == ("click",)}
    return {
        "objective": "binary",
        "learning_rate": settings.learning_rate,
        "num_leaves": leaves,
        "min_data_in_leaf": smallest,
        "min_data_per_group": smallest,
        "cat_smooth": 20.0,
        "lambda_l2": 5.0,
        "feature_fraction": 0.8,
        "monotone_constraints": [int(name in rates) for name in model_inputs()],
        "seed": settings.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }


def train(data: Dataset, validation: Dataset, settings: ModelSettings) -> ClickModel:
    """A calibrated model. The same data and settings give the same model, byte for byte."""
    import lightgbm

    codes = vocabulary(data)
    names = list(model_inputs())
    shared: dict[str, Any] = {
        "feature_name": names,
        "categorical_feature": list(CATEGORICAL_FEATURES),
        "free_raw_data": False,
    }
    fitted = lightgbm.Dataset(data.encoded(codes), data.clicked, **shared)
    watched = lightgbm.Dataset(validation.encoded(codes), validation.clicked, reference=fitted, **shared)
    booster = lightgbm.train(
        parameters(settings, data),
        fitted,
        settings.max_trees,
        valid_sets=[watched],
        callbacks=[lightgbm.early_stopping(settings.early_stop_trees, verbose=False)],
    )
    # Read back from its text, so that what is judged here is, bit for bit, what is served.
    served = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=booster.best_iteration))
    raw = np.asarray(served.predict(validation.encoded(codes), raw_score=True))
    a, b = platt(raw, validation.clicked)
    return ClickModel(served, codes, a, b)


def linear_reference(data: Dataset, tail: Dataset) -> np.ndarray:
    """Predictions of a ridge logistic regression on the same inputs: what trees must be worth their cost against."""
    codes = vocabulary(data)
    shift = np.log1p(data.numeric).mean(axis=0)
    scale = np.log1p(data.numeric).std(axis=0) + 1e-9
    weights = fit_logistic(_linear_inputs(data, codes, shift, scale), data.clicked, l2=5.0)
    return sigmoid(_linear_inputs(tail, codes, shift, scale) @ weights)


def _linear_inputs(data: Dataset, codes: Mapping[str, list[str]], shift: np.ndarray, scale: np.ndarray) -> np.ndarray:
    columns = [(np.log1p(data.numeric) - shift) / scale]
    encoded = data.encoded(codes)
    for position, name in enumerate(CATEGORICAL_FEATURES):
        code = encoded[:, len(NUMERIC) + position]
        columns.append((code[:, None] == np.arange(len(codes[name]))).astype(np.float64))
    return np.hstack([*columns, np.ones((len(data), 1))])
