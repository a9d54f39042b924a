"""`headwater bench scoring`: CPU of scoring a request's candidates, beside LightGBM's own two ways to predict.

100 candidates, 150 inputs of which 12 are categories, some missing; 100 trees of 63 leaves, trained here. One thread.
Ours is measured from the arrays that a request fills in to the scores, the others from the rows that they want.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import lightgbm
import numpy as np

from infra.bench.report import Row, Sample, interleaved
from serving.adserver.features.inputs import BLOCK
from serving.adserver.scoring.booster import Booster
from serving.adserver.scoring.trees import PackedTrees

CANDIDATES, INPUTS, CATEGORIES, TREES, LEAVES = 100, 150, 12, 100, 63
_TRAINING_ROWS = 20_000
_REPEATS = 400
#: Inputs that the candidates of a request share: those of the user, the place and the moment, about half of them.
_SHARED = frozenset(range(4, INPUTS, 2))


def run(pairs: int, scale: float) -> tuple[list[Row], list[str]]:
    """Rows of ours beside both. `scale` shrinks the number of repetitions, and the model's training set."""
    repeats = max(10, int(_REPEATS * scale))
    model, values = _trained(max(2_000, int(_TRAINING_ROWS * scale)))
    text = model.model_to_string()
    native, trees = Booster(text), PackedTrees(text)
    alike = values.copy()
    alike[:, sorted(_SHARED)] = values[0, sorted(_SHARED)]

    ours = _timed(_scored(trees, values), repeats)
    through_c = _timed(lambda: native.raw_scores(values), repeats // 4)
    through_python = _timed(lambda: model.predict(values, raw_score=True, num_threads=1), repeats // 4)
    of_a_request = _timed(_scored(PackedTrees(text, shared=_SHARED), alike), repeats)
    request_through_c = _timed(lambda: native.raw_scores(alike), repeats // 4)
    packing = _timed(lambda: PackedTrees(text), 1)
    loading = _timed(lambda: Booster(text), 1)
    rows = [
        Row("scores, beside lightgbm's predict", "CPU ms/request", interleaved(ours, through_python, pairs)),
        Row("scores, beside its C library", "CPU ms/request", interleaved(ours, through_c, pairs)),
        Row(
            "scores, inputs in common, beside its C library",
            "CPU ms/request",
            interleaved(of_a_request, request_through_c, pairs),
        ),
        Row("a model's loading, beside its C library", "CPU ms", interleaved(packing, loading, pairs)),
        Row("largest difference to its C library", "log-odds", _differences(trees, native, pairs)),
    ]
    return rows, [
        f"{CANDIDATES} candidates, {INPUTS} inputs of which {CATEGORIES} are categories, {TREES} trees of {LEAVES} "
        f"leaves; median over {pairs} pairs of {repeats} requests; in common: {len(_SHARED)} inputs",
        f"the model has {text.count('decision_type')} trees and {_category_splits(text)} splits on categories",
    ]


def _trained(rows: int) -> tuple[lightgbm.Booster, np.ndarray]:
    """(model, candidates)"""
    rng = np.random.default_rng(11)
    values = rng.gamma(0.5, size=(rows, INPUTS))
    for column in range(CATEGORIES):
        values[:, column] = rng.integers(0, (400, 100, 40, 12, 6, 3)[column % 6], rows)
    values[rng.random(values.shape) < 0.02] = np.nan
    effects = rng.normal(size=INPUTS)
    known = np.nan_to_num(values)
    odds = (
        np.log1p(known[:, CATEGORIES:]) @ effects[CATEGORIES:] * 0.3 + np.sin(known[:, :CATEGORIES]).sum(axis=1) * 0.3
    )
    clicked = rng.random(rows) < 1 / (1 + np.exp(-(odds - np.median(odds))))
    parameters = {
        "objective": "binary",
        "num_leaves": LEAVES,
        "feature_fraction": 0.5,
        "num_threads": 1,
        "deterministic": True,
        "verbosity": -1,
    }
    data = lightgbm.Dataset(values, clicked.astype(int), categorical_feature=list(range(CATEGORIES)))
    return lightgbm.train(parameters, data, TREES), np.ascontiguousarray(values[:CANDIDATES])


def _scored(trees: PackedTrees, values: np.ndarray) -> Callable[[], np.ndarray]:
    """What a request does, once its inputs lie in their arrays."""
    stride = -(-CANDIDATES // BLOCK) * BLOCK
    inputs, codes = np.zeros((INPUTS, stride)), np.zeros((INPUTS, stride), np.int64)
    inputs[:, :CANDIDATES] = values.T
    for column in range(CATEGORIES):
        codes[column, :CANDIDATES] = trees.coded(column, values[:, column])
    return lambda: trees.scores(inputs, codes, CANDIDATES)


def _timed(call: Callable[[], object], repeats: int) -> Callable[[], float]:
    """CPU ms of a call, of this process and all its threads."""

    def measure() -> float:
        call()
        start_s = time.process_time()
        for _ in range(repeats):
            call()
        return (time.process_time() - start_s) * 1000 / repeats

    return measure


def _differences(trees: PackedTrees, native: Booster, pairs: int) -> tuple[Sample, ...]:
    rng = np.random.default_rng(12)
    found = []
    for _ in range(pairs):
        values = rng.gamma(0.5, size=(1_000, INPUTS)) * 10.0 ** rng.integers(-2, 3, (1_000, INPUTS))
        values[rng.random(values.shape) < 0.05] = np.nan
        found.append((float(np.abs(trees.raw_scores(values) - native.raw_scores(values)).max()), None))
    return tuple(found)


def _category_splits(text: str) -> int:
    return sum(int(line.partition("=")[2]) for line in text.split("\n") if line.startswith("num_cat="))
