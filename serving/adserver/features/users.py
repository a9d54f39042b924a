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
        self._totals: list[tuple[int, np.ndarray, np.ndarray]] = []
        self._others: list[tuple[int, Feature, int, int | None]] = []
        for position, scope in enumerate(_SCOPES):
            of_scope = [f for f in columns.user if COUNTER_BY_NAME[f.numerator].scope == scope]
            if any(f.denominator for f in of_scope):
                raise ValueError(f"a rate of a user and a {scope} is not kept")
            at = np.array([windows[f.numerator, f.window_s] for f in of_scope], np.intp)
            self._totals.append((position, columns.rows(of_scope), at))
        for f in columns.user:
            if COUNTER_BY_NAME[f.numerator].scope == "category":
                below = windows[f.denominator, f.window_s] if f.denominator else None
                self._others.append((columns.row[f.name], f, windows[f.numerator, f.window_s], below))
        self._inventory: Inventory | None = None
        self._scopes = np.zeros(0, np.uint64)
        self._scope_of_row = np.zeros((len(_SCOPES), 0), np.intp)
        self._sums = np.zeros((len(windows), 1))

    def fill(
        self,
        values: np.ndarray,
        inventory: Inventory,
        own: np.ndarray,
        category: str | None,
        user: CounterBlob,
        now_s: int,
    ) -> None:
        """Shape: `values` as `Columns`, a column per candidate, `own` the creatives' places in the inventory."""
        if inventory is not self._inventory:
            self._learn(inventory)
        touched = self._add_up(user, category, now_s)
        for position, rows, windows in self._totals:
            values[rows] = self._sums[windows[:, None], self._scope_of_row[position, own]]
        if category:
            here = self._sums[:, -1].tolist()
            for row, feature, above, below in self._others:
                of_below = None if below is None else int(here[below]) or None
                values[row] = feature_value(feature, int(here[above]) or None, of_below)
        self._sums.ravel()[touched] = 0.0

    def _learn(self, inventory: Inventory) -> None:
        """What depends on the catalogue alone."""
        scopes = np.array([row.scopes for row in inventory.rows], np.uint64).reshape(-1, len(_SCOPES))
        self._scopes, places = np.unique(scopes, return_inverse=True)
        self._scope_of_row = np.ascontiguousarray(places.reshape(scopes.shape).T)
        self._sums = np.zeros((len(self._window_s), len(self._scopes) + 1))  # the last place is the category's
        self._inventory = inventory

    def _add_up(self, user: CounterBlob, category: str | None, now_s: int) -> np.ndarray:
        """Adds the entries to `_sums`; gives back which of its elements they changed."""
        place = np.searchsorted(self._scopes, user.scope)
        known = self._scopes.take(place, mode="clip") == user.scope if len(self._scopes) else place < 0
        if category:
            here = (user.scope == np.uint64(scope_hash(category))) & self._is_of_category[user.code]
            place[here] = len(self._scopes)
            known |= here
        known &= user.start_s <= now_s
        chosen = np.flatnonzero(known)
        self._first_s[:-1] = now_s - now_s % self._bucket_s - self._window_s + self._bucket_s
        windows = self._windows_of[:, user.code[chosen]]
        slot, entry = (user.start_s[chosen] >= self._first_s[windows]).nonzero()
        touched: np.ndarray = windows[slot, entry] * self._sums.shape[1] + place[chosen][entry]
        np.add.at(self._sums.ravel(), touched, user.value[chosen][entry])
        return touched
