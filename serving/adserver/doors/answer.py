"""Decisions as an OpenRTB response, in a currency that the request takes; with `test: 1` it explains itself.

Source: OpenRTB 2.6 §4.2 (response), §3.2.1 (`cur`, `test`), list "No-Bid Reason Codes".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from schemas.decisions import Degraded
from serving.adserver.auction.rates import Rates
from serving.adserver.auction.rules import Candidate
from serving.adserver.decision import Costs, Decision, costs
from serving.adserver.features.status import each_status
from serving.adserver.openrtb.messages import Bid, BidRequest, BidResponse, SeatBid

_OWN_SEAT = "headwater"
_MTYPES = {"banner": 1, "video": 2, "audio": 3, "native": 4}
_MICROS = 1_000_000

#: What a DSP's bid says of its creative, which is passed on.
_OF_THE_BID = (
    *("adomain", "bundle", "iurl", "cattax", "cat", "attr", "apis", "api", "protocol", "qagmediarating"),
    *("language", "langb", "w", "h", "wratio", "hratio", "exp", "dur", "slotinpod"),
)

UNKNOWN_ERROR, TECHNICAL_ERROR = 0, 1
#: The specification's reasons for no bid, of those of ours that it knows; the first that applies is told.
_NO_BID_REASONS = {
    Degraded.FAILED: TECHNICAL_ERROR,
    Degraded.TRAFFIC_BOT: 3,  # known web crawler
    Degraded.TRAFFIC_DATA_CENTER: 5,  # cloud, data center or proxy address
    Degraded.TRAFFIC_ADDRESS_RATE: 4,  # suspected non-human traffic, as those below
    Degraded.TRAFFIC_USER_RATE: 4,
    Degraded.TRAFFIC_INCONSISTENT: 4,
    Degraded.TRAFFIC_VERDICT: 4,
    Degraded.OVERLOADED: 15,  # insufficient auction time
}


def answer_currency(request: BidRequest, rates: Rates) -> str | None:
    """The currency to answer in: the catalogue's own if the request takes it, else the first that has a rate."""
    if not any(request.cur) or rates.currency in request.cur:
        return rates.currency
    return next((name for name in request.cur if name in rates), None)


def bid_response(request: BidRequest, decisions: Sequence[Decision], rates: Rates, currency: str) -> BidResponse | None:
    """The response; None when no imp has an ad."""
    bids = [_bid(d, rates, currency) for d in decisions if d.winner is not None]
    return BidResponse(id=request.id, seatbid=[SeatBid(bid=bids, seat=_OWN_SEAT)], cur=currency) if bids else None


def no_bid(request: BidRequest, nbr: int) -> BidResponse:
    """A response that says why there is no bid."""
    return BidResponse(id=request.id, nbr=nbr)


def no_bid_reason(reasons: Collection[Degraded]) -> int:
    """The specification's reason for what ours come to.

    Example:
    >>> no_bid_reason({Degraded.NO_CANDIDATE, Degraded.TRAFFIC_BOT}), no_bid_reason({Degraded.NO_CANDIDATE})
    (3, 0)
    """
    return next((nbr for reason, nbr in _NO_BID_REASONS.items() if reason in reasons), UNKNOWN_ERROR)


def wants_reason(request: BidRequest) -> bool:
    """Whether a no-bid is to be a response with its reason in it: of tests, and of who asks (`ext.headwater.nbr`)."""
    own = request.ext.get("headwater") if isinstance(request.ext, dict) else None
    return request.test == 1 or (isinstance(own, dict) and own.get("nbr") == 1)


def debug(decisions: Iterable[Decision], latency_ms: float) -> dict[str, Any]:
    """How each imp was decided: who took part, at what price, and why the others lost."""
    return {"latency_ms": round(latency_ms, 3), "imps": [_explained(d) for d in decisions]}


def _explained(decision: Decision) -> dict[str, Any]:
    place = decision.opportunity
    return {
        "imp_id": place.imp.id,
        "placement_id": place.placement_id,
        "formats": place.formats,
        "floor_cpm_micros": place.floor_cpm_micros,
        "deals": sorted(place.deals),
        "candidates": [_took_part(c) for c in decision.candidates],
        "propensity": decision.propensity,
        "model_version": decision.model_version,
        "features": decision.features,
        "feature_status": decision.feature_status,
        "status_by_feature": each_status(decision.features, decision.feature_status),
        "reasons": [Degraded(code).name for code in decision.reason_codes],
    }


def _took_part(candidate: Candidate) -> dict[str, Any]:
    said = {
        "kind": candidate.kind,
        "pricing": candidate.pricing,
        "creative_id": candidate.creative_id,
        "campaign_id": candidate.campaign_id,
        "bidder_id": candidate.bidder_id,
        "seat_id": candidate.seat_id,
        "deal_id": candidate.deal_id,
        "priority": candidate.priority or None,
        "p_ctr": candidate.p_ctr,
        "p_view": candidate.p_view,
        "urgency": candidate.urgency if candidate.pricing == "guaranteed" else None,
    }
    return {
        **{name: value for name, value in said.items() if value not in (None, "")},
        "rank_cpm_micros": candidate.bid_cpm_micros,
        "outcome": candidate.outcome.name,
        "code": int(candidate.outcome),
    }


def _bid(decision: Decision, rates: Rates, currency: str) -> Bid:
    """A decision as the bid of our response. `ext.headwater` says in one place what the markup says in many."""
    winner, record = decision.winner, decision.record
    if winner is None:
        raise ValueError("a decision without a winner has no bid")
    record_id = record.record_id if record is not None else ""
    creative, bid = winner.row.creative if winner.row is not None else None, winner.bid
    cost = costs(winner, decision.opportunity.quantity) if record is not None else Costs()
    details: dict[str, Any] = {
        "record_id": record_id,
        "advertiser_id": winner.advertiser_id,
        "campaign_id": winner.campaign_id,
        "line_item_id": winner.line_item_id,
        "creative_id": winner.creative_id,
        "pricing": winner.pricing,
        "impression_cost_micros": cost.impression_micros,
        "click_cost_micros": cost.click_micros,
        "view_cost_micros": cost.view_micros,
        "currency": rates.currency,
    }
    if decision.markup_format == "banner":
        details["trackers"] = decision.trackers
    made = Bid(
        id=record_id or decision.opportunity.imp.id,
        impid=decision.opportunity.imp.id,
        price=(rates.from_ours(winner.price_cpm_micros, currency) or 0) / _MICROS,
        adm=decision.markup,
        cid=winner.campaign_id,
        crid=winner.creative_id,
        dealid=winner.deal_id or "",
        mtype=_MTYPES[decision.markup_format],
        ext={"headwater": details},
    )
    if winner.row is not None and creative is not None:
        made.adomain = [winner.row.advertiser.domain]
        if winner.row.advertiser.category:
            made.cat = [winner.row.advertiser.category]
        made.w, made.h, made.dur = creative.width or None, creative.height or None, creative.duration_s
        made.exp, made.attr = decision.expires_s or None, creative.attributes
        made.language, made.langb = ("", creative.language) if "-" in creative.language else (creative.language, "")
    elif bid is not None:
        for name in _OF_THE_BID:
            setattr(made, name, getattr(bid, name))
    return made
