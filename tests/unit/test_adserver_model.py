"""A champion is taken only if it is the model that was trained, and scores what LightGBM's own package scores."""

from __future__ import annotations

import json
from typing import Any

import lightgbm
import numpy as np
import pytest

from schemas.errors import ContractError
from schemas.features import (
    CATEGORICAL_FEATURES,
    CONTEXT_FEATURES,
    FEATURES,
    FEATURES_VERSION,
    category_value,
    model_inputs,
)
from serving.adserver.features.columns import COLUMNS
from serving.adserver.features.inputs import InputPool, Inputs
from serving.adserver.features.reader import Asked
from serving.adserver.inventory import Inventory
from serving.adserver.scoring.model import ChampionModel, SmoothedRates
from tests.samples.adserver import catalog

ADS = [{"id": f"{n:02d}", "pricing": "cpm", "bid_micros": 1_000_000} for n in range(30)]
INVENTORY = Inventory(catalog(ADS))
INPUTS = list(model_inputs())
NUMERIC_COUNT = len(INPUTS) - len(CATEGORICAL_FEATURES)
CATEGORIES = {
    "creative_id": [f"cr-{n:02d}" for n in range(20)],  # ten of the thirty creatives are new to the model
    "campaign_id": [f"cmp-{n:02d}" for n in range(20)],
    "placement_id": ["pl-video", "pl-banner"],
    "content_category": ["IAB17", "IAB19"],
    "device_type": ["ctv", "phone"],
    "country": ["US", "DE"],
    "advertiser_id": [f"adv-{n:02d}" for n in range(25)],
    "creative_format": ["banner", "video"],
    "publisher_id": ["pub-1"],
    "platform": ["android", "ios", "tvos"],
    "region": ["US-CA"],
    "device_and_format": ["ctv/video", "phone/banner", "phone/video"],
    "placement_and_format": ["pl-banner/banner", "pl-video/video"],
}
ASKED = Asked("pl-video", "IAB17", False, "phone", "FR", "pub-1", "ios", None)
A, B = 0.9, -0.2
ADDED_AFTER_VERSION_1 = {f.name for f in FEATURES[9:]} | {*CONTEXT_FEATURES[1:], *CATEGORICAL_FEATURES[6:]}


def _inputs(numeric: np.ndarray, own: np.ndarray | None = None) -> Inputs:
    """Borrowed inputs of candidates, by default of all ads. Shape: `numeric` a row per candidate."""
    inputs = InputPool(NUMERIC_COUNT).lease(INVENTORY, np.arange(len(numeric)) if own is None else own)
    inputs.values[:, : len(numeric)] = numeric.T
    return inputs


def _values(numeric: np.ndarray, row: int) -> dict[str, Any]:
    """A candidate's inputs by name, of what is the same for all candidates the first one's."""
    ad = INVENTORY.rows[row]
    columns = ASKED.columns() | {
        "creative_id": ad.creative.id,
        "campaign_id": ad.campaign.id,
        "advertiser_id": ad.advertiser.id,
        "creative_format": ad.creative.format,
    }
    return dict(zip(INPUTS, numeric, strict=False)) | {n: category_value(n, columns) for n in CATEGORICAL_FEATURES}


def _drawn(seed: int, candidates: int = 30) -> np.ndarray:
    """Numeric inputs of candidates, as a reader gives them: what the request says is the same for all."""
    numeric = np.random.default_rng(seed).random((candidates, NUMERIC_COUNT))
    shared = [COLUMNS.row[name] for name in COLUMNS.shared]
    numeric[:, shared] = numeric[0, shared]
    return numeric


