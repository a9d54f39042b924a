"""Model inputs at decision time: declared in `schemas.features`, put together here for all candidates at once.

Counters of ads and of what requests name are read off-path once a second into an `EntityCounters` snapshot; the
user's come with the request. Sums and windows are those of `schemas.features`, so the lake's rebuild agrees.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from schemas.features import hours
from serving.adserver.features.columns import COLUMNS, ENTITIES, OF_REQUEST, Columns
from serving.adserver.features.counters import CounterBlob
from serving.adserver.features.inputs import KEPT_LINEUPS, InputPool, Inputs
from serving.adserver.features.snapshot import EntityCounters
from serving.adserver.features.users import UserInputs
from serving.adserver.inventory import Inventory

PRESENT, EXPIRED, MISSING, DEFAULT = "present", "expired", "missing", "default"


class Asked(NamedTuple):
    """What inputs take from the request."""

    placement_id: str
    category: str | None = None
    live: bool = False
    device_type: str | None = None
    country: str | None = None
    publisher_id: str | None = None
    platform: str | None = None
    region: str | None = None

    def columns(self) -> dict[str, str | None]:
        """By AdEvent column, as `schemas.features.CATEGORIES` names them."""
        return {
            "placement_id": self.placement_id,
            "content_category": self.category,
            "device_type": self.device_type,
            "country": self.country,
            "publisher_id": self.publisher_id,
            "platform": self.platform,
            "region": self.region,
        }


class FeatureReader:
    """Assembles the numeric inputs of one opportunity's candidates.

    `expired_s`: age from which a snapshot is worse than defaults.
    """

    def __init__(self, expired_s: float, columns: Columns = COLUMNS) -> None:
        self._expired_s = expired_s
        self._columns = columns
        self._pool = InputPool(len(columns.names))
        self._users = UserInputs(columns)
        self._of_ad = columns.rows(columns.of_ad)
        self._of_request = {e: columns.rows(f) for e, f in columns.of_request.items()}
        self._context = [columns.row[n] for n in ("hour_of_day", "hour_of_week", "live_content")]
        self._duration = columns.row["creative_duration_s"]
        #: Inputs before the user's and the moment's, and their status, by lineup and what the request names.
        self._begun: dict[tuple[bytes, str, str | None, bool], tuple[np.ndarray, dict[str, str]]] = {}
        self._of: tuple[Inventory, EntityCounters] | None = None
        self._durations_s = np.zeros(0)

    def read(
        self,
        inventory: Inventory,
        own: np.ndarray,
        asked: Asked,
        user: CounterBlob | None,
        counters: EntityCounters,
        now_s: int,
    ) -> tuple[Inputs, dict[str, str]]:
        """(inputs, to be given back with `release`; status by group). `own`: the candidates' places in the inventory.

        `user` is None for a user that is unknown or could not be read; defaults stand in. A group is `present`;
        `expired` when its snapshot is too old; `missing` when nothing is known of it; `default` without a user.
        """
        if self._of is None or self._of[0] is not inventory or self._of[1] is not counters:
            self._durations_s = np.array([r.creative.duration_s or 0 for r in inventory.rows], np.float64)
            self._of = inventory, counters
            self._begun.clear()
        inputs = self._pool.lease(inventory, own)
        key = inputs.lineup, asked.placement_id, asked.category, now_s - counters.read_s >= self._expired_s
        begun = self._begun.get(key)
        if begun is None:
            if len(self._begun) >= KEPT_LINEUPS:
                self._begun.clear()
            begun = self._begun[key] = self._beginning(inputs, asked, counters, now_s)
        np.copyto(inputs.values, begun[0])
        for row, value in zip(self._context, (*hours(now_s), asked.live), strict=True):
            inputs.values[row] = value
        if user is None:
            return inputs, begun[1] | {"user": DEFAULT}
        if len(user):
            self._users.fill(inputs, asked.category, user, now_s)
        return inputs, begun[1] | {"user": PRESENT if len(user) else MISSING}

    def _beginning(
        self, inputs: Inputs, asked: Asked, counters: EntityCounters, now_s: int
    ) -> tuple[np.ndarray, dict[str, str]]:
        """What requests with these candidates have in common while the snapshot lasts: all but user and moment."""
        begun = np.zeros_like(inputs.values)
        values = begun[:, : inputs.candidates]
        values[:] = self._columns.defaults[:, None]
        values[self._duration] = self._durations_s[inputs.own]
        return begun, self._entities(values, inputs.own, asked, counters, now_s)

    def _entities(
        self, values: np.ndarray, own: np.ndarray, asked: Asked, counters: EntityCounters, now_s: int
    ) -> dict[str, str]:
        """Fills in what the snapshot has; gives back each entity's status."""
        if not counters.read_s:
            return dict.fromkeys(ENTITIES, MISSING)
        if now_s - counters.read_s >= self._expired_s:
            return dict.fromkeys(ENTITIES, EXPIRED)
        status = dict.fromkeys(ENTITIES, PRESENT)
        values[self._of_ad] = counters.of_ad.take(own, axis=1)
        named = {"placement": asked.placement_id, "category": asked.category or ""}
        for entity in OF_REQUEST:
            at = counters.place[entity].get(named[entity])
            if at is None:
                status[entity] = MISSING
            else:
                values[self._of_request[entity]] = counters.of_request[entity][:, at, None]
        above, below = counters.above.take(own, axis=1), counters.below.take(own, axis=1)
        for n, feature in enumerate(self._columns.of_both):  # a parent comes before its children
            believed = values[self._columns.row[feature.parent or ""]] * feature.prior_impressions
            shrunk = (above[n] + believed) / (below[n] + feature.prior_impressions)
            values[self._columns.row[feature.name]] = shrunk
        return status
