"""The auction of one imp: who may bid, at what price, who wins. Pure rules: no clock, no network, no state.

First price (`at: 1`): the winner pays its bid. Candidates that click-priced line items send in are ranked by
pCTR x CPC x 1000. House ads never compete; they are shown when nobody else is.
Source: OpenRTB 2.6 §2.4 (auction types), §4.2.3 (Bid), loss reason codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from schemas.decisions import Outcome
from schemas.money import to_micros
from serving.adserver.inventory import AdRow
from serving.adserver.openrtb.messages import Banner, Bid, BidRequest, BidResponse, Imp, Video


@dataclass(slots=True)
class Candidate:
    """One that took part. `bid_micros` is its price in its own unit (CPM, or CPC for `cpc`), `bid_cpm_micros` what it
    is ranked by. `outcome` is set as the auction goes; whoever is still in at the end lost to a higher bid.
    """

    kind: str  # internal or dsp
    pricing: str  # cpm, cpc, rtb or house
    advertiser_id: str
    campaign_id: str
    creative_id: str
    line_item_id: str = ""
    bid_micros: int = 0
    bid_cpm_micros: int = 0
    outcome: Outcome = Outcome.LOST_TO_HIGHER_BID
    p_ctr: float | None = None
    bidder_id: str | None = None
    seat_id: str | None = None
    row: AdRow | None = None
    bid: Bid | None = None

    @property
    def runs(self) -> bool:
        """Whether it may still win."""
        return self.outcome is Outcome.LOST_TO_HIGHER_BID


@dataclass(frozen=True, slots=True)
class Choice:
    """Who would win now, and with which probability this one was drawn among equals."""

    candidate: Candidate
    propensity: float


def from_row(row: AdRow) -> Candidate:
    """An internal candidate, not priced yet."""
    return Candidate(
        kind="internal",
        pricing=row.line_item.pricing,
        advertiser_id=row.advertiser.id,
        campaign_id=row.campaign.id,
        creative_id=row.creative.id,
        line_item_id=row.line_item.id,
        bid_micros=row.line_item.bid_micros,
        row=row,
    )


def fits(row: AdRow, imp: Imp, request: BidRequest, now_ms: int) -> Outcome | None:
    """Why a targeted creative can't run in this imp now; None when it can."""
    if not row.runs_at(now_ms):
        return Outcome.NOT_ACTIVE
    if row.advertiser.domain in request.badv:
        return Outcome.ADVERTISER_EXCLUDED
    if row.advertiser.category and row.advertiser.category in request.bcat:
        return Outcome.CATEGORY_EXCLUDED
    if imp.video is not None and row.creative.format == "video":
        return None if _fits_video(row, imp.video) else Outcome.FORMAT
    if imp.banner is not None and row.creative.format == "banner":
        return None if _fits_banner(row, imp.banner) else Outcome.FORMAT
    return Outcome.FORMAT


def _fits_video(row: AdRow, video: Video) -> bool:
    seconds = row.creative.duration_s or 0
    longest = video.maxduration or seconds
    return video.minduration <= seconds <= longest and (not row.creative.mime or row.creative.mime in video.mimes)


def _fits_banner(row: AdRow, banner: Banner) -> bool:
    sizes = {(f.w, f.h) for f in banner.format}
    if banner.w and banner.h:
        sizes.add((banner.w, banner.h))
    return not sizes or (row.creative.width, row.creative.height) in sizes


def price(candidate: Candidate) -> None:
    """Sets the CPM that an internal candidate is ranked by. Units: micros of a thousand impressions."""
    if candidate.pricing == "cpc":
        candidate.bid_cpm_micros = int((candidate.p_ctr or 0.0) * candidate.bid_micros * 1000)
    else:
        candidate.bid_cpm_micros = candidate.bid_micros


@dataclass(frozen=True, slots=True)
class BidRules:
    """What a bid is checked against."""

    request_id: str
    currency: str
    imps: Collection[str]
    blocked_domains: Collection[str]
    blocked_categories: Collection[str]


def from_response(
    response: BidResponse, bidder_id: str, seat_ids: Sequence[str], rules: BidRules
) -> list[tuple[str, Candidate]]:
    """(imp id, candidate) of every bid of a DSP's response, the refused ones with their reason.

    A bid for an imp that was not asked for has the imp id "".
    """
    found = []
    for seat in response.seatbid:
        for bid in seat.bid:
            outcome = _refusal(response, bid, rules)
            if outcome is None and seat_ids and seat.seat not in seat_ids:
                outcome = Outcome.BUYER_BLOCKED
            bid_micros = to_micros(repr(bid.price)) if _is_price(bid.price) else 0
            candidate = Candidate(
                kind="dsp",
                pricing="rtb",
                advertiser_id=bid.adomain[0] if bid.adomain else "",
                campaign_id=f"x-{bidder_id}-{bid.cid or bid.crid}",
                creative_id=f"x-{bidder_id}-{bid.crid}",
                bid_micros=bid_micros,
                bid_cpm_micros=bid_micros,
                outcome=outcome or Outcome.LOST_TO_HIGHER_BID,
                bidder_id=bidder_id,
                seat_id=seat.seat or None,
                bid=bid,
            )
            found.append((bid.impid if bid.impid in rules.imps else "", candidate))
    return found


def _refusal(response: BidResponse, bid: Bid, rules: BidRules) -> Outcome | None:
    if response.id != rules.request_id:
        return Outcome.INVALID_AUCTION_ID
    if response.cur != rules.currency or not bid.id or bid.impid not in rules.imps:
        return Outcome.INVALID_RESPONSE
    if not _is_price(bid.price):
        return Outcome.MISSING_PRICE
    if not bid.crid:
        return Outcome.MISSING_CREATIVE_ID
    if not bid.adomain or not all(bid.adomain):
        return Outcome.INVALID_ADVERTISER_DOMAIN
    if not bid.adm:
        return Outcome.MISSING_MARKUP
    if any(_blocks(domain, rules.blocked_domains) for domain in bid.adomain):
        return Outcome.ADVERTISER_EXCLUDED
    if any(category in rules.blocked_categories for category in bid.cat):
        return Outcome.CATEGORY_EXCLUDED
    return None


def _is_price(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and 0 < value < 1e9


def _blocks(domain: str, blocked: Collection[str]) -> bool:
    """A blocked domain blocks its subdomains."""
    return any(domain == b or domain.endswith("." + b) for b in blocked)


def apply_floor(candidates: Sequence[Candidate], floor_cpm_micros: int | None) -> None:
    """Takes out bids below the floor; all of them when the floor is unknown (None), as nothing is then above it."""
    for candidate in candidates:
        if candidate.runs and (floor_cpm_micros is None or candidate.bid_cpm_micros < floor_cpm_micros):
            candidate.outcome = Outcome.BELOW_FLOOR


def choose(candidates: Sequence[Candidate], draw: Callable[[int], int]) -> Choice | None:
    """The highest bid of those still in; among equals `draw(n)` picks one of n. None when nobody is left."""
    running = [c for c in candidates if c.runs and c.bid_cpm_micros > 0]
    if not running:
        return None
    highest = max(c.bid_cpm_micros for c in running)
    equals = [c for c in running if c.bid_cpm_micros == highest]
    chosen = equals[draw(len(equals))] if len(equals) > 1 else equals[0]
    return Choice(chosen, 1.0 / len(equals))
