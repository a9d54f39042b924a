"""Numeric inputs as rows of an array: which feature is where, and who it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from schemas.counters import COUNTER_BY_NAME
from schemas.features import CONTEXT_FEATURES, FEATURES, Feature

#: Entities that come with the candidate, and those that the request names.
OF_AD = ("creative", "campaign", "advertiser", "creative_format")
OF_REQUEST = ("placement", "category")
ENTITIES = (*OF_AD, *OF_REQUEST)


class Columns:
    """Features and context inputs in the order of their rows. `row` is the place of a name."""

    def __init__(self, features: Sequence[Feature] = FEATURES) -> None:
        self.features = tuple(features)
        self.names: tuple[str, ...] = tuple(f.name for f in features) + CONTEXT_FEATURES
        self.row = {name: i for i, name in enumerate(self.names)}
        self.defaults = np.array([f.default for f in features] + [0.0] * len(CONTEXT_FEATURES))
        self._by_name = {f.name: f for f in features}
        self.user = tuple(f for f in features if f.entity == "user")
        #: Of ads alone: the same for every request until counters change.
        self.of_ad = tuple(f for f in features if f.entity in OF_AD and not self._needs_request(f))
        #: Of ads, but shrunk to what the request names.
        self.of_both = tuple(f for f in features if f.entity in OF_AD and self._needs_request(f))
        self.of_request = {e: tuple(f for f in features if f.entity == e) for e in OF_REQUEST}

    def _needs_request(self, feature: Feature) -> bool:
        while feature.parent is not None:
            feature = self._by_name[feature.parent]
        return feature.entity in OF_REQUEST

    def rows(self, features: Sequence[Feature]) -> np.ndarray:
        return np.array([self.row[f.name] for f in features], np.intp)

    @cached_property
    def shared(self) -> tuple[str, ...]:
        """Names of what all candidates of a request have in common."""
        of_user = [f for f in self.user if COUNTER_BY_NAME[f.numerator].scope in ("", "category")]
        common = [f for e in OF_REQUEST for f in self.of_request[e]]
        return (*(f.name for f in (*of_user, *common)), "hour_of_day", "hour_of_week", "live_content")


COLUMNS = Columns()
