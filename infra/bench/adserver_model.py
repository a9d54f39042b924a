"""A click model of 100 trees with 63 leaves over all inputs, registered as the champion the way training does it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from infra.bench import adserver_market as market
from schemas.features import CATEGORICAL_FEATURES, FEATURES_VERSION, model_inputs

MODEL_NAME = "bench-ctr"
_ROWS = 20_000
_TREES, _LEAVES = 100, 63
_TIMEOUT_S = 60.0


def write_model(folder: Path, seed: int) -> None:
    """Trains on made-up rows and writes model.txt and spec.json."""
    import lightgbm  # imports for seconds
    import numpy as np

    rng = np.random.default_rng(seed)
    inputs = list(model_inputs())
    categories = {name: _values(name) for name in CATEGORICAL_FEATURES}
    rows = rng.gamma(1.0, 5.0, (_ROWS, len(inputs)))
    for name, values in categories.items():
        rows[:, inputs.index(name)] = rng.integers(0, max(1, len(values)), _ROWS)
    weights = rng.normal(0.0, 0.3, len(inputs))
    odds = np.tanh(rows / 20) @ weights - 3.0
    clicks = (rng.random(_ROWS) < 1 / (1 + np.exp(-odds))).astype(int)
    data = lightgbm.Dataset(rows, clicks, feature_name=inputs, categorical_feature=list(categories))
    options = {"objective": "binary", "num_leaves": _LEAVES, "min_data_in_leaf": 20, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(options, data, _TREES)
    numbers = {name: float(rng.integers(1, 9)) for name in inputs if name not in categories}
    words = {name: values[0] if values else "none" for name, values in categories.items()}
    row = [numbers[n] if n in numbers else 0.0 if categories[n] else float("nan") for n in inputs]
    spec = {
        "inputs": inputs,
        "categories": categories,
        "calibration": {"kind": "identity"},
        "features_version": FEATURES_VERSION,
        "probe": [{"inputs": numbers | words, "p": float(booster.predict(np.array([row]))[0])}],
    }
    (folder / "model.txt").write_text(booster.model_to_string())
    (folder / "spec.json").write_text(json.dumps(spec))


def _values(name: str) -> list[str]:
    """The values of a category in this market; none of those that are combined from two."""
    known = {
        "creative_id": [f"cr-{i}" for i in range(market.ADS)],
        "campaign_id": [f"cmp-{i}" for i in range(market.CAMPAIGNS)],
        "advertiser_id": [f"adv-{i}" for i in range(market.ADVERTISERS)],
        "placement_id": [f"pl-{i}" for i in range(market.PLACEMENTS)],
        "device_type": ["ctv", "desktop", "phone"],
        "content_category": ["IAB17"],
        "country": ["US"],
        "creative_format": ["video"],
        "platform": ["tvos"],
    }
    return known.get(name, [])


def register(mlflow_url: str, folder: Path) -> None:
    """Makes the model in `folder` the champion. Errors: httpx.HTTPError."""
    with httpx.Client(base_url=mlflow_url, timeout=_TIMEOUT_S) as client:

        def ask(path: str, **data: Any) -> dict[str, Any]:
            answer = client.post(f"/api/2.0/mlflow/{path}", json=data)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

        run = ask("runs/create", experiment_id="0", start_time=0)["run"]["info"]
        place = run["artifact_uri"].removeprefix("mlflow-artifacts:/").strip("/") + "/ctr_model"
        for name in ("model.txt", "spec.json"):
            content = (folder / name).read_bytes()
            client.put(f"/api/2.0/mlflow-artifacts/artifacts/{place}/{name}", content=content).raise_for_status()
        ask("registered-models/create", name=MODEL_NAME)
        source = f"{run['artifact_uri']}/ctr_model"
        made = ask("model-versions/create", name=MODEL_NAME, source=source, run_id=run["run_id"])
        version = made["model_version"]["version"]
        ask("registered-models/alias", name=MODEL_NAME, alias="champion", version=version)
