"""Model inputs at decision time: declared in `schemas.features`, summed here for all candidates at once.

Counters of ads and of what they belong to are read off-path once a second into an `EntityCounters` snapshot; the
user's come with the request. Sums and windows are those of `schemas.features`, so the lake's rebuild agrees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from schemas.features import (
    CONTEXT_FEATURES,
    COUNTER_BY_NAME,
    FEATURE_BY_NAME,
    FEATURES,
    Counter,
    Feature,
    feature_value,
    window_buckets,
)
from schemas.ids import scope_hash
from serving.adserver.features.counters import CounterBlob, decode
from serving.adserver.inventory import AdRow, Inventory

NUMERIC: tuple[str, ...] = tuple(f.name for f in FEATURES) + CONTEXT_FEATURES
_COLUMN = {name: i for i, name in enumerate(NUMERIC)}
_DEFAULTS = np.array([f.default for f in FEATURES] + [0.0] * len(CONTEXT_FEATURES))
_USER = tuple(f for f in FEATURES if f.entity == "user")
_OTHERS = tuple(f for f in FEATURES if f.entity != "user")
_SCOPE_POSITION = {"creative": 0, "campaign": 1, "advertiser": 2}
#: What the request says, and not the candidate.
_OF_REQUEST = ("placement", "category")
ENTITIES = ("creative", "campaign", "advertiser", "creative_format", *_OF_REQUEST)

PRESENT, EXPIRED, MISSING, DEFAULT = "present", "expired", "missing", "default"


@dataclass(frozen=True, slots=True)
class EntityCounters:
    """Features of every entity of an inventory at one moment.

    Shape: `columns[feature]` is a float64 array over the ids of the feature's entity: its values or, when it has a
    parent, its sums: the value depends on the request then. `of_request[entity]` gives the position of an id.
    """

    read_s: float  # epoch s; 0 before the first reading
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    impressions: dict[str, np.ndarray] = field(default_factory=dict)  # of features with a parent
    of_request: dict[str, dict[str, int]] = field(default_factory=dict)
    creative_clicks: np.ndarray = field(default_factory=lambda: np.zeros(0))
    creative_impressions: np.ndarray = field(default_factory=lambda: np.zeros(0))


def entity_ids(inventory: Inventory) -> dict[str, list[str]]:
    """Entities whose counters a snapshot needs, in the order of its arrays."""
    categories = {p.content_category for p in inventory.placements.values() if p.content_category}
    return {**inventory.entity_ids, "placement": list(inventory.placements), "category": sorted(categories)}


def entity_counters(
    ids: dict[str, list[str]], replies: Mapping[str, Sequence[Sequence[bytes]]], now_s: int
) -> EntityCounters:
    """The snapshot of HGETALL replies, one per id and in the ids' order."""
    columns: dict[str, np.ndarray] = {}
    below: dict[str, np.ndarray] = {}
    tables = {entity: _Table(replies[entity]) for entity in ENTITIES}
    for feature in _OTHERS:
        table = tables[feature.entity]
        if feature.parent is None:
            columns[feature.name] = table.feature(feature, now_s)
        else:
            columns[feature.name], below[feature.name] = table.parts(feature, now_s)
    clicks, impressions = tables["creative"].parts(FEATURE_BY_NAME["creative_ctr_24h"], now_s)
    of_request = {entity: {id_: i for i, id_ in enumerate(ids[entity])} for entity in _OF_REQUEST}
    return EntityCounters(float(now_s), columns, below, of_request, clicks, impressions)


class _Table:
    """Counters of many entities of one kind: all buckets in flat arrays, with their entity's position beside them."""

    def __init__(self, replies: Sequence[Sequence[bytes]]) -> None:
        self._entities = len(replies)
        decoded = [decode(reply, scoped=False) for reply in replies]
        self._owner = np.repeat(np.arange(self._entities), [len(entries) for entries, _ in decoded])
        entries = np.concatenate([entries for entries, _ in decoded] or [decode((), scoped=False)[0]])
        self._code, self._value = entries["code"], entries["value"]
        self._start_s = np.concatenate([starts for _, starts in decoded] or [np.zeros(0, np.int64)])

    def window(self, counter: Counter, window_s: int, now_s: int) -> tuple[np.ndarray, np.ndarray]:
        """(sum, number of buckets) per entity over a rolling window."""
        first, last = window_buckets(now_s, window_s, counter.bucket_s)
        inside = (self._code == counter.code) & (self._start_s >= first) & (self._start_s <= last)
        owner = self._owner[inside]
        sums = np.bincount(owner, weights=self._value[inside], minlength=self._entities)
        return sums, np.bincount(owner, minlength=self._entities)

    def parts(self, rate: Feature, now_s: int) -> tuple[np.ndarray, np.ndarray]:
        """(numerator, denominator) of a rate for every entity."""
        above, _ = self.window(COUNTER_BY_NAME[rate.numerator], rate.window_s, now_s)
        below, _ = self.window(COUNTER_BY_NAME[rate.denominator or ""], rate.window_s, now_s)
        return above, below

    def feature(self, feature: Feature, now_s: int) -> np.ndarray:
        """`schemas.features.feature_value` of a feature without parent, for every entity."""
        sums, found = self.window(COUNTER_BY_NAME[feature.numerator], feature.window_s, now_s)
        if feature.denominator is None:
            return np.where(found > 0, sums, feature.default)
        below, found = self.window(COUNTER_BY_NAME[feature.denominator], feature.window_s, now_s)
        rate = (sums + feature.prior_clicks) / (below + feature.prior_impressions)
        return np.where(found > 0, rate, feature.default)


