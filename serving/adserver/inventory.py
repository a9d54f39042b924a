"""The catalogue as the auction reads it: rows of creatives with everything that a check needs, indexed and cached.

Immutable: a changed catalogue becomes a new `Inventory`, and requests in flight keep the old one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from schemas.catalog import Advertiser, Campaign, Catalog, Creative, LineItem, Placement
from schemas.counters import id_of
from schemas.errors import ConfigError
from schemas.ids import scope_hash
from serving.adserver.auction.deals import TYPES, DealTerms, own_terms
from serving.adserver.auction.rates import Rates
from serving.adserver.experiments import Experiments
from serving.adserver.limits.budget import PER_EVENT, price_of_win
from serving.adserver.limits.caps import PER_STREAM, PER_VIEWER, CapRule, cap_rules, capped_scopes, watched
from serving.adserver.limits.ledger import Budget
from serving.adserver.limits.pacing import AS_FAST_AS_POSSIBLE, PACINGS, Curve
from serving.adserver.limits.pending import SCOPE_CODES, Scope
from serving.adserver.targeting import Audience, TargetingIndex

HOUSE, GUARANTEED = "house", "guaranteed"
PRICINGS = ("cpm", "cpc", "cpv", GUARANTEED, HOUSE)
FORMATS = ("video", "audio", "banner", "native")
#: What is remembered of shapes of imps; an exchange's placements have few. Of more, the one asked for longest ago goes.
_MOST_KEPT_BYTES = 268_435_456


class Kept(Protocol):
    """What is remembered of a shape. `kept_bytes` is about what it takes."""

    kept_bytes: int


_T = TypeVar("_T", bound=Kept)


@dataclass(frozen=True, slots=True)
class AdRow:
    """One creative with its line item, campaign and advertiser. `row` is its place in the inventory's arrays."""

    row: int
    creative: Creative
    line_item: LineItem
    campaign: Campaign
    advertiser: Advertiser
    caps: tuple[CapRule, ...]
    watched: frozenset[int] | None  # by which caps are looked at: `limits.caps.watched`
    scopes: tuple[int, int, int]  # hashes of creative, campaign and advertiser id, as caps and features name them
    budget: Budget
    from_ms: int  # when campaign and line item both run; `until_ms` is 0 for a paused one
    until_ms: int
    win_price_micros: int  # the most that a win costs
    viewer_scopes: tuple[Scope, ...]  # whose wins are kept, because a cap of this or of another ad counts them
    stream_scopes: tuple[Scope, ...]
    exclusion_labels: frozenset[str]  # ads with one in common are not shown together

    @property
    def is_house(self) -> bool:
        return self.line_item.pricing == HOUSE

    @property
    def cap_scopes(self) -> tuple[Scope, ...]:
        """Creative, campaign and advertiser, as wins are counted."""
        return tuple(Scope(code, scope) for code, scope in zip(SCOPE_CODES.values(), self.scopes, strict=True))

    def runs_at(self, now_ms: int) -> bool:
        return self.from_ms <= now_ms < self.until_ms


