"""One imp on its way through the auction: who takes part, what the DSPs said, and how a winner is shown and paid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from schemas.catalog import Bidder
from schemas.decisions import Degraded, Outcome
from serving.adserver.auction import bids, rules
from serving.adserver.auction.entrants import Entrants, silent
from serving.adserver.auction.imp_rules import ImpRules, RequestRules
from serving.adserver.auction.rates import Rates
from serving.adserver.auction.rules import Candidate
from serving.adserver.decision import Decision
from serving.adserver.dsps.desk import Turn
from serving.adserver.features.inputs import Inputs
from serving.adserver.inventory import AdRow, Inventory
from serving.adserver.limits.budget import price_of_win
from serving.adserver.limits.ledger import Reservation
from serving.adserver.openrtb.context import Opportunity, RequestContext, audience, viewer_of
from serving.adserver.openrtb.messages import BidResponse
from serving.adserver.targeting import Audience


class Contest:
    """One imp on its way through the auction."""

    __slots__ = ("answer_by_s", "decision", "house", "imp_rules", "inputs", "internal", "opportunity", "places")

    def __init__(
        self,
        opportunity: Opportunity,
        inventory: Inventory,
        context: RequestContext,
        shared: RequestRules,
        viewer: Audience,
        answer_by_s: float,
    ) -> None:
        self.answer_by_s = answer_by_s
        self.opportunity = opportunity
        self.decision = Decision(opportunity)
        self.imp_rules = ImpRules(opportunity, shared)
        self.inputs: Inputs | None = None  # while they are borrowed
        wanted = inventory.audience(audience(viewer, opportunity))
        entrants = inventory.entrants_of(self.imp_rules.shape, Entrants)
        field = entrants.field(inventory, wanted, self.imp_rules, context.now_ms)
        self.internal = field.enter(opportunity.deals)
        self.places = field.places
        self.house = field.house
        self.decision.candidates.extend([c for _, c in self.internal])

    def inputs_of(self, candidate: Candidate) -> list[float]:
        """A candidate's numeric inputs; none when it was not scored."""
        return self.inputs.of(candidate.row) if self.inputs is not None and candidate.row is not None else []

    def release(self) -> None:
        """Gives back what was borrowed, at the end of the request. What a lost request keeps is only made anew."""
        if self.inputs is not None:
            self.inputs.release()
            self.inputs = None

    def refuses(self, row: AdRow, now_ms: int) -> Outcome | None:
        """Why a targeted creative can't run in this imp now; None when it can."""
        return self.imp_rules.refuses(row) if row.runs_at(now_ms) else Outcome.NOT_ACTIVE

    def enter_bids(self, turns: Sequence[Turn], context: RequestContext, rates: Rates, markup_chars: int) -> None:
        """Adds what the DSPs said to an imp's candidates, one entry for each that has no bid for it. Longer markup than
        `markup_chars` is refused.
        """
        if not turns:
            return
        imps = {imp.id for imp in context.request.imp}
        if all(t.outcome in (Outcome.EXPIRED, Outcome.DSP_ERROR, Outcome.INVALID_RESPONSE) for t in turns):
            self.decision.reasons.add(Degraded.ALL_DSPS_FAILED)
        for turn in turns:
            found: list[Candidate] = []
            if turn.outcome is None and turn.response is not None:
                found = bids.candidates(turn.response, turn.bidder, self.imp_rules, rates, imps, markup_chars)
                self.decision.candidates.extend(found)
            if not found:
                self.decision.candidates.append(silent(turn.bidder.id, turn.outcome or Outcome.NO_BID))


def contests_of(
    asked: Sequence[Opportunity], inventory: Inventory, context: RequestContext, answer_by_s: float = math.inf
) -> list[Contest]:
    """The imps of a request, with what they share. `answer_by_s`: the monotonic time at which the answer must leave."""
    shared = RequestRules(context.request)
    viewer = inventory.audience(viewer_of(context))
    return [Contest(place, inventory, context, shared, viewer, answer_by_s) for place in asked]


def could_win(
    contests: Sequence[Contest], response: BidResponse, bidder: Bidder, rates: Rates, markup_chars: int
) -> Iterator[tuple[str, Candidate]]:
    """(imp, bid) of those bids of a response that their auctions would let in: right in every way and above the floor.

    For what came too late, and is only measured.
    """
    imps = {contest.opportunity.imp.id for contest in contests}
    for contest in contests:
        place = contest.opportunity
        found = bids.candidates(response, bidder, contest.imp_rules, rates, imps, markup_chars)
        rules.apply_floor(found, place.floor_cpm_micros, place.duration_floors)
        yield from ((place.imp.id, candidate) for candidate in found if candidate.runs)


def shown_as(candidate: Candidate) -> str:
    """Format of a winner's markup."""
    return candidate.row.creative.format if candidate.row is not None else candidate.markup_format


def reservation(winner: Candidate, quantity: float) -> Reservation | None:
    """What a win of ours may cost, of which budget."""
    if winner.row is None or winner.row.is_house:
        return None
    return Reservation(winner.row.budget, price_of_win(winner.pricing, winner.bid_micros, quantity))
