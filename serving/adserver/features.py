"""Model inputs at decision time: declared in `schemas.features`, summed here for all candidates at once.

Creatives', campaigns' and placements' counters are read off-path once a second into an `EntityCounters` snapshot;
the user's come with the request. Sums and windows are those of `schemas.features`, so the lake's rebuild agrees.
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
from serving.adserver.counters import CounterBlob, decode
from serving.adserver.inventory import AdRow, Inventory

NUMERIC: tuple[str, ...] = tuple(f.name for f in FEATURES) + CONTEXT_FEATURES
_COLUMN = {name: i for i, name in enumerate(NUMERIC)}
_DEFAULTS = np.array([f.default for f in FEATURES] + [0.0] * len(CONTEXT_FEATURES))
_USER = tuple(f for f in FEATURES if f.entity == "user")
_SCOPE_POSITION = {"creative": 0, "campaign": 1, "advertiser": 2}
ENTITIES = ("creative", "campaign", "placement")

PRESENT, EXPIRED, MISSING, DEFAULT = "present", "expired", "missing", "default"


@dataclass(frozen=True, slots=True)
class EntityCounters:
    """Features of every creative, campaign and placement of an inventory at one moment.

    Shape: `columns[feature]` is a float64 array over the inventory's creatives or campaigns, or over `placements`.
    """

    read_s: float  # epoch s; 0 before the first reading
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    placements: dict[str, int] = field(default_factory=dict)
    creative_clicks: np.ndarray = field(default_factory=lambda: np.zeros(0))
    creative_impressions: np.ndarray = field(default_factory=lambda: np.zeros(0))


def entity_ids(inventory: Inventory) -> dict[str, list[str]]:
    """Entities whose counters a snapshot needs, in the order of its arrays."""
    return {
        "creative": inventory.creative_ids,
        "campaign": inventory.campaign_ids,
        "placement": list(inventory.placements),
    }


def entity_counters(
    ids: dict[str, list[str]], replies: Mapping[str, Sequence[Sequence[bytes]]], now_s: int
) -> EntityCounters:
    """The snapshot of HGETALL replies, one per id and in the ids' order."""
    columns: dict[str, np.ndarray] = {}
    clicks = impressions = np.zeros(0)
    for entity in ENTITIES:
        table = _Table(replies[entity])
        for feature in FEATURES:
            if feature.entity == entity:
                columns[feature.name] = table.feature(feature, now_s)
        if entity == "creative":
            day = FEATURE_BY_NAME["creative_ctr_24h"]
            clicks = table.window(COUNTER_BY_NAME[day.numerator], day.window_s, now_s)[0]
            impressions = table.window(COUNTER_BY_NAME[day.denominator or ""], day.window_s, now_s)[0]
    positions = {p: i for i, p in enumerate(ids["placement"])}
    return EntityCounters(float(now_s), columns, positions, clicks, impressions)


class _Table:
    """Counters of many entities of one kind: all buckets in flat arrays, with their entity's position beside them."""

    def __init__(self, replies: Sequence[Sequence[bytes]]) -> None:
        self._entities = len(replies)
        counts = [len(r) // 2 for r in replies]
        fields, self._value = decode([x for reply in replies for x in reply])
        if len(self._value) != sum(counts):  # fields that are not ours were left out
            counts = [len(decode(reply)[1]) for reply in replies]
        self._owner = np.repeat(np.arange(self._entities), counts)
        self._code = fields["code"]
        self._bucket = fields["bucket_start_s"].astype(np.int64)

    def window(self, counter: Counter, window_s: int, now_s: int) -> tuple[np.ndarray, np.ndarray]:
        """(sum, number of buckets) per entity over a rolling window."""
        first, last = window_buckets(now_s, window_s, counter.bucket_s)
        inside = (self._code == counter.code) & (self._bucket >= first) & (self._bucket <= last)
        owner = self._owner[inside]
        sums = np.bincount(owner, weights=self._value[inside], minlength=self._entities)
        return sums, np.bincount(owner, minlength=self._entities)

    def feature(self, feature: Feature, now_s: int) -> np.ndarray:
        """`schemas.features.feature_value` for every entity."""
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

        `user` is None for a user that is unknown or could not be read; defaults stand in.
        """
        values = np.empty((len(rows), len(NUMERIC)))
        values[:] = _DEFAULTS
        values[:, _COLUMN["hour_of_day"]] = now_s // 3600 % 24
        status = dict.fromkeys(ENTITIES, MISSING)
        if counters.read_s:
            state = PRESENT if now_s - counters.read_s < self._expired_s else EXPIRED
            status = dict.fromkeys(ENTITIES, state)
            if state == PRESENT:
                status["placement"] = self._entities(values, inventory, rows, placement_id, counters)
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
        placement_id: str,
        counters: EntityCounters,
    ) -> str:
        creative = np.fromiter((r.row for r in rows), np.intp, len(rows))
        campaign = inventory.campaign_of_row[creative]
        placement = counters.placements.get(placement_id)
        for feature in FEATURES:
            column = counters.columns.get(feature.name)
            if column is None:
                continue
            if feature.entity == "creative":
                values[:, _COLUMN[feature.name]] = column[creative]
            elif feature.entity == "campaign":
                values[:, _COLUMN[feature.name]] = column[campaign]
            elif placement is not None:
                values[:, _COLUMN[feature.name]] = column[placement]
        return MISSING if placement is None else PRESENT

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
