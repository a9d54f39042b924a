"""One imp on its way through the auction: who takes part, what the DSPs said, and how a winner is shown and paid."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.decisions import Degraded, Outcome
from serving.adserver.auction import rules
from serving.adserver.auction.rules import BidRules, Candidate
from serving.adserver.decision import Decision
from serving.adserver.dsps.bidders import Turn
from serving.adserver.inventory import AdRow, Inventory
from serving.adserver.limits.budget import price_of_win
from serving.adserver.openrtb.context import Opportunity, RequestContext
from serving.adserver.store import Reservation


class Contest:
    """One imp on its way through the auction."""

    __slots__ = ("decision", "house", "internal", "numeric", "opportunity")

    def __init__(self, opportunity: Opportunity, inventory: Inventory, context: RequestContext) -> None:
        self.opportunity = opportunity
        self.decision = Decision(opportunity)
        self.internal: list[tuple[AdRow, Candidate]] = []
        self.house: list[AdRow] = []
        self.numeric: dict[int, list[float]] = {}
        for ad_format in opportunity.formats:
            rows, house = inventory.targeted(
                ad_format,
                opportunity.placement_id,
                context.country,
                context.device_type,
                opportunity.category,
            )
            self.house.extend(house)
            for row in rows:
                candidate = rules.from_row(row)
                refused = rules.fits(row, opportunity.imp, context.request, context.now_ms)
                if refused is not None:
                    candidate.outcome = refused
                self.internal.append((row, candidate))
        self.decision.candidates.extend(c for _, c in self.internal)

    def enter_bids(self, turns: Sequence[Turn], context: RequestContext, currency: str) -> None:
        """Adds what the DSPs said to an imp's candidates, one entry for each that has no bid for it."""
        if not turns:
            return
        request, imp_id = context.request, self.opportunity.imp.id
        bid_rules = BidRules(
            request.id, currency, {imp.id for imp in request.imp}, set(request.badv), set(request.bcat)
        )
        if all(t.outcome in (Outcome.EXPIRED, Outcome.DSP_ERROR, Outcome.INVALID_RESPONSE) for t in turns):
            self.decision.reasons.add(Degraded.ALL_DSPS_FAILED)
        for turn in turns:
            entered = False
            if turn.outcome is None and turn.response is not None:
                for bid_imp, candidate in rules.from_response(
                    turn.response, turn.bidder.id, turn.bidder.seat_ids, bid_rules
                ):
                    if bid_imp in (imp_id, ""):
                        if candidate.runs and shown_as(candidate) not in self.opportunity.formats:
                            candidate.outcome = Outcome.FORMAT
                        self.decision.candidates.append(candidate)
                        entered = True
            if not entered:
                silent = Candidate("dsp", "rtb", "", "", "", bidder_id=turn.bidder.id)
                silent.outcome = turn.outcome or Outcome.NO_BID
                self.decision.candidates.append(silent)


def shown_as(candidate: Candidate) -> str:
    """Format of a winner's markup. OpenRTB 2.6 `mtype`: 1 banner, 2 video; without it the markup itself tells."""
    if candidate.row is not None:
        return candidate.row.creative.format
    bid = candidate.bid
    if bid is not None and bid.mtype in (1, 2):
        return "video" if bid.mtype == 2 else "banner"
    start = (bid.adm if bid is not None else "").lstrip()[:200]
    return "video" if start.startswith(("http://", "https://")) or "<VAST" in start else "banner"


def reservation(winner: Candidate) -> Reservation | None:
    if winner.row is None or winner.row.is_house:
        return None
    price_micros = price_of_win(winner.pricing, winner.bid_micros)
    return Reservation(winner.campaign_id, price_micros, winner.row.campaign.daily_budget_micros)
