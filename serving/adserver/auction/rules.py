"""The auction of one imp: at what price a candidate takes part, and who wins. Pure: no clock, no network, no state.

First price (`at: 1`): the winner pays its bid; under a deal with a fixed price, that price. How kinds compete:

| pricing | ranked by, as a CPM | pays |
| --- | --- | --- |
| cpm, rtb | its bid | its bid |
| cpc | pCTR x CPC x 1000 | CPC, per click |
| cpv | probability of a completed view x CPV x 1000 | CPV, per completed view |
| guaranteed | CPM x urgency, what losing it costs the promise (1 on schedule, more when behind) | its CPM |
| house | never; shown when nobody else is | nothing |

Deals of a higher priority go before everything of a lower one. Floors hold for all but guaranteed line items, whose
price was agreed on, and bids under a deal, which has a floor of its own.
Source: OpenRTB 2.6 §2.4 (auction types), §3.2.12 (deals), loss reason codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from schemas.decision_encoder import who
from schemas.decisions import Outcome
from serving.adserver.auction.deals import GUARANTEED, PRIVATE, DealTerms
from serving.adserver.auction.floors import DurationFloors, of_duration
from serving.adserver.inventory import AdRow
from serving.adserver.openrtb.messages import Bid, SeatBid

_RUNS = Outcome.LOST_TO_HIGHER_BID


class Candidate(msgspec.Struct, gc=False, eq=False):
    """One that took part. `bid_micros` is its price in its own unit (CPM, CPC for `cpc`, CPV for `cpv`) and the
    catalogue's currency, `bid_cpm_micros` what it is ranked by. `outcome` is set as the auction goes; whoever is still
    in at the end lost to a higher bid. A struct, since an auction makes a hundred of them; they hold no cycles.
    """

    kind: str  # internal or dsp
    pricing: str  # cpm, cpc, cpv, guaranteed, rtb or house
    advertiser_id: str
    campaign_id: str
    creative_id: str
    line_item_id: str = ""
    bid_micros: int = 0
    bid_cpm_micros: int = 0
    outcome: Outcome = Outcome.LOST_TO_HIGHER_BID
    p_ctr: float | None = None
    p_view: float | None = None
    urgency: float = 1.0
    bidder_id: str | None = None
    seat_id: str | None = None
    row: AdRow | None = None
    named: bytes = b""  # as `decision_encoder.who` names it, where that is known beforehand
    bid: Bid | None = None
    bid_currency: str = ""
    response_bidid: str = ""
    priority: int = 0
    deal_id: str | None = None
    deal_type: str | None = None
    under_deal: bool = False
    seat: SeatBid | None = None  # whose bid it is among
    markup_format: str = ""  # of a bid

    @property
    def runs(self) -> bool:
        """Whether it may still win."""
        return self.outcome is _RUNS  # an enum's member costs thirty times as much to look up

    @property
    def duration_s(self) -> int | None:
        """How long it lasts, if it says so."""
        if self.row is not None:
            return self.row.creative.duration_s
        return self.bid.dur if self.bid is not None else None

    @property
    def price_cpm_micros(self) -> int:
        """What a thousand of it pay, or are expected to."""
        return self.bid_micros if self.pricing == GUARANTEED else self.bid_cpm_micros


@dataclass(frozen=True, slots=True)
class Choice:
    """Who would win now, and with which probability this one was drawn among equals."""

    candidate: Candidate
    propensity: float


def from_row(row: AdRow) -> Candidate:
    """An internal candidate, not priced yet."""
    line = row.line_item
    made = Candidate(
        "internal", line.pricing, row.advertiser.id, row.campaign.id, row.creative.id, line.id, line.bid_micros
    )
    made.row = row
    made.named = who(made.kind, made.campaign_id, made.line_item_id, made.creative_id, None)
    return made


def enter_deal(candidate: Candidate, row: AdRow, deals: Mapping[str, DealTerms]) -> None:
    """A line item that one of the imp's deals is for runs under it."""
    terms = next((deals[d] for d in row.line_item.targeting.deal_ids if d in deals), None)
    if terms is not None:
        candidate.deal_id, candidate.priority = terms.id, terms.priority
        candidate.deal_type = GUARANTEED if candidate.pricing == GUARANTEED else terms.type or PRIVATE


def price(candidates: Iterable[Candidate]) -> None:
    """Sets the CPM that internal candidates are ranked by. Units: micros of a thousand impressions."""
    for candidate in candidates:
        pricing = candidate.pricing
        if pricing == "cpc":
            candidate.bid_cpm_micros = int((candidate.p_ctr or 0.0) * candidate.bid_micros * 1000)
        elif pricing == "cpv":
            candidate.bid_cpm_micros = int((candidate.p_view or 0.0) * candidate.bid_micros * 1000)
        elif pricing == GUARANTEED:
            candidate.bid_cpm_micros = int(candidate.bid_micros * candidate.urgency)
        else:
            candidate.bid_cpm_micros = candidate.bid_micros


def apply_floor(
    candidates: Sequence[Candidate],
    floor_cpm_micros: int | None,
    by_duration: DurationFloors = (),
) -> None:
    """Takes out bids below the floor; all of them when the floor is unknown (None), as nothing is then above it.

    The first of `by_duration` that an ad's duration is in stands in for the floor.
    """
    for candidate in candidates:
        if candidate.outcome is not _RUNS or candidate.under_deal or candidate.pricing == GUARANTEED:
            continue
        floor = floor_cpm_micros
        if by_duration:
            floor = of_duration(by_duration, candidate.duration_s, floor)
        if floor is None or candidate.bid_cpm_micros < floor:
            candidate.outcome = Outcome.BELOW_FLOOR


def leaders(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those with the highest bid of the highest priority of those still in: one, several equals, or nobody."""
    equals: list[Candidate] = []
    priority = bid = 0
    for candidate in candidates:
        if candidate.outcome is not _RUNS or (candidate.bid_cpm_micros <= 0 and not candidate.under_deal):
            continue
        ahead = candidate.priority - priority or candidate.bid_cpm_micros - bid
        if ahead > 0 or not equals:
            equals, priority, bid = [candidate], candidate.priority, candidate.bid_cpm_micros
        elif ahead == 0:
            equals.append(candidate)
    return equals


def choose(candidates: Sequence[Candidate], draw: Callable[[int], int]) -> Choice | None:
    """The leader; among equals `draw(n)` picks one of n. None when nobody is left."""
    equals = leaders(candidates)
    if not equals:
        return None
    chosen = equals[draw(len(equals))] if len(equals) > 1 else equals[0]
    return Choice(chosen, 1.0 / len(equals))


def mark_losers(candidates: Sequence[Candidate], winner: Candidate) -> None:
    """Says of those who bid more than the winner that they lost to its deal."""
    if not winner.deal_id:
        return
    for candidate in candidates:
        if candidate.runs and candidate.bid_cpm_micros > winner.bid_cpm_micros:
            candidate.outcome = Outcome.LOST_TO_DEAL


def least_to_win(candidates: Sequence[Candidate], winner: Candidate, floor_cpm_micros: int | None) -> int:
    """The CPM that would have been enough to win: the next bid of those that could, or the floor."""
    others = [c.bid_cpm_micros for c in candidates if c.runs and c is not winner and c.priority >= winner.priority]
    return min(max([floor_cpm_micros or 0, *others]), max(winner.bid_cpm_micros, 0))