class Inventory:
    """Everything that may be shown. Errors: ConfigError when the catalogue holds what the server can't honour."""

    def __init__(self, catalog: Catalog) -> None:
        for _ in self._build(catalog):
            pass

    @classmethod
    def in_steps(cls, catalog: Catalog) -> Generator[None, None, Inventory]:
        """The inventory, made with pauses in between, for a process that must not stand still. Errors: ConfigError."""
        made = cls.__new__(cls)
        yield from made._build(catalog)
        return made

    def _build(self, catalog: Catalog) -> Iterator[None]:
        self.version = catalog.version
        self.currency = catalog.currency
        self.rates = Rates(catalog.currency, catalog.rates)
        self.experiments = Experiments(catalog)
        self._deals = _deals(catalog)
        self._entrants: OrderedDict[bytes, Any] = OrderedDict()
        self._kept_bytes = 0
        self.placements: dict[str, Placement] = {p.id: p for p in catalog.placements}
        self._premium_publishers = frozenset(p.id for p in catalog.publishers if p.premium)
        self._premium_floor_cpm_micros = catalog.premium_floor_cpm_micros
        campaigns = {c.id: c for c in catalog.campaigns}
        line_items = {li.id: li for li in catalog.line_items}
        advertisers = {a.id: a for a in catalog.advertisers}
        owners = []
        for creative in catalog.creatives:
            line_item = line_items[creative.line_item_id]
            campaign = campaigns[line_item.campaign_id]
            owners.append((creative, line_item, campaign, advertisers[campaign.advertiser_id]))
        yield
        _check(catalog)
        rules = []
        for creative, _, campaign, advertiser in owners:
            rules.append(_cap_rules(creative, campaign, advertiser))
            yield
        capped = {per: {s for r in rules for s in capped_scopes(r, per)} for per in (PER_VIEWER, PER_STREAM)}
        per_event = {line.campaign_id for line in catalog.line_items if line.pricing in PER_EVENT}
        self.rows: list[AdRow] = []
        for i, (owner, caps) in enumerate(zip(owners, rules, strict=True)):
            self.rows.append(_row(i, *owner, caps, capped, owner[2].id in per_event))
            yield
        #: Budgets of the campaigns that have something to sell, and those of them that are paced.
        self.budgets: dict[str, Budget] = {r.campaign.id: r.budget for r in self.rows if not r.is_house}
        self.paced_campaigns = [
            c for c in catalog.campaigns if c.id in self.budgets and c.pacing != AS_FAST_AS_POSSIBLE
        ]
        self.cap_kinds = frozenset(rule.kind for row in self.rows for rule in row.caps if rule.per == PER_VIEWER)
        self.has_stream_caps = bool(capped[PER_STREAM])
        #: Ids of what creatives belong to, and of creatives, by kind of entity; and where each creative's is in them.
        self.entity_ids: dict[str, list[str]] = {}
        self.entity_of_row: dict[str, np.ndarray] = {}
        for kind in ("creative", "campaign", "advertiser", "creative_format"):
            of_row = [_entity_id(kind, r) for r in self.rows]
            position = {entity_id: i for i, entity_id in enumerate(dict.fromkeys(of_row))}
            self.entity_ids[kind] = list(position)
            self.entity_of_row[kind] = np.array([position[entity_id] for entity_id in of_row], np.intp)
            yield
        self.campaign_ids = [c.id for c in catalog.campaigns]
        self._index = TargetingIndex([r.line_item for r in self.rows])
        yield
        approved = {
            f: [r for r in self.rows if r.creative.format == f and r.creative.review == "approved"] for f in FORMATS
        }
        self._competing = {f: self._index.bits(r.row for r in rows if not r.is_house) for f, rows in approved.items()}
        self._house = {f: self._index.bits(r.row for r in rows if r.is_house) for f, rows in approved.items()}

    def entrants_of(self, shape: bytes, make: Callable[[], _T]) -> _T:
        """What is remembered of imps of a shape; `make`'s at first, and gone with this inventory."""
        found: _T | None = self._entrants.get(shape)
        if found is None:
            found = self._entrants[shape] = make()
            self.has_grown(found.kept_bytes + len(shape))
        else:
            self._entrants.move_to_end(shape)
        return found

    def has_grown(self, by_bytes: int) -> None:
        """Takes note of more that is remembered of the shape last asked for; others make room for it."""
        self._kept_bytes += by_bytes
        while self._kept_bytes > _MOST_KEPT_BYTES and len(self._entrants) > 1:
            shape, oldest = self._entrants.popitem(last=False)
            self._kept_bytes -= oldest.kept_bytes + len(shape)

    def deals_of(self, placement_id: str) -> tuple[DealTerms, ...]:
        """Deals that are offered on a placement."""
        return self._deals.get(placement_id) or self._deals.get("", ())

    def is_premium(self, placement_id: str, publisher_id: str, floor_cpm_micros: int | None) -> bool:
        """Whether an imp is worth asking every DSP for: by its placement, its publisher or its floor."""
        placement, least_micros = self.placements.get(placement_id), self._premium_floor_cpm_micros
        return (
            (placement is not None and placement.premium)
            or publisher_id in self._premium_publishers
            or bool(least_micros and floor_cpm_micros and floor_cpm_micros >= least_micros)
        )

    def targeted(self, creative_format: str, audience: Audience) -> tuple[list[AdRow], list[AdRow]]:
        """(rows to compete, house rows): approved, of this format, whose targeting wants this audience."""
        rows, index = self.rows, self._index
        competing = index.find(audience, self._competing[creative_format])
        return [rows[i] for i in competing], [rows[i] for i in index.find(audience, self._house[creative_format])]

    def audience(self, audience: Audience) -> Audience:
        """An audience with nothing in it that no line item asks for, which `targeted` answers from memory."""
        return self._index.reduced(audience)


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


