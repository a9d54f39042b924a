"""The catalogue as the auction reads it: rows of creatives with everything that a check needs, indexed and cached.

Immutable: a changed catalogue becomes a new `Inventory`, and requests in flight keep the old one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from schemas.catalog import Advertiser, Campaign, Catalog, Creative, LineItem, Placement
from schemas.errors import ConfigError
from schemas.features import id_of
from schemas.ids import scope_hash
from serving.adserver.auction.deals import TYPES, DealTerms, own_terms
from serving.adserver.auction.rates import Rates
from serving.adserver.limits.caps import CapRule, cap_rules

HOUSE = "house"
PRICINGS = ("cpm", "cpc", "cpv", "guaranteed", HOUSE)
FORMATS = ("video", "audio", "banner", "native")


@dataclass(frozen=True, slots=True)
class AdRow:
    """One creative with its line item, campaign and advertiser. `row` is its place in the inventory's arrays."""

    row: int
    creative: Creative
    line_item: LineItem
    campaign: Campaign
    advertiser: Advertiser
    caps: tuple[CapRule, ...]
    scopes: tuple[int, int, int]  # hashes of creative, campaign and advertiser id, as caps and features name them

    @property
    def is_house(self) -> bool:
        return self.line_item.pricing == HOUSE

    def runs_at(self, now_ms: int) -> bool:
        campaign = self.campaign
        return campaign.status == "active" and campaign.start_ms <= now_ms < campaign.end_ms


class Inventory:
    """Everything that may be shown. Errors: ConfigError when the catalogue holds what the server can't honour."""

    def __init__(self, catalog: Catalog) -> None:
        self.version = catalog.version
        self.currency = catalog.currency
        self.rates = Rates(catalog.currency, catalog.rates)
        self._deals = _deals(catalog)
        self.placements: dict[str, Placement] = {p.id: p for p in catalog.placements}
        campaigns = {c.id: c for c in catalog.campaigns}
        line_items = {li.id: li for li in catalog.line_items}
        advertisers = {a.id: a for a in catalog.advertisers}
        self.rows: list[AdRow] = []
        for creative in catalog.creatives:
            line_item = line_items[creative.line_item_id]
            campaign = campaigns[line_item.campaign_id]
            self.rows.append(_row(len(self.rows), creative, line_item, campaign, advertisers[campaign.advertiser_id]))
        #: Ids of what creatives belong to, and of creatives, by kind of entity; and where each creative's is in them.
        self.entity_ids: dict[str, list[str]] = {}
        self.entity_of_row: dict[str, np.ndarray] = {}
        for kind in ("creative", "campaign", "advertiser", "creative_format"):
            of_row = [_entity_id(kind, r) for r in self.rows]
            position = {entity_id: i for i, entity_id in enumerate(dict.fromkeys(of_row))}
            self.entity_ids[kind] = list(position)
            self.entity_of_row[kind] = np.array([position[entity_id] for entity_id in of_row], np.intp)
        self.campaign_ids = [c.id for c in catalog.campaigns]
        self._by_format = {f: [r for r in self.rows if r.creative.format == f] for f in FORMATS}
        # targeting does not depend on the moment, so its answers can be kept; the cache dies with this inventory
        self.targeted = lru_cache(maxsize=8192)(self._targeted)

    def deals_of(self, placement_id: str) -> tuple[DealTerms, ...]:
        """Deals that are offered on a placement."""
        return self._deals.get(placement_id) or self._deals.get("", ())

    def _targeted(
        self,
        creative_format: str,
        placement_id: str,
        country: str | None,
        device_type: str | None,
        category: str | None,
    ) -> tuple[tuple[AdRow, ...], tuple[AdRow, ...]]:
        """(rows to compete, house rows): approved, of this format, whose targeting wants this opportunity."""
        chosen = [
            r
            for r in self._by_format.get(creative_format, ())
            if r.creative.review == "approved"
            and _wants(r.line_item.targeting.countries, country)
            and _wants(r.line_item.targeting.device_types, device_type)
            and _wants(r.line_item.targeting.content_categories, category)
            and _wants(r.line_item.targeting.placement_ids, placement_id)
        ]
        return tuple(r for r in chosen if not r.is_house), tuple(r for r in chosen if r.is_house)


def _deals(catalog: Catalog) -> dict[str, tuple[DealTerms, ...]]:
    """Deals by placement; those of any placement are under the empty name."""
    found: dict[str, list[DealTerms]] = {}
    for deal in catalog.deals:
        if deal.type not in TYPES:
            raise ConfigError(f"deal {deal.id}: type {deal.type!r} is none of {TYPES}")
        for placement_id in deal.placement_ids or [""]:
            found.setdefault(placement_id, []).append(own_terms(deal))
    anywhere = found.get("", [])
    return {name: tuple(deals if name == "" else anywhere + deals) for name, deals in found.items()}


def _entity_id(kind: str, row: AdRow) -> str:
    columns = {
        "creative_id": row.creative.id,
        "campaign_id": row.campaign.id,
        "advertiser_id": row.advertiser.id,
        "creative_format": row.creative.format,
    }
    return id_of(kind, columns) or ""


def _wants(values: list[str], value: str | None) -> bool:
    return not values or value in values


def _row(row: int, creative: Creative, line: LineItem, campaign: Campaign, advertiser: Advertiser) -> AdRow:
    if line.pricing not in PRICINGS:
        raise ConfigError(f"line item {line.id}: pricing {line.pricing!r} is none of {PRICINGS}")
    if creative.format not in FORMATS:
        raise ConfigError(f"creative {creative.id}: format {creative.format!r} is none of {FORMATS}")
    if creative.format in ("video", "audio") and not creative.duration_s:
        raise ConfigError(f"creative {creative.id}: {creative.format} needs its duration_s")
    ids = {"creative": creative.id, "campaign": campaign.id, "advertiser": advertiser.id}
    scopes = (scope_hash(creative.id), scope_hash(campaign.id), scope_hash(advertiser.id))
    return AdRow(row, creative, line, campaign, advertiser, cap_rules(campaign.frequency_caps, ids), scopes)
