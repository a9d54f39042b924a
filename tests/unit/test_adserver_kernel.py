"""The packed trees against LightGBM itself: models of its own training, inputs as odd as doubles can be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ContractError
from serving.adserver.scoring import kernel
from serving.adserver.scoring.booster import Booster
from serving.adserver.scoring.trees import NotPackable, PackedTrees

#: Columns 0 and 1 are categories, 2 is sparse, 3 is often missing, 4 is of negative numbers too.
COLUMNS = 8
CATEGORIES = (0, 1)
MODELS: tuple[dict[str, Any], ...] = (
    {},
    {"num_leaves": 64, "min_data_in_leaf": 2},
    {"zero_as_missing": True, "num_leaves": 40},
    {"use_missing": False, "num_leaves": 30},
    {"num_leaves": 2, "max_cat_to_onehot": 40},
    {"min_data_in_leaf": 3000},  # nothing to split: one leaf a tree
)


def _inputs(rng: np.random.Generator, rows: int) -> np.ndarray:
    values = rng.normal(size=(rows, COLUMNS))
    values[:, 0] = rng.integers(0, 70, rows)
    values[:, 1] = rng.integers(0, 3, rows)
    values[rng.random(rows) < 0.7, 2] = 0.0
    values[rng.random(rows) < 0.4, 3] = np.nan
    values[rng.random(rows) < 0.1, 0] = np.nan
    values[:, 5:] = np.abs(values[:, 5:])
    return values


def _trained(changes: dict[str, Any]) -> str:
    return _cached(tuple(changes.items()))


@cache
def _cached(changes: tuple[tuple[str, Any], ...]) -> str:
    rng = np.random.default_rng(5)
    values = _inputs(rng, 2000)
    odds = np.nan_to_num(values[:, 0]) % 5 - 2 + values[:, 1] + values[:, 2] - np.isnan(values[:, 3]) + values[:, 4]
    data = lightgbm.Dataset(
        values, (rng.random(2000) < 1 / (1 + np.exp(-odds))).astype(int), categorical_feature=list(CATEGORIES)
    )
    parameters = {"objective": "binary", "num_leaves": 31, "min_data_in_leaf": 10, "verbose": -1, "num_threads": 1}
    return lightgbm.train(parameters | dict(changes), data, 12).model_to_string()


@pytest.fixture(scope="module", params=MODELS, ids=str)
def model(request: pytest.FixtureRequest) -> str:
    return _trained(request.param)


def _thresholds(text: str) -> list[float]:
    lines = (line.partition("=")[2] for line in text.split("\n") if line.startswith("threshold="))
    return sorted({float(v) for line in lines for v in line.split()})


ODD = (
    *(0.0, -0.0, math.nan, math.inf, -math.inf, -1.0, -0.5, 0.5, 1e300, -1e300, 2.0**31, 2.0**40, 5e-324, -5e-324),
    *(kernel.ZERO, -kernel.ZERO, math.nextafter(kernel.ZERO, 1), math.nextafter(-kernel.ZERO, -1), 1e-36, -1e-36),
)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_scores_are_the_bits_that_lightgbm_gives(model: str, data: st.DataObject) -> None:
    """Values lie on thresholds, beside them, and where LightGBM has rules of its own; any columns may be shared."""
    edges = [
        v for t in _thresholds(model)[:200] for v in (t, math.nextafter(t, math.inf), math.nextafter(t, -math.inf))
    ]
    value = st.one_of(
        st.sampled_from(ODD), st.sampled_from(edges or [0.0]), st.integers(-2, 75).map(float), st.floats()
    )
    rows = data.draw(st.sampled_from([1, 2, 31, 32, 33, 100]))
    drawn = data.draw(st.lists(value, min_size=20, max_size=60))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = rng.choice(drawn, (rows, COLUMNS))
    shared = data.draw(st.sets(st.integers(0, COLUMNS - 1)))
    for column in shared:
        values[:, column] = values[0, column]
    found = PackedTrees(model, shared=shared).raw_scores(values)
    np.testing.assert_array_equal(found, Booster(model).raw_scores(np.ascontiguousarray(values)))


def test_thresholds_within_what_counts_as_zero_are_moved_to_its_edge() -> None:
    """Training does not make such; the C library reads them, and takes every input within the edge for zero."""
    text = _trained({"num_leaves": 4})
    threshold = next(t for t in _thresholds(text) if t % 1)  # a whole one is the place of a set of categories
    for planted in (1e-36, -1e-36, kernel.ZERO, -kernel.ZERO):
        changed = "\n".join(
            "threshold=" + " ".join(repr(planted) if float(v) == threshold else v for v in line[10:].split())
            if line.startswith("threshold=")
            else line
            for line in text.split("\n")
        )
        assert changed != text
        values = np.array([[v] * COLUMNS for v in ODD])
        np.testing.assert_array_equal(PackedTrees(changed).raw_scores(values), Booster(changed).raw_scores(values))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"objective": "multiclass", "num_class": 2}, "classes"),
        ({"num_leaves": 65, "min_data_in_leaf": 1}, "65 leaves"),
        ({"linear_tree": True}, "linear"),
        ({"boosting": "rf", "bagging_fraction": 0.5, "bagging_freq": 1}, "a mean of trees"),
    ],
)
def test_what_the_kernel_does_not_know_is_left_to_lightgbm(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotPackable, match=reason):
        PackedTrees(_trained(changes))


@pytest.mark.parametrize(
    "break_it",
    [
        lambda text: "no model",
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("left_child=", "left_child=0 "),
        lambda text: re.sub(r"left_child=-?\d+", "left_child=0", text),
        lambda text: re.sub(r"left_child=-?\d+", "left_child=-70", text),
        lambda text: re.sub(r"split_feature=\d+", "split_feature=8", text),
        lambda text: re.sub(r"threshold=\S+", "threshold=x", text),
        lambda text: text.replace("leaf_value=", "leaf_weights="),
        lambda text: text.replace("max_feature_idx=", "features="),
    ],
)
def test_a_broken_text_is_refused_and_takes_nothing_down(break_it: Callable[[str], str]) -> None:
    """LightGBM itself would end the process for some of them."""
    with pytest.raises(ContractError):
        PackedTrees(break_it(_trained({})))


def test_lightgbm_refuses_a_broken_text_without_ending_the_process() -> None:
    with pytest.raises(ContractError):
        Booster(_trained({}).replace("Tree=3", "Tre=3").replace("leaf_value=", "leaf_weights="))


def test_more_candidates_than_the_arrays_hold_are_refused() -> None:
    trees = PackedTrees(_trained({}))
    codes = np.zeros((COLUMNS, 32), np.int64)
    for shape, rows in (((COLUMNS, 32), 33), ((COLUMNS, 64), 20), ((COLUMNS, 31), 20)):
        with pytest.raises(ValueError, match="candidates in arrays"):
            trees.scores(np.zeros(shape), codes, rows)
