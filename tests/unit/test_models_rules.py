"""Splits, calibration, entropy, the gate and the promotion table: the rules of training, without services."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.models.dataset import Dataset, from_arrow, split, vocabulary
from jobs.models.evaluation import Interval, entropy_difference, normalised_entropy
from jobs.models.gate import judge
from jobs.models.logistic import fit_logistic, platt, sigmoid
from jobs.models.promotions import Promotions
from schemas.errors import Refused
from schemas.features import CATEGORICAL_FEATURES, CONTEXT_FEATURES, FEATURES, model_inputs


def training_rows(ads: int, seed: int = 3, signal: float = 1.0) -> pa.Table:
    """Rows as gold/training_set has them: creatives differ in click rate, times repeat now and then."""
    rng = np.random.default_rng(seed)
    creative = rng.integers(0, 6, ads)
    rate = 0.03 + 0.05 * signal * creative
    impressions = np.sort(rng.integers(0, 2_000, ads))
    clicks = (impressions * rate).astype(int)
    columns: dict[str, object] = {
        "record_id": [f"r{i:06d}" for i in range(ads)],
        "decision_time_ms": np.sort(rng.integers(0, ads // 2, ads)) + 1_780_000_000_000,
        "clicked": (rng.random(ads) < rate).astype(np.int32),
        "creative_clicks_hour_86400": clicks,
        "creative_impressions_hour_86400": impressions,
    }
    columns |= {f.name: np.full(ads, f.default) for f in FEATURES}
    columns["creative_ctr_24h"] = (clicks + 1) / (impressions + 100)
    columns |= {name: np.full(ads, 12.0) for name in CONTEXT_FEATURES}
    columns |= {name: ["x"] * ads for name in CATEGORICAL_FEATURES}
    columns["creative_id"] = [f"cr-{c}" for c in creative]
    columns["country"] = [None if i % 7 == 0 else "US" for i in range(ads)]
    return pa.table(columns)


def dataset(ads: int = 900, **changes: float) -> Dataset:
    return from_arrow(training_rows(ads, **changes))


def test_split_is_forward_in_time_and_keeps_equal_times_together() -> None:
    data = dataset()
    parts = split(data, 0.6, 0.2)
    assert sum(len(p) for p in parts) == len(data)
    for earlier, later in pairwise(parts):
        assert earlier.decision_time_ms.max() < later.decision_time_ms.min()


def test_inputs_have_the_contracts_order_and_unknown_categories_are_missing() -> None:
    data = dataset(50)
    codes = vocabulary(data) | {"creative_id": ["cr-0"]}
    encoded = data.encoded(codes)
    names = model_inputs()
    assert encoded.shape == (50, len(names))
    known = np.array([c == "cr-0" for c in data.categories["creative_id"]])
    column = encoded[:, names.index("creative_id")]
    assert (column[known] == 0).all()
    assert np.isnan(column[~known]).all()
    assert np.isnan(encoded[0, names.index("country")])
    assert list(data.inputs_of(0)) == list(names)


def test_normalised_entropy_of_the_rate_itself_is_one_and_of_knowledge_is_less() -> None:
    clicked = np.array([1.0, 0, 0, 0, 1, 0, 0, 0])
    assert normalised_entropy(np.full(8, 0.25), clicked) == pytest.approx(1.0)
    assert normalised_entropy(np.where(clicked == 1, 0.9, 0.05), clicked) < 0.5
    assert normalised_entropy(np.full(8, 0.9), clicked) > 1.5


def test_difference_is_paired_and_seeded() -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.02, 0.4, 3_000)
    clicked = (rng.random(3_000) < truth).astype(float)
    flat = np.full(3_000, clicked.mean())
    better = entropy_difference(truth, flat, clicked, 300, 0.95, seed=5)
    assert better.low < better.value < better.high < 0
    assert better == entropy_difference(truth, flat, clicked, 300, 0.95, seed=5)
    assert entropy_difference(flat, flat, clicked, 300, 0.95, seed=5) == Interval(0.0, 0.0, 0.0)


def test_platt_finds_the_line_and_few_clicks_can_not_bend_it() -> None:
    rng = np.random.default_rng(2)
    raw = rng.normal(-2, 1, 20_000)
    clicked = (rng.random(20_000) < sigmoid(0.6 * raw - 0.5)).astype(float)
    a, b = platt(raw, clicked)
    assert a == pytest.approx(0.6, abs=0.06)
    assert b == pytest.approx(-0.5, abs=0.1)
    a, b = platt(raw[:5], np.array([1.0, 0, 0, 0, 0]))
    assert 0.3 < a < 2.0


def test_logistic_regression_meets_its_optimality_condition() -> None:
    rng = np.random.default_rng(4)
    inputs = np.column_stack([rng.normal(size=(500, 3)), np.ones(500)])
    clicked = (rng.random(500) < 0.3).astype(float)
    weights = fit_logistic(inputs, clicked, l2=2.0)
    gradient = inputs.T @ (sigmoid(inputs @ weights) - clicked) + 2.0 * weights
    assert np.abs(gradient).max() < 1e-6


@pytest.mark.parametrize(
    ("interval", "has_champion", "clicks", "promote", "word"),
    [
        (Interval(-0.01, -0.03, 0.01), False, 50, True, "first champion"),
        (Interval(0.01, -0.01, 0.03), False, 50, True, "not worse"),
        (Interval(0.05, 0.01, 0.09), False, 50, False, "worse than the baseline"),
        (Interval(-0.05, -0.09, -0.01), True, 50, True, "new champion"),
        (Interval(-0.05, -0.11, 0.01), True, 50, False, "not better beyond doubt"),
        (Interval(-0.05, -0.09, -0.01), True, 9, False, "9 clicks"),
    ],
)
def test_gate(interval: Interval, has_champion: bool, clicks: int, promote: bool, word: str) -> None:
    verdict = judge(interval, "what serves", has_champion, clicks, min_clicks=10)
    assert verdict.promote is promote
    assert word in verdict.words


def test_promotion_is_refused_when_the_champion_changed_meanwhile(tmp_path: Path) -> None:
    table = Promotions(tmp_path / "p.db")
    assert table.champion("ctr") is None
    first = table.promote("ctr", "1", None, 10, "first")
    assert table.champion("ctr") == first
    with pytest.raises(Refused, match="judge again"):
        table.promote("ctr", "2", None, 11, "did not see the first")
    assert table.promote("ctr", "2", first, 12, "better").generation == 2
    assert table.champion("other") is None


def test_of_many_promotions_at_once_one_wins(tmp_path: Path) -> None:
    table = Promotions(tmp_path / "p.db")
    refused: list[str] = []

    def attempt(version: str) -> None:
        try:
            table.promote("ctr", version, None, 1, "race")
        except Refused:
            refused.append(version)

    threads = [threading.Thread(target=attempt, args=(str(i),)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(refused) == 7
    champion = table.champion("ctr")
    assert champion is not None
    assert champion.generation == 1
