"""A decision about one imp, and what is kept of it: the registry's record, the log's record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.decision_encoder import candidates, who
from schemas.decisions import Degraded
from schemas.features import features_hash
from schemas.money import impression_cost_micros, times
from schemas.registry_record import AdRecord
from serving.adserver.auction.rules import Candidate
from serving.adserver.features.columns import COLUMNS
from serving.adserver.markup.vast import AdIdentity
from serving.adserver.openrtb.context import Opportunity, RequestContext


@dataclass(slots=True)
class Decision:
    """One imp's auction. `winner` is None when nothing is shown; `record` is None when it may not be counted."""

    opportunity: Opportunity
    candidates: list[Candidate] = field(default_factory=list)
    winner: Candidate | None = None
    record: AdRecord | None = None
    markup: str = ""
    markup_format: str = ""  # video or banner
    trackers: dict[str, str] = field(default_factory=dict)
    propensity: float = 1.0
    features: dict[str, float] = field(default_factory=dict)
    features_hash: str | None = None
    feature_status: dict[str, str] = field(default_factory=dict)
    model_version: str | None = None
    reasons: set[Degraded] = field(default_factory=set)
    sequence: int = 0  # place in its pod, from 1; 0 outside of pods
    expires_s: int = 0  # within which time an ad of ours may be shown; 0: said nothing

    def undo(self) -> None:
        """Takes back what was won and is not answered yet. What the registry has of it is found by nobody."""
        self.winner = self.record = None
        self.markup, self.markup_format, self.trackers, self.propensity = "", "", {}, 1.0
        self.expires_s = 0

    def keep_inputs(self, values: Sequence[float]) -> None:
        """What the winner was scored with, in the order of COLUMNS, and its name for an exact comparison."""
        if values:
            self.features = dict(zip(COLUMNS.names, values, strict=True))
            self.features_hash = features_hash(values)

    @property
    def reason_codes(self) -> list[int]:
        return sorted(int(r) for r in self.reasons)


@dataclass(frozen=True, slots=True)
class Costs:
    """What an ad costs, in micros, charged once each."""

    impression_micros: int = 0
    click_micros: int = 0
    view_micros: int = 0


def costs(candidate: Candidate, quantity: float) -> Costs:
    """What an ad costs when it is seen, clicked on, or seen to its end. `quantity` is how many impressions one is."""
    if candidate.pricing == "cpc":
        return Costs(click_micros=candidate.bid_micros)
    if candidate.pricing == "cpv":
        return Costs(view_micros=candidate.bid_micros)
    return Costs(impression_cost_micros(candidate.bid_micros, quantity))


def expires_s(candidate: Candidate, exp_s: int | None, reservation_s: int) -> int:
    """Within which time of the answer a winner of ours may be shown: as long as its money is held for the impression,
    or the imp's own `exp_s` when that is less. 0 says nothing: nothing is held for a house ad, and a DSP's bid has its
    own `exp`. Units: seconds. Source: OpenRTB 2.6 §3.2.4 and §4.2.3 `exp`.
    """
    if candidate.row is None or candidate.row.is_house:
        return 0
    return min(exp_s, reservation_s) if exp_s else reservation_s


def identity(candidate: Candidate, record_id: str, currency: str, expires_s: int = 0) -> AdIdentity:
    """The winner as the answer names it."""
    return AdIdentity(
        record_id=record_id,
        advertiser_id=candidate.advertiser_id,
        campaign_id=candidate.campaign_id,
        line_item_id=candidate.line_item_id,
        creative_id=candidate.creative_id,
        pricing=candidate.pricing,
        price_micros=candidate.bid_micros,
        currency=currency,
        expires_s=expires_s,
    )


def ad_record(
    candidate: Candidate,
    record_id: str,
    opportunity: Opportunity,
    context: RequestContext,
    currency: str,
    creative_format: str,
    model_version: str | None,
    billing_url: str = "",
) -> AdRecord:
    """What every event of this ad will be enriched with. `billing_url` is called for its impression."""
    creative = candidate.row.creative if candidate.row is not None else None
    bid = candidate.bid
    trackers = creative.trackers if creative is not None else {}
    cost = costs(candidate, opportunity.quantity)
    return AdRecord(
        record_id=record_id,
        request_id=context.request.id,
        imp_id=opportunity.imp.id,
        advertiser_id=candidate.advertiser_id,
        campaign_id=candidate.campaign_id,
        creative_id=candidate.creative_id,
        decision_time_ms=context.now_ms,
        line_item_id=candidate.line_item_id,
        creative_version=creative.version if creative is not None else 1,
        placement_id=opportunity.placement_id,
        publisher_id=opportunity.publisher_id,
        user_pseudonym=context.pseudonym,
        household_pseudonym=context.household,
        deal_id=candidate.deal_id,
        deal_type=candidate.deal_type,
        site_id=context.site_id,
        app_id=context.app_id,
        content_id=context.content_id,
        content_category=opportunity.category,
        bidder_id=candidate.bidder_id,
        seat_id=candidate.seat_id,
        pricing=candidate.pricing,
        impression_cost_micros=cost.impression_micros,
        click_cost_micros=cost.click_micros,
        view_cost_micros=cost.view_micros,
        currency=currency,
        creative_format=creative_format,
        creative_length_s=creative.duration_s if creative is not None else bid.dur if bid is not None else None,
        device_type=context.device_type,
        platform=context.platform,
        country=context.country,
        region=context.region,
        live=opportunity.live,
        session_context=context.session_context,
        consent=context.consent,
        experiments=dict(context.assignment.cells),
        model_version=model_version,
        trackers=trackers | {"impression": [billing_url]} if billing_url else trackers,
        **context.device_fields,
    )


def log_candidates(decision: Decision) -> list[bytes]:
    """Who took part in a decision and what became of each, as `DecisionEncoder` takes them."""
    return candidates(
        [
            (
                c.named or who(c.kind, c.campaign_id, c.line_item_id, c.creative_id, c.bidder_id),
                c.bid_cpm_micros,
                c.p_ctr,
                c.outcome,
            )
            for c in decision.candidates
        ]
    )


def _price_of_thousand(winner: Candidate | None, quantity: float) -> int:
    """What a thousand of these ads shown cost."""
    if winner is None:
        return 0
    return winner.price_cpm_micros if quantity == 1 else times(winner.price_cpm_micros, quantity)


def log_record(decision: Decision, context: RequestContext, currency: str, latency_ms: float) -> dict[str, Any]:
    """The decision as `ad_decision.avsc` has it, without its candidates."""
    winner, record = decision.winner, decision.record
    return {
        "request_id": context.request.id,
        "imp_id": decision.opportunity.imp.id,
        "decision_time_ms": context.now_ms,
        "record_id": record.record_id if record is not None else None,
        "user_pseudonym": context.pseudonym,
        "placement_id": decision.opportunity.placement_id,
        "publisher_id": decision.opportunity.publisher_id,
        "country": context.country,
        "device_type": context.device_type,
        "winner_campaign_id": winner.campaign_id if winner is not None else None,
        "winner_creative_id": winner.creative_id if winner is not None else None,
        "price_cpm_micros": _price_of_thousand(winner, decision.opportunity.quantity),
        "currency": currency,
        "propensity": decision.propensity,
        "model_version": decision.model_version,
        "features": decision.features,
        "features_hash": decision.features_hash,
        "feature_status": decision.feature_status,
        "reasons": decision.reason_codes,
        "experiments": dict(context.assignment.cells),
        "latency_ms": latency_ms,
    }
