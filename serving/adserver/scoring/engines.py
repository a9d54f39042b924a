"""What scores a model: the packed trees, or LightGBM's C library for a model that they do not know."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import Any, Protocol

import numpy as np

from schemas.errors import ContractError
from serving.adserver.scoring.booster import Booster
from serving.adserver.scoring.trees import NotPackable, PackedTrees

logger = logging.getLogger(__name__)

_CHECKED_ROWS = 64


class Engine(Protocol):
    """Raw scores (log-odds). `codes_of` turns codes of a category, NaN for unknown, into what `scores` takes."""

    packed: bool
    code_dtype: Any

    def codes_of(self, column: int, codes: np.ndarray) -> np.ndarray: ...

    def scores(self, inputs: np.ndarray, codes: np.ndarray, rows: int) -> np.ndarray:
        """Shape: `inputs` float64 and `codes` by row, as `place` says; the first `rows` candidates are scored."""
        ...

    def raw_scores(self, values: np.ndarray) -> np.ndarray:
        """Shape: float64, one row per candidate, the model's columns."""
        ...


class PackedEngine(PackedTrees):
    packed = True
    code_dtype: Any = np.int64

    def codes_of(self, column: int, codes: np.ndarray) -> np.ndarray:
        return self.coded(column, codes)


class NativeEngine(Booster):
    packed = False
    code_dtype: Any = np.float64

    def __init__(self, text: str, place: Sequence[int], categories: Collection[int]) -> None:
        super().__init__(text)
        self._numbers = [c for c in range(self.inputs) if c not in categories]
        self._categories = sorted(categories)
        self._place = np.array(place, np.intp)

    def codes_of(self, column: int, codes: np.ndarray) -> np.ndarray:
        return codes

    def scores(self, inputs: np.ndarray, codes: np.ndarray, rows: int) -> np.ndarray:
        values = np.empty((rows, self.inputs))
        values[:, self._numbers] = inputs[self._place[self._numbers], :rows].T
        values[:, self._categories] = codes[self._place[self._categories], :rows].T
        return self.raw_scores(values)


def engine_of(text: str, place: Sequence[int], categories: Collection[int], shared: Collection[int]) -> Engine:
    """The fastest engine that gives what LightGBM gives. Arguments: as `PackedTrees`.

    Errors: ContractError for a text that is no model with a column per place.
    """
    try:
        trees = PackedEngine(text, place, categories, shared)
    except NotPackable as e:
        logger.warning("model is scored by LightGBM itself", extra={"reason": str(e)})
        return _native(text, place, categories)
    if trees.inputs != len(place):
        raise ContractError(f"the model has {trees.inputs} inputs, its spec names {len(place)}")
    native = _native(text, place, categories)
    values = _odd_rows(native, shared)
    if not np.array_equal(trees.raw_scores(values), native.raw_scores(values)):
        logger.error("packed trees differ from LightGBM, which scores instead")
        return native
    return trees


def _native(text: str, place: Sequence[int], categories: Collection[int]) -> NativeEngine:
    native = NativeEngine(text, place, categories)
    if native.inputs != len(place):
        raise ContractError(f"the model has {native.inputs} inputs, its spec names {len(place)}")
    return native


def _odd_rows(native: Booster, shared: Collection[int]) -> np.ndarray:
    """Rows to try a model with: of any scale, codes, zero, missing. The same ones each time."""
    rng = np.random.default_rng(1)
    shape = (_CHECKED_ROWS, native.inputs)
    scales = 10.0 ** rng.integers(-3, 5, shape)
    values = rng.choice([1.0, 1.0, 0.0, np.nan], shape) * np.abs(rng.normal(size=shape)) * scales
    for column in shared:
        values[:, column] = values[0, column]
    return values
