"""A user's counters as inputs of all candidates at once.

Every entry of the user's hash is looked up among the scopes that the catalogue knows, and added to the windows that it
lies in; then each candidate takes the sums of its own creative, campaign and advertiser. What an entry costs does not
depend on how many features and candidates there are.
"""

from __future__ import annotations

import numpy as np

from schemas.counters import COUNTER_BY_NAME
from schemas.features import Feature, feature_value
from schemas.ids import scope_hash
from serving.adserver.features.columns import Columns
from serving.adserver.features.counters import CounterBlob
from serving.adserver.features.inputs import KEPT_LINEUPS, Inputs
from serving.adserver.inventory import Inventory

_SCOPES = ("creative", "campaign", "advertiser")  # in the order of AdRow.scopes
_NEVER_S = 2**62


class UserInputs:
    """Fills in the rows of a user's features. Keeps its working arrays: not for two threads at once."""

    def __init__(self, columns: Columns) -> None:
        windows: dict[tuple[str, int], int] = {}
        for f in columns.user:
            for name in filter(None, (f.numerator, f.denominator)):
                windows.setdefault((name, f.window_s), len(windows))
        counters = [COUNTER_BY_NAME[name] for name, _ in windows]
        self._bucket_s = np.array([c.bucket_s for c in counters], np.int64)
        self._window_s = np.array([window_s for _, window_s in windows], np.int64)
        self._first_s = np.full(len(windows) + 1, _NEVER_S)  # of each window, and of the one that nothing lies in
        by_code: dict[int, list[int]] = {}
        for window, counter in enumerate(counters):
            by_code.setdefault(counter.code, []).append(window)
        #: Windows that an entry's code is in, padded with one that nothing lies in.
        self._windows_of = np.full((max(map(len, by_code.values()), default=0), 256), len(windows), np.intp)
        for code, found in by_code.items():
            self._windows_of[: len(found), code] = found
        self._is_of_category = np.zeros(256, bool)
        self._is_of_category[[c.code for c in counters if c.scope == "category"]] = True
        # sums become values by candidate where the scope is the candidate's, else once for all of them
        totals: list[tuple[int, np.ndarray, np.ndarray]] = []
        self._others: list[tuple[int, Feature, int, int | None]] = []
        for position, scope in enumerate(_SCOPES):
            of_scope = [f for f in columns.user if COUNTER_BY_NAME[f.numerator].scope == scope]
            if any(f.denominator for f in of_scope):
                raise ValueError(f"a rate of a user and a {scope} is not kept")
            at = np.array([windows[f.numerator, f.window_s] for f in of_scope], np.intp)
            totals.append((position, columns.rows(of_scope), at))
        self._rows = np.concatenate([rows for _, rows, _ in totals])
        self._windows = np.concatenate([at for _, _, at in totals])
        self._positions = np.concatenate([np.full(len(at), position) for position, _, at in totals])
        for f in columns.user:
            if COUNTER_BY_NAME[f.numerator].scope == "category":
                below = windows[f.denominator, f.window_s] if f.denominator else None
                self._others.append((columns.row[f.name], f, windows[f.numerator, f.window_s], below))
        self._inventory: Inventory | None = None
        self._scopes = np.zeros(0, np.uint64)
        self._scope_of_row = np.zeros((len(_SCOPES), 0), np.intp)
        self._sums = np.zeros((len(windows), 1))
        self._now_s = -1  # that `_first_s` is of
        self._elements: dict[bytes, np.ndarray] = {}  # of `_sums` that each row and candidate takes, by lineup

    def fill(self, inputs: Inputs, category: str | None, user: CounterBlob, now_s: int) -> None:
        """Sets the rows of the user's features. `category` is that of the request."""
        if inputs.inventory is not self._inventory:
            self._learn(inputs.inventory)
        touched = self._add_up(user, category, now_s)
        values = inputs.values[:, : inputs.candidates]
        values[self._rows] = self._sums.take(self._taken_by(inputs))
        if category:
            here = self._sums[:, -1].tolist()
            for row, feature, above, below in self._others:
                of_below = None if below is None else int(here[below]) or None
                values[row] = feature_value(feature, int(here[above]) or None, of_below)
        self._sums.reshape(-1)[touched] = 0.0

    def _learn(self, inventory: Inventory) -> None:
        """What depends on the catalogue alone."""
        scopes = np.array([row.scopes for row in inventory.rows], np.uint64).reshape(-1, len(_SCOPES))
        self._scopes, places = np.unique(scopes, return_inverse=True)
        self._scope_of_row = np.ascontiguousarray(places.reshape(scopes.shape).T)
        self._sums = np.zeros((len(self._window_s), len(self._scopes) + 1))  # the last place is the category's
        self._inventory = inventory
        self._elements.clear()

    def _taken_by(self, inputs: Inputs) -> np.ndarray:
        """Elements of `_sums`. Shape: a row per row of features, a column per candidate."""
        found = self._elements.get(inputs.lineup)
        if found is None:
            if len(self._elements) >= KEPT_LINEUPS:
                self._elements.clear()
            scopes = self._scope_of_row[self._positions[:, None], inputs.own]
            found = self._elements[inputs.lineup] = self._windows[:, None] * self._sums.shape[1] + scopes
        return found

    def _add_up(self, user: CounterBlob, category: str | None, now_s: int) -> np.ndarray:
        """Adds the entries to `_sums`; gives back which of its elements they changed."""
        place = self._scopes.searchsorted(user.scope)
        known = self._scopes.take(place, mode="clip") == user.scope if len(self._scopes) else place < 0
        if category:
            here = (user.scope == np.uint64(scope_hash(category))) & self._is_of_category[user.code]
            place[here] = len(self._scopes)
            known |= here
        known &= user.start_s <= now_s
        chosen = known.nonzero()[0]
        if now_s != self._now_s:
            self._first_s[:-1] = now_s - now_s % self._bucket_s - self._window_s + self._bucket_s
            self._now_s = now_s
        windows = self._windows_of[:, user.code[chosen]]
        slot, entry = (user.start_s[chosen] >= self._first_s[windows]).nonzero()
        touched: np.ndarray = windows[slot, entry] * self._sums.shape[1] + place[chosen][entry]
        np.add.at(self._sums.reshape(-1), touched, user.value[chosen][entry])
        return touched
