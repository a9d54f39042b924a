"""Features of a request as most teams put them together: redis-py, a dict per candidate, a list of it, an array.

What belongs to ads and places is in process memory as ready dicts, as a feature store's client has it; the user's
counters are read per request, and summed for each candidate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import redis.asyncio

from schemas.counters import COUNTER_BY_NAME, window_buckets
from schemas.features import Feature, feature_value, hours
from schemas.ids import scope_hash
from schemas.redis_layout import unpack_counters, user_key

Table = Mapping[str, Mapping[str, float]]  # id -> feature -> value
Counts = Mapping[tuple[int, int], Sequence[tuple[int, int]]]  # (counter, scope) -> (bucket start s, value)


class StraightforwardFeatures:
    """`ads` by creative id, `places` by placement id."""

    def __init__(self, url: str, features: Sequence[Feature], ads: Table, places: Table) -> None:
        self._redis = redis.asyncio.Redis.from_url(url)
        self._user = [f for f in features if f.entity == "user"]
        self._ads = ads
        self._places = places

    async def close(self) -> None:
        await self._redis.aclose()

    async def matrix(
        self,
        pseudonym: str,
        candidates: Sequence[Mapping[str, str]],
        placement_id: str,
        category: str,
        names: Sequence[str],
        now_s: int,
    ) -> np.ndarray:
        """Shape: float64, a row per candidate (its creative, campaign and advertiser id), columns as `names`."""
        counts = await self.read(pseudonym)
        hour_of_day, hour_of_week = hours(now_s)
        rows = []
        for candidate in candidates:
            row: dict[str, Any] = {"hour_of_day": hour_of_day, "hour_of_week": hour_of_week, "live_content": 0}
            row.update(self._places[placement_id])
            row.update(self._ads[candidate["creative"]])
            scopes = {**candidate, "category": category}
            for feature in self._user:
                above = self._sum(counts, feature.numerator, feature.window_s, scopes, now_s)
                below = None
                if feature.denominator is not None:
                    below = self._sum(counts, feature.denominator, feature.window_s, scopes, now_s)
                row[feature.name] = feature_value(feature, above, below)
            rows.append([row[name] for name in names])
        return np.array(rows, np.float64)

    async def read(self, pseudonym: str) -> Counts:
        packed = await self._redis.hgetall(user_key(pseudonym).decode())
        counts: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for entry in unpack_counters("user", packed):
            counts.setdefault((entry.code, entry.scope), []).append((entry.bucket_start_s, entry.value))
        return counts

    @staticmethod
    def _sum(counts: Counts, name: str, window_s: int, scopes: Mapping[str, str], now_s: int) -> int | None:
        counter = COUNTER_BY_NAME[name]
        buckets = counts.get((counter.code, scope_hash(scopes[counter.scope])))
        if not buckets:
            return None
        first_s, last_s = window_buckets(now_s, window_s, counter.bucket_s)
        inside = [value for start_s, value in buckets if first_s <= start_s <= last_s]
        return sum(inside) if inside else None
