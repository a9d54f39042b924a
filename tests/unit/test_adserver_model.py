"""A champion is taken only if it is the model that was trained, and scores what LightGBM's own package scores."""

from __future__ import annotations

import json
from typing import Any

import lightgbm
import numpy as np
import pytest

from schemas.errors import ContractError
from schemas.features import CATEGORICAL_FEATURES, FEATURES, FEATURES_VERSION, model_inputs
from serving.adserver.features.reader import EntityCounters
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
}
CONTEXT = {"placement_id": "pl-video", "content_category": "IAB17", "device_type": "phone", "country": "FR"}
A, B = 0.9, -0.2
ADDED_IN_VERSION_2 = {f.name for f in FEATURES[9:]}


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
        values: dict[str, Any] = {f.name: 0.05 * n for f in FEATURES} | {"hour_of_day": n} | CONTEXT
        values |= {"creative_id": f"cr-{n + 5:02d}", "campaign_id": f"cmp-{n:02d}"}
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
    numeric = np.random.default_rng(3).random((30, NUMERIC_COUNT))
    scores = model.p_ctr(INVENTORY, INVENTORY.rows, numeric, CONTEXT, EntityCounters(0.0))
    for row, values, score in zip(INVENTORY.rows, numeric, scores, strict=True):
        inputs = dict(zip(INPUTS, values, strict=False)) | CONTEXT
        inputs |= {"creative_id": row.creative.id, "campaign_id": row.campaign.id}
        assert score == pytest.approx(_probability(booster, inputs), abs=1e-12)
    few = model.p_ctr(INVENTORY, INVENTORY.rows[4:6], numeric[4:6], CONTEXT, EntityCounters(0.0))
    assert np.array_equal(few, scores[4:6])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inputs": INPUTS[::-1]}, "probe rows differ"),
        ({"inputs": INPUTS[:-1]}, "25 inputs, its spec names 24"),
        ({"inputs": [*INPUTS[:-1], "shoe_size"]}, "inputs are"),
        ({"inputs": [*INPUTS[:-1], INPUTS[0]]}, "inputs are"),
        ({"features_version": FEATURES_VERSION + 1}, "inputs are"),
        ({"calibration": {"kind": "isotonic"}}, "calibration"),
        ({"calibration": {"kind": "platt", "a": A, "b": B + 0.001}}, "probe rows differ"),
        ({"categories": CATEGORIES | {"creative_id": CATEGORIES["creative_id"][::-1]}}, "probe rows differ"),
        ({"probe": []}, "no probe rows"),
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
    old = [name for name in INPUTS if name not in ADDED_IN_VERSION_2]
    assert len(old) == 9 + 1 + len(CATEGORICAL_FEATURES)
    rng = np.random.default_rng(5)
    rows = rng.random((400, len(old)))
    labels = (rows[:, 3] > rng.random(400)).astype(int)
    parameters = {"objective": "binary", "num_leaves": 7, "verbose": -1, "num_threads": 1}
    booster = lightgbm.train(parameters, lightgbm.Dataset(rows, labels, feature_name=old), num_boost_round=5)
    values: dict[str, Any] = {name: 0.3 for name in old} | CONTEXT | {"creative_id": "cr-00", "campaign_id": "cmp-00"}
    encoded = dict(zip(INPUTS, _encoded({**dict.fromkeys(INPUTS, 0.0), **values}), strict=True))
    p = float(booster.predict(np.array([[encoded[name] for name in old]]))[0])
    spec = {
        "inputs": old,
        "categories": CATEGORIES,
        "calibration": {"kind": "identity"},
        "probe": [{"inputs": values, "p": p}],
    }
    model = ChampionModel("ctr-v0", booster.model_to_string(), json.dumps(spec).encode())
    numeric = rng.random((30, NUMERIC_COUNT))
    scores = model.p_ctr(INVENTORY, INVENTORY.rows, numeric, CONTEXT, EntityCounters(0.0))
    for row, line, score in zip(INVENTORY.rows, numeric, scores, strict=True):
        named = dict(zip(INPUTS, line, strict=False)) | CONTEXT
        named |= {"creative_id": row.creative.id, "campaign_id": row.campaign.id}
        codes = dict(zip(INPUTS, _encoded(named), strict=True))
        assert score == pytest.approx(float(booster.predict(np.array([[codes[n] for n in old]]))[0]), abs=1e-12)


@pytest.mark.parametrize("text", ["", "tree\nnonsense"])
def test_a_text_that_is_no_model_is_refused(trained: tuple[lightgbm.Booster, str], text: str) -> None:
    with pytest.raises(ContractError):
        ChampionModel("ctr-v1", text, _spec(trained[0]))


def test_smoothed_rates_shrink_creative_to_campaign() -> None:
    rates = SmoothedRates()
    numeric = np.full((30, NUMERIC_COUNT), 0.02)
    clicks, impressions = np.zeros(30), np.zeros(30)
    clicks[0], impressions[0] = 9, 300
    counters = EntityCounters(1.0, creative_clicks=clicks, creative_impressions=impressions)
    scores = rates.p_ctr(INVENTORY, INVENTORY.rows, numeric, CONTEXT, counters)
    assert scores[0] == pytest.approx((9 + 100 * 0.02) / (300 + 100))
    assert scores[1] == pytest.approx(0.02)
    assert np.array_equal(rates.p_ctr(INVENTORY, INVENTORY.rows, numeric, CONTEXT, EntityCounters(0.0)), numeric[:, 0])
