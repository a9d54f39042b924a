"""The last resort of an imp: the house ad, written down if that can be, else shown without trackers."""

from __future__ import annotations

from collections.abc import Callable

from schemas.decisions import Degraded, Outcome
from serving.adserver.auction import rules
from serving.adserver.auction.contest import Contest, shown_as
from serving.adserver.auction.rules import Candidate
from serving.adserver.decision import identity
from serving.adserver.inventory import Inventory
from serving.adserver.markup.shown import Unshowable, shown
from serving.adserver.markup.trackers import NO_TRACKERS


def enter_house(contest: Contest, now_ms: int, draw: Callable[[int], int]) -> Candidate | None:
    """One of the house ads that fit an imp, entered as its candidate. None, with the reason, if there is none."""
    decision = contest.decision
    decision.propensity = 1.0
    fitting = [r for r in contest.house if contest.refuses(r, now_ms) is None]
    if not fitting:
        decision.reasons.add(Degraded.NO_CANDIDATE)
        return None
    house = rules.from_row(fitting[draw(len(fitting))])
    house.bid_micros = 0
    decision.candidates.append(house)
    decision.propensity = 1.0 / len(fitting)
    decision.reasons.add(Degraded.HOUSE_AD)
    return house


def show_uncounted(contest: Contest, house: Candidate, inventory: Inventory) -> None:
    """Shows a house ad that nobody has written down: without trackers."""
    decision, imp = contest.decision, contest.opportunity.imp
    house.outcome = Outcome.WON
    decision.winner, decision.markup_format, decision.expires_s = house, shown_as(house), 0
    named = identity(house, "", inventory.currency)
    try:
        decision.markup = shown(house, decision.markup_format, imp, named, NO_TRACKERS, 0, {})
    except Unshowable as e:
        house.outcome, decision.winner = e.outcome, None
        decision.reasons.add(Degraded.NO_CANDIDATE)
