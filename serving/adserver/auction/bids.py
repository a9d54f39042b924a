"""DSPs' bids as candidates: each one checked alone, and refused with the specification's own reason.

Source: OpenRTB 2.6 §4.2 (responses), "Loss Reason Codes"; §3.2.11-12 (deals).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from schemas.catalog import Bidder
from schemas.decisions import Outcome
from schemas.ids import foreign_id
from serving.adserver.auction.deals import DealTerms
from serving.adserver.auction.imp_rules import ImpRules
from serving.adserver.auction.rates import MOST_MICROS, UNSAID, Rates, micros_of
from serving.adserver.auction.rules import Candidate
from serving.adserver.openrtb.messages import Bid, BidResponse, BrokenBid, SeatBid

_MTYPES = {1: "banner", 2: "video", 3: "audio", 4: "native"}
_LONGEST_DOMAIN = 253
_DOMAIN = re.compile(r"[^\s/:@.]++(?:\.[^\s/:@.]++)++", re.ASCII)


def candidates(
    response: BidResponse, bidder: Bidder, rules: ImpRules, rates: Rates, imps: set[str], markup_chars: int
) -> list[Candidate]:
    """Candidates of an imp in a DSP's response, the refused ones with their reason.

    A bid for an imp that the request does not have is given with the first imp, so that it is told of once. Nobody
    looks into markup of more than `markup_chars`.
    """
    known_response = response.id == rules.request_id
    seen: set[tuple[str, str]] = set()
    found = []
    for seat in response.seatbid:
        for bid in seat.bid:
            named = bid.id, bid.impid
            twice = named in seen and bid.id != ""
            seen.add(named)
            if bid.impid == rules.imp.id or (rules.place.is_first and bid.impid not in imps):
                broken = twice, max(len(bid.adm), len(bid.nurl)) > markup_chars
                found.append(_candidate(response, seat, bid, bidder, rules, rates, known_response, *broken))
    return found


def _candidate(
    response: BidResponse,
    seat: SeatBid,
    bid: Bid,
    bidder: Bidder,
    rules: ImpRules,
    rates: Rates,
    known_response: bool,
    twice: bool,
    too_long: bool,
) -> Candidate:
    terms = rules.place.deals.get(bid.dealid) if bid.dealid else None
    price_micros = 0 if terms is not None and bid.price == 0 else micros_of(bid.price)  # a deal may ask for nothing
    bid_micros = rates.to_ours(price_micros, response.cur) if price_micros is not None else None
    if bid_micros is not None and bid_micros > MOST_MICROS:
        price_micros = bid_micros = None
    ad_format = format_of(bid, rules.formats)
    outcome = Outcome.INVALID_AUCTION_ID if not known_response else None
    outcome = outcome or (Outcome.INVALID_RESPONSE if too_long else None)
    outcome = outcome or _malformed(bid, rules, twice, price_micros) or _unwanted_seat(seat, bidder, rules)
    if outcome is None and bid_micros is None:
        outcome = Outcome.CURRENCY_UNKNOWN
    if outcome is None:
        outcome = _refused_by_deal(bid, seat, bidder, rules, terms)
    if outcome is None:
        outcome = rules.refuses_bid(bid, ad_format)
    made = Candidate(
        kind="dsp",
        pricing="rtb",
        advertiser_id=bid.adomain[0].lower() if bid.adomain else f"x-{bidder.id}",
        campaign_id=f"x-{bidder.id}-{foreign_id(bid.cid or bid.crid)}",
        creative_id=f"x-{bidder.id}-{foreign_id(bid.crid)}",
        bid_micros=bid_micros or 0,
        bid_cpm_micros=bid_micros or 0,
        outcome=outcome or Outcome.LOST_TO_HIGHER_BID,
        bidder_id=bidder.id,
        seat_id=seat.seat or None,
        bid=bid,
        bid_currency=response.cur or UNSAID,
        response_bidid=response.bidid,
        deal_type="open",
        seat=seat,
        markup_format=ad_format,
    )
    if terms is not None:
        _enter_deal(made, terms)
    elif bid.dealid:
        made.deal_id, made.deal_type = bid.dealid, None
    return made


def _malformed(bid: Bid, rules: ImpRules, twice: bool, price_micros: int | None) -> Outcome | None:
    """What is wrong with a bid whatever it is for."""
    if isinstance(bid, BrokenBid) or not bid.id or bid.impid != rules.imp.id:
        return Outcome.INVALID_RESPONSE
    if twice:
        return Outcome.DUPLICATE_BID
    if price_micros is None:
        return Outcome.MISSING_PRICE
    if not bid.crid:
        return Outcome.MISSING_CREATIVE_ID
    for domain in bid.adomain:
        if not _is_domain(domain):
            return Outcome.INVALID_ADVERTISER_DOMAIN
    if not bid.adomain and rules.blocked_domains:
        return Outcome.INVALID_ADVERTISER_DOMAIN  # without one, what is blocked can't be told
    if not bid.adm and (not bid.nurl or bid.mtype == 4):
        return Outcome.MISSING_MARKUP
    return None


def _unwanted_seat(seat: SeatBid, bidder: Bidder, rules: ImpRules) -> Outcome | None:
    if bidder.seat_ids and seat.seat not in bidder.seat_ids:
        return Outcome.BUYER_BLOCKED
    if (rules.wseat and seat.seat not in rules.wseat) or seat.seat in rules.bseat:
        return Outcome.BUYER_BLOCKED
    return None


def _refused_by_deal(
    bid: Bid, seat: SeatBid, bidder: Bidder, rules: ImpRules, terms: DealTerms | None
) -> Outcome | None:
    """A deal must be one of the imp's, with this buyer; without one, the imp must not be for deals alone."""
    if not bid.dealid:
        return Outcome.NOT_ALLOWED_IN_DEAL if rules.place.private_auction else None
    if terms is None or (terms.bidders and bidder.id not in terms.bidders):
        return Outcome.INVALID_DEAL
    if terms.seats and seat.seat not in terms.seats:
        return Outcome.INVALID_DEAL
    if terms.domains and not all(_within(d.lower(), terms.domains) for d in bid.adomain or [""]):
        return Outcome.NOT_ALLOWED_IN_DEAL
    return None