def _check(catalog: Catalog) -> None:
    """Errors: ConfigError for what a campaign or line item says and the server can't keep."""
    lines_of: dict[str, list[LineItem]] = {}
    for line in catalog.line_items:
        if line.pricing not in PRICINGS:
            raise ConfigError(f"line item {line.id}: pricing {line.pricing!r} is none of {PRICINGS}")
        lines_of.setdefault(line.campaign_id, []).append(line)
    for campaign in catalog.campaigns:
        if campaign.pacing not in PACINGS:
            raise ConfigError(f"campaign {campaign.id}: pacing {campaign.pacing!r} is none of {PACINGS}")
        try:
            Curve(campaign.traffic_curve)
        except ValueError as e:
            raise ConfigError(f"campaign {campaign.id}: traffic_curve: {e}") from e
        lines = lines_of.get(campaign.id, [])
        promised = [line for line in lines if line.pricing == GUARANTEED]
        # what was delivered is known per campaign
        if promised and len(lines) > 1:
            raise ConfigError(f"campaign {campaign.id}: a guaranteed line item needs a campaign of its own")
        for line in promised:
            if line.goal_impressions <= 0 or price_of_win(line.pricing, line.bid_micros) <= 0:
                raise ConfigError(f"line item {line.id}: guaranteed needs goal_impressions and bid_micros >= 1000")


def _budget(campaign: Campaign, line: LineItem, per_event: bool) -> Budget:
    """A campaign's budget; a promise of impressions is a lifetime budget too, so it is kept and never exceeded."""
    lifetime_micros = campaign.lifetime_budget_micros
    if line.pricing == GUARANTEED:
        promised_micros = line.goal_impressions * price_of_win(line.pricing, line.bid_micros)
        lifetime_micros = min(lifetime_micros or promised_micros, promised_micros)
    return Budget(campaign.id, campaign.daily_budget_micros, lifetime_micros, per_event)


def _cap_rules(creative: Creative, campaign: Campaign, advertiser: Advertiser) -> tuple[CapRule, ...]:
    ids = {"creative": creative.id, "campaign": campaign.id, "advertiser": advertiser.id}
    return cap_rules(campaign.frequency_caps, ids)


def _row(
    row: int,
    creative: Creative,
    line: LineItem,
    campaign: Campaign,
    advertiser: Advertiser,
    caps: tuple[CapRule, ...],
    capped: dict[str, set[Scope]],
    per_event: bool,
) -> AdRow:
    if creative.format not in FORMATS:
        raise ConfigError(f"creative {creative.id}: format {creative.format!r} is none of {FORMATS}")
    if creative.format in ("video", "audio") and not creative.duration_s:
        raise ConfigError(f"creative {creative.id}: {creative.format} needs its duration_s")
    scopes = (scope_hash(creative.id), scope_hash(campaign.id), scope_hash(advertiser.id))
    own = [Scope(code, scope) for code, scope in zip(SCOPE_CODES.values(), scopes, strict=True)]
    return AdRow(
        row,
        creative,
        line,
        campaign,
        advertiser,
        caps,
        watched(caps),
        scopes,
        _budget(campaign, line, per_event),
        max(campaign.start_ms, line.start_ms),
        min(campaign.end_ms, line.end_ms) if campaign.status == "active" else 0,
        price_of_win(line.pricing, line.bid_micros),
        tuple(s for s in own if s in capped[PER_VIEWER]),
        tuple(s for s in own if s in capped[PER_STREAM]),
        frozenset(advertiser.exclusion_labels) | frozenset(line.exclusion_labels),
    )
