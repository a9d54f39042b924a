"""LightGBM through its C interface, without its Python package: that would bring pandas and scikit-learn along,
five seconds of CPU and 150 MB into a server that only ever predicts.

Source: LightGBM 4 C API (LGBM_BoosterLoadModelFromString, LGBM_BoosterPredictForMat).
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from functools import cache
from pathlib import Path

import numpy as np

from schemas.errors import ContractError, Unavailable

_FLOAT64 = 1
_RAW_SCORE = 1
_ROW_MAJOR = 1
_PARAMETERS = b"num_threads=1"  # two cores run everything; a thread pool per request would only add waiting


@cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("lightgbm")
    folder = Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None
    path = folder / "lib" / "lib_lightgbm.so" if folder else None
    if path is None or not path.exists():
        raise Unavailable("lightgbm's shared library is not installed")
    library = ctypes.CDLL(str(path))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    library.LGBM_BoosterPredictForMat.argtypes = [
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int,
        ctypes.c_int32,
        ctypes.c_int32,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_int64),
        ctypes.c_void_p,
    ]
    return library


def _check(status: int) -> None:
    if status != 0:
        raise ContractError(f"LightGBM: {_library().LGBM_GetLastError().decode(errors='replace')}")


class Booster:
    """A trained model. Thread-safe for predicting. Errors: ContractError when the text is no model."""

    def __init__(self, model_text: str) -> None:
        self._library = _library()
        self._handle = ctypes.c_void_p()
        iterations = ctypes.c_int()
        # With sizes of trees it reads them in parallel, and a broken one then ends the process instead of the call.
        model_text = re.sub(r"\ntree_sizes=[^\n]*", "", model_text, count=1)
        _check(
            self._library.LGBM_BoosterLoadModelFromString(
                ctypes.c_char_p(model_text.encode()), ctypes.byref(iterations), ctypes.byref(self._handle)
            )
        )
        inputs = ctypes.c_int()
        _check(self._library.LGBM_BoosterGetNumFeature(self._handle, ctypes.byref(inputs)))
        self.inputs = inputs.value
        self.trees = iterations.value

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.LGBM_BoosterFree(self._handle)

    def raw_scores(self, values: np.ndarray) -> np.ndarray:
        """Raw scores (log-odds). Shape: `values` float64, C order, one row per candidate, `inputs` columns."""
        rows, columns = values.shape
        if columns != self.inputs or values.dtype != np.float64 or not values.flags.c_contiguous:
            raise ContractError(f"expected float64 rows of {self.inputs} inputs, got {values.dtype} {values.shape}")
        scores = np.empty(rows)
        written = ctypes.c_int64()
        status = self._library.LGBM_BoosterPredictForMat(
            self._handle,
            values.ctypes.data,
            _FLOAT64,
            rows,
            columns,
            _ROW_MAJOR,
            _RAW_SCORE,
            0,
            -1,
            _PARAMETERS,
            ctypes.byref(written),
            scores.ctypes.data,
        )
        _check(status)
        if written.value != rows:
            raise ContractError(f"the model gives {written.value} scores for {rows} rows: not a binary model")
        return scores