@pytest.fixture(scope="module")
def trained() -> tuple[lightgbm.Booster, str]:
    rng = np.random.default_rng(7)
    rows = 3000
    numeric = rng.random((rows, NUMERIC_COUNT))
    codes = np.column_stack([rng.integers(-1, len(CATEGORIES[n]), rows) for n in CATEGORICAL_FEATURES]).astype(float)
    codes[codes < 0] = np.nan
    odds = 3 * numeric[:, 0] - 2 + np.nan_to_num(codes[:, 0]) % 3
    data = lightgbm.Dataset(
        np.hstack([numeric, codes]),
        (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(int),
        feature_name=INPUTS,
        categorical_feature=list(CATEGORICAL_FEATURES),
    )
    parameters = {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1, "seed": 1}
    booster = lightgbm.train(parameters, data, num_boost_round=30)
    return booster, booster.model_to_string()


def _encoded(values: dict[str, Any]) -> list[float]:
    def code(name: str) -> float:
        known = CATEGORIES[name]
        return float(known.index(values[name])) if values[name] in known else np.nan

    return [code(n) if n in CATEGORIES else float(values[n]) for n in INPUTS]


def _probability(booster: lightgbm.Booster, values: dict[str, Any]) -> float:
    raw = booster.predict(np.array([_encoded(values)]), raw_score=True)[0]
    return float(1 / (1 + np.exp(-(A * raw + B))))


def _spec(booster: lightgbm.Booster, **changes: Any) -> bytes:
    probe = []
    for n in range(20):
        values = _values(np.full(NUMERIC_COUNT, 0.05 * n), n)
        probe.append({"inputs": values, "p": _probability(booster, values)})
    spec = {
        "inputs": INPUTS,
        "categories": CATEGORIES,
        "calibration": {"kind": "platt", "a": A, "b": B},
        "probe": probe,
        "trained_at_ms": 1,
        "normalised_entropy": 0.8,
        "added_by_a_newer_trainer": {},
    }
    return json.dumps(spec | changes).encode()


def test_scores_equal_the_native_model_for_known_and_unknown_categories(
    trained: tuple[lightgbm.Booster, str],
) -> None:
    booster, text = trained
    model = ChampionModel("ctr-v1", text, _spec(booster))
    assert model.packed
    numeric = _drawn(3)
    scores = model.p_ctr(_inputs(numeric), ASKED)
    for row, score in enumerate(scores):
        assert score == pytest.approx(_probability(booster, _values(numeric[row], row)), abs=1e-12)
    few = model.p_ctr(_inputs(numeric[4:6], np.array([4, 5])), ASKED)
    assert np.array_equal(few, scores[4:6])
    many = np.tile(numeric, (10, 1))  # more than an array of the pool holds
    assert np.array_equal(model.p_ctr(_inputs(many, np.tile(np.arange(30), 10)), ASKED), np.tile(scores, 10))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inputs": INPUTS[::-1]}, "probe rows differ"),
        ({"inputs": INPUTS[:-1]}, f"{len(INPUTS)} inputs, its spec names {len(INPUTS) - 1}"),
        ({"inputs": [*INPUTS[:-1], "shoe_size"]}, "inputs are"),
        ({"inputs": [*INPUTS[:-1], INPUTS[0]]}, "inputs are"),
        ({"features_version": FEATURES_VERSION + 1}, "inputs are"),
        ({"calibration": {"kind": "isotonic"}}, "calibration"),
        ({"calibration": {"kind": "platt", "a": A, "b": B + 0.001}}, "probe rows differ"),
        ({"categories": CATEGORIES | {"creative_id": CATEGORIES["creative_id"][::-1]}}, "probe rows differ"),
        ({"probe": []}, "no probe rows"),
        ({"probe": [{"inputs": {INPUTS[0]: "much"}, "p": 0.1}]}, "wrong type"),
        ({"probe": [{"inputs": {"country": ["US"]}, "p": 0.1}]}, "wrong type"),
        ({"probe": "x"}, "spec.json"),
    ],
)
def test_a_model_that_is_not_the_one_trained_is_refused(
    trained: tuple[lightgbm.Booster, str], changes: dict[str, Any], reason: str
) -> None:
    booster, text = trained
    with pytest.raises(ContractError, match=reason):
        ChampionModel("ctr-v1", text, _spec(booster, **changes))


def test_a_champion_from_before_features_were_added_goes_on_serving() -> None:
    """It was trained on codes as if they were numbers, too, which is left to LightGBM's own library."""
    old = [name for name in INPUTS if name not in ADDED_AFTER_VERSION_1]
    assert len(old) == 9 + 1 + 6
    rng = np.random.default_rng(5)
    rows = rng.random((400, len(old)))
    labels = (rows[:, 3] > rng.random(400)).astype(int)
    parameters = {"objective": "binary", "num_leaves": 7, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, labels, feature_name=old), num_boost_round=5)

    def encoded(values: dict[str, Any]) -> list[float]:
        codes = dict(zip(INPUTS, _encoded(values), strict=True))
        return [codes[name] for name in old]

    values = _values(np.full(NUMERIC_COUNT, 0.3), 0)
    p = float(booster.predict(np.array([encoded(values)]))[0])
    spec = {
        "inputs": old,
        "categories": CATEGORIES,
        "calibration": {"kind": "identity"},
        "probe": [{"inputs": values, "p": p}],
    }
    model = ChampionModel("ctr-v0", booster.model_to_string(), json.dumps(spec).encode())
    assert not model.packed
    numeric = _drawn(4)
    for row, score in enumerate(model.p_ctr(_inputs(numeric), ASKED)):
        expected = float(booster.predict(np.array([encoded(_values(numeric[row], row))]))[0])
        assert score == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("text", ["", "tree\nnonsense"])
def test_a_text_that_is_no_model_is_refused(trained: tuple[lightgbm.Booster, str], text: str) -> None:
    with pytest.raises(ContractError):
        ChampionModel("ctr-v1", text, _spec(trained[0]))


def test_smoothed_rates_shrink_creative_to_campaign() -> None:
    numeric = np.full((30, NUMERIC_COUNT), 0.0)
    numeric[:, COLUMNS.row["campaign_ctr_24h"]] = 0.02
    numeric[0, [COLUMNS.row["creative_clicks_24h"], COLUMNS.row["creative_impressions_24h"]]] = 9, 300
    scores = SmoothedRates().p_ctr(_inputs(numeric), ASKED)
    assert scores[0] == pytest.approx((9 + 100 * 0.02) / (300 + 100))
    assert scores[1] == pytest.approx(0.02)