def _enter_deal(made: Candidate, terms: DealTerms) -> None:
    """A deal's floor stands in for the imp's; a fixed price is what is paid, by whoever bids as much."""
    made.deal_id, made.deal_type, made.priority = terms.id, terms.type, terms.priority
    made.under_deal = True
    if not made.runs:
        return
    floor = terms.floor_of(made.duration_s)
    if floor is None or made.bid_cpm_micros < floor:
        made.outcome = Outcome.BELOW_DEAL_FLOOR
    elif terms.fixed and terms.floor_cpm_micros:
        made.bid_micros = made.bid_cpm_micros = terms.floor_cpm_micros


def format_of(bid: Bid, offered: Sequence[str] = ()) -> str:
    """What a bid's markup is. §4.2.3 `mtype`: 1 banner, 2 video, 3 audio, 4 native; without it the markup itself tells,
    and where that could be several, what the imp offers.

    Example:
    >>> [format_of(Bid(adm=markup)) for markup in ("<VAST version='4.0'/>", '{"native":{}}', "<a/>")]
    ['video', 'native', 'banner']
    >>> format_of(Bid(adm="<VAST version='4.0'/>"), ["audio", "banner"]), format_of(Bid(adm="{html}"), ["banner"])
    ('audio', 'banner')
    """
    if bid.mtype in _MTYPES:
        return _MTYPES[bid.mtype]
    start = (bid.adm or bid.nurl).lstrip()[:512]
    likely: tuple[str, ...] = ("banner",)
    if start.startswith("{"):
        likely = ("native", "banner")
    elif "<VAST" in start or "<?xml" in start:
        likely = ("video", "audio")
    elif start.startswith(("http://", "https://")):
        likely = ("video", "audio") if bid.adm else ("video", "audio", "banner")
    return next((f for f in likely if f in offered), likely[0])


def _is_domain(text: str) -> bool:
    return len(text) <= _LONGEST_DOMAIN and _looks_like_domain(text)


@lru_cache(maxsize=4096)
def _looks_like_domain(text: str) -> bool:
    return _DOMAIN.fullmatch(text) is not None and text.isprintable()


def _within(domain: str, domains: frozenset[str]) -> bool:
    return domain in domains or any(domain.endswith("." + d) for d in domains)
