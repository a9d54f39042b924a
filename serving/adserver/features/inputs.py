"""Arrays of inputs that requests borrow: one is as large as all that a request allocates otherwise, and is reused."""

from __future__ import annotations

import numpy as np

from serving.adserver.inventory import AdRow, Inventory

#: Lineups, alone or with what else a request asks for, of which something is remembered at a time.
KEPT_LINEUPS = 256
#: Candidates that an array has room for are a multiple of this; the tree kernel scores as many at once.
BLOCK = 32
_CANDIDATES = 128
_KEPT = 64


class Inputs:
    """Numeric inputs of the candidates of one imp, while they are borrowed.

    Shape: `values` float64, a row per input, of which the first `candidates` columns count; `own`: the candidates'
    places in the inventory, and `lineup` the same as bytes, by which what depends on them alone is remembered. An
    input's values lie side by side, since that is how they are filled in and read.
    """

    __slots__ = ("_pool", "candidates", "inventory", "lineup", "own", "values")

    def __init__(self, pool: InputPool, values: np.ndarray, inventory: Inventory, own: np.ndarray) -> None:
        self._pool: InputPool | None = pool
        self.values = values
        self.inventory = inventory
        self.own = own
        self.lineup = own.tobytes()
        self.candidates = len(own)

    def of(self, row: AdRow) -> list[float]:
        """One candidate's inputs; none when it is no candidate."""
        places = self.own.tolist()
        return self.values[:, places.index(row.row)].tolist() if row.row in places else []  # type: ignore[no-any-return]

    def release(self) -> None:
        """Gives the array back; nothing of it may be read any more."""
        if self._pool is not None:
            self._pool.take_back(self.values)
            self._pool = None


class InputPool:
    """Lends arrays of `inputs` rows; keeps those that came back."""

    def __init__(self, inputs: int) -> None:
        self._inputs = inputs
        self._free: list[np.ndarray] = []

    def lease(self, inventory: Inventory, own: np.ndarray) -> Inputs:
        if len(own) > _CANDIDATES:
            values = np.zeros((self._inputs, -(-len(own) // BLOCK) * BLOCK))
        else:
            values = self._free.pop() if self._free else np.zeros((self._inputs, _CANDIDATES))
        return Inputs(self, values, inventory, own)

    def take_back(self, values: np.ndarray) -> None:
        if values.shape[1] == _CANDIDATES and len(self._free) < _KEPT:
            self._free.append(values)
