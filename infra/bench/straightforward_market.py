"""What the straightforward ad server keeps in memory: catalogue, DSPs, model, features of ads."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path

import lightgbm
import redis.asyncio as redis

from schemas.catalog_text import load_bidders, load_catalog
from schemas.counters import COUNTER_BY_NAME, window_buckets
from schemas.features import CATEGORICAL_FEATURES, FEATURES, feature_value
from schemas.redis_layout import CounterEntry, entity_key, unpack_counters

#: (counter's code, scope) -> (start of a bucket, value)
Counters = dict[tuple[int, int], list[tuple[int, int]]]


def by_counter(entries: Iterable[CounterEntry]) -> Counters:
    """An entity's counters, where they are found."""
    found: Counters = {}
    for entry in entries:
        found.setdefault((entry.code, entry.scope), []).append((entry.bucket_start_s, entry.value))
    return found


def total(counters: Counters, name: str, scope: int, first_s: int, last_s: int) -> int | None:
    """Sum of a counter's buckets; None without any."""
    values = [v for start_s, v in counters.get((COUNTER_BY_NAME[name].code, scope), ()) if first_s <= start_s <= last_s]
    return sum(values) if values else None


def entity_features(counters: Counters, entity: str, now_s: int, known: dict[str, float]) -> dict[str, float]:
    """Features of one ad, campaign, placement, ...; `known` has those of its parents."""
    values: dict[str, float] = {}
    for feature in FEATURES:
        if feature.entity != entity:
            continue
        span = window_buckets(now_s, feature.window_s, COUNTER_BY_NAME[feature.numerator].bucket_s)
        above = total(counters, feature.numerator, 0, *span)
        below = total(counters, feature.denominator, 0, *span) if feature.denominator else None
        parent = values.get(feature.parent, known.get(feature.parent)) if feature.parent else None
        values[feature.name] = feature_value(feature, above, below, parent)
    return values


class Market:
    """Catalogue, DSPs, model, and the features of ads, made again now and then."""

    def __init__(self, folder: Path, client: redis.Redis) -> None:
        catalog = load_catalog((folder / "catalog.json").read_text())
        self.redis = client
        self.currency = catalog.currency
        self.placements = {p.id: p for p in catalog.placements}
        self.line_items = {line.id: line for line in catalog.line_items}
        self.campaigns = {c.id: c for c in catalog.campaigns}
        self.advertisers = {a.id: a for a in catalog.advertisers}
        self.creatives = catalog.creatives
        self.bidders = load_bidders((folder / "bidders.json").read_text()).bidders
        spec = json.loads((folder / "spec.json").read_text())
        self.inputs: list[str] = spec["inputs"]
        self.codes = {n: {v: i for i, v in enumerate(spec["categories"].get(n, ()))} for n in CATEGORICAL_FEATURES}
        self.booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
        self.of_entity: dict[tuple[str, str], dict[str, float]] = {}

    async def refresh(self) -> None:
        """Features of all ads and of what they belong to, parents first."""
        ids: dict[str, list[str]] = {
            "category": sorted({p.content_category for p in self.placements.values()}),
            "placement": list(self.placements),
            "advertiser": list(self.advertisers),
            "creative_format": [f"{a}/video" for a in self.advertisers],
            "campaign": list(self.campaigns),
            "creative": [c.id for c in self.creatives],
        }
        now_s = int(time.time())
        found: dict[tuple[str, str], dict[str, float]] = {}
        for entity, names in ids.items():
            async with self.redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hgetall(entity_key(entity, name).decode())
                replies = await pipe.execute()
            for name, reply in zip(names, replies, strict=True):
                counters = by_counter(unpack_counters(entity, reply))
                found[entity, name] = entity_features(counters, entity, now_s, self._parents(entity, name, found))
        self.of_entity = found

    def _parents(self, entity: str, name: str, found: dict[tuple[str, str], dict[str, float]]) -> dict[str, float]:
        category = next(iter({p.content_category for p in self.placements.values()}))
        parents = dict(found.get(("category", category), {}))
        if entity in ("creative_format", "creative"):
            advertiser = name.split("/")[0]
            if entity == "creative":
                creative = next(c for c in self.creatives if c.id == name)
                campaign = self.campaigns[self.line_items[creative.line_item_id].campaign_id]
                advertiser = campaign.advertiser_id
                parents |= found[("campaign", campaign.id)]
                parents |= found[("creative_format", f"{advertiser}/video")]
            parents |= found[("advertiser", advertiser)]
        return parents