class FeatureReader:
    """Assembles the numeric inputs of one opportunity's candidates.

    `expired_s`: age from which a snapshot is worse than defaults.
    """

    def __init__(self, expired_s: float) -> None:
        self._expired_s = expired_s

    def matrix(
        self,
        inventory: Inventory,
        rows: Sequence[AdRow],
        placement_id: str,
        category: str | None,
        user: CounterBlob | None,
        counters: EntityCounters,
        now_s: int,
    ) -> tuple[np.ndarray, dict[str, str]]:
        """(inputs, status by group). Shape: float64, one row per candidate, columns as `NUMERIC`.

        `user` is None for a user that is unknown or could not be read; defaults stand in. A group is `present`;
        `expired` when its snapshot is too old; `missing` when nothing is known of it; `default` without a user.
        """
        values = np.empty((len(rows), len(NUMERIC)))
        values[:] = _DEFAULTS
        values[:, _COLUMN["hour_of_day"]] = now_s // 3600 % 24
        status = dict.fromkeys(ENTITIES, MISSING)
        if counters.read_s:
            state = PRESENT if now_s - counters.read_s < self._expired_s else EXPIRED
            status = dict.fromkeys(ENTITIES, state)
            if state == PRESENT:
                asked = {"placement": placement_id, "category": category or ""}
                status |= self._entities(values, inventory, rows, asked, counters)
        if user is None:
            status["user"] = DEFAULT
        else:
            status["user"] = PRESENT if len(user) else MISSING
            if len(user):
                self._user(values, rows, category, user, now_s)
        return values, status

    def _entities(
        self,
        values: np.ndarray,
        inventory: Inventory,
        rows: Sequence[AdRow],
        asked: Mapping[str, str],
        counters: EntityCounters,
    ) -> dict[str, str]:
        """Fills in what the snapshot has; gives back the status of the entities that the request names."""
        own = np.fromiter((r.row for r in rows), np.intp, len(rows))
        place: dict[str, np.ndarray | int | None] = {e: of_row[own] for e, of_row in inventory.entity_of_row.items()}
        place |= {entity: counters.of_request[entity].get(asked[entity]) for entity in _OF_REQUEST}
        for feature in _OTHERS:  # a parent comes before its children
            at = place[feature.entity]
            if at is None:
                continue
            found = counters.columns[feature.name][at]
            if feature.parent is not None:
                believed = values[:, _COLUMN[feature.parent]] * feature.prior_impressions
                found = (found + believed) / (counters.impressions[feature.name][at] + feature.prior_impressions)
            values[:, _COLUMN[feature.name]] = found
        return {entity: MISSING if place[entity] is None else PRESENT for entity in _OF_REQUEST}

    def _user(
        self, values: np.ndarray, rows: Sequence[AdRow], category: str | None, user: CounterBlob, now_s: int
    ) -> None:
        for feature in _USER:
            above = _sums(user, feature.numerator, feature.window_s, now_s)
            below = _sums(user, feature.denominator, feature.window_s, now_s) if feature.denominator else {}
            if not above and not below:
                continue  # the defaults are there already
            scope = COUNTER_BY_NAME[feature.numerator].scope
            column = values[:, _COLUMN[feature.name]]
            if scope in _SCOPE_POSITION:
                position = _SCOPE_POSITION[scope]
                for i, row in enumerate(rows):
                    key = row.scopes[position]
                    column[i] = feature_value(feature, above.get(key), below.get(key))
            else:
                key = scope_hash(category) if category else 0
                column[:] = feature_value(feature, above.get(key), below.get(key))


def _sums(user: CounterBlob, counter_name: str, window_s: int, now_s: int) -> dict[int, int]:
    counter = COUNTER_BY_NAME[counter_name]
    return user.sums(counter.code, *window_buckets(now_s, window_s, counter.bucket_s))
