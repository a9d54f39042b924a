"""Features of every ad and of what requests name, made off the request path whenever counters are read again.

What belongs to ads alone is laid out by creative, so that a request takes its candidates' values in one step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from schemas.counters import COUNTER_BY_NAME, Counter, window_buckets
from schemas.features import Feature
from serving.adserver.features.columns import COLUMNS, OF_REQUEST, Columns
from serving.adserver.features.counters import decode, well_formed
from serving.adserver.inventory import Inventory


@dataclass(frozen=True, slots=True)
class EntityCounters:
    """Features of every entity of an inventory at one moment.

    Shape: `of_ad` float64, a row per feature of `Columns.of_ad`, a column per creative; `above` and `below` likewise
    numerators and denominators of `Columns.of_both`; `of_request[entity]` a row per feature, a column per id, whose
    place is `place[entity][id]`.
    """

    read_s: float  # epoch s; 0 before the first reading
    of_ad: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    above: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    below: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    of_request: dict[str, np.ndarray] = field(default_factory=dict)
    place: dict[str, dict[str, int]] = field(default_factory=dict)


def entity_ids(inventory: Inventory) -> dict[str, list[str]]:
    """Entities whose counters a snapshot needs, in the order of its arrays."""
    categories = {p.content_category for p in inventory.placements.values() if p.content_category}
    return {**inventory.entity_ids, "placement": list(inventory.placements), "category": sorted(categories)}


def entity_counters(
    inventory: Inventory, tables: Mapping[str, Table], now_s: int, columns: Columns = COLUMNS
) -> EntityCounters:
    """The snapshot of tables by entity, one reply per id of `entity_ids` and in its order."""
    of_row = inventory.entity_of_row
    ads = len(inventory.rows)
    of_ad: dict[str, np.ndarray] = {}
    for feature in columns.of_ad:  # a parent comes before its children
        table, at = tables[feature.entity], of_row[feature.entity]
        if feature.parent is None:
            of_ad[feature.name] = table.feature(feature, now_s)[at]
        else:
            above, below = table.parts(feature, now_s)
            believed = of_ad[feature.parent] * feature.prior_impressions
            of_ad[feature.name] = (above[at] + believed) / (below[at] + feature.prior_impressions)
    parts = [(f, *tables[f.entity].parts(f, now_s)) for f in columns.of_both]
    ids = entity_ids(inventory)
    return EntityCounters(
        read_s=float(now_s),
        of_ad=_stacked(list(of_ad.values()), ads),
        above=_stacked([above[of_row[f.entity]] for f, above, _ in parts], ads),
        below=_stacked([below[of_row[f.entity]] for f, _, below in parts], ads),
        of_request={
            e: _stacked([tables[e].feature(f, now_s) for f in columns.of_request[e]], len(ids[e])) for e in OF_REQUEST
        },
        place={e: {id_: i for i, id_ in enumerate(ids[e])} for e in OF_REQUEST},
    )


def _stacked(rows: list[np.ndarray], length: int) -> np.ndarray:
    return np.array(rows, np.float64).reshape(len(rows), length)


class Table:
    """Counters of many entities of one kind: all buckets in flat arrays, with their entity's position beside them.

    `replies` are those of HGETALL, one for each entity.
    """

    def __init__(self, replies: Sequence[Sequence[bytes]]) -> None:
        self._entities = len(replies)
        replies = [well_formed(reply, scoped=False) for reply in replies]
        entries, self._start_s, sizes = decode(list(chain.from_iterable(replies)), scoped=False)
        owner_of_bucket = np.repeat(np.arange(self._entities), [len(reply) // 2 for reply in replies])
        self._owner = np.repeat(owner_of_bucket, sizes)
        self._code, self._value = entries["code"], entries["value"]

    def window(self, counter: Counter, window_s: int, now_s: int) -> np.ndarray:
        """Sum per entity over a rolling window. Buckets never hold 0, so a sum of 0 means that there is none."""
        first, last = window_buckets(now_s, window_s, counter.bucket_s)
        inside = (self._code == counter.code) & (self._start_s >= first) & (self._start_s <= last)
        return np.bincount(self._owner[inside], weights=self._value[inside], minlength=self._entities)

    def parts(self, rate: Feature, now_s: int) -> tuple[np.ndarray, np.ndarray]:
        """(numerator, denominator) of a rate for every entity."""
        above = self.window(COUNTER_BY_NAME[rate.numerator], rate.window_s, now_s)
        return above, self.window(COUNTER_BY_NAME[rate.denominator or ""], rate.window_s, now_s)

    def feature(self, feature: Feature, now_s: int) -> np.ndarray:
        """`schemas.features.feature_value` of a feature without parent, for every entity."""
        if feature.denominator is None:
            sums = self.window(COUNTER_BY_NAME[feature.numerator], feature.window_s, now_s)
            return np.where(sums > 0, sums, feature.default)
        above, below = self.parts(feature, now_s)
        return np.where(
            below > 0, (above + feature.prior_clicks) / (below + feature.prior_impressions), feature.default
        )
