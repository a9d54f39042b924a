"""Bids that a seat wants to win together or not at all (`seatbid.group` 1).

Each imp is an auction of its own, so a group stands when it leads all the imps that it bids on. Groups that are in each
other's way go one by one, the one that bids least in all first, until those that are left stand. Several bids of a
group for one imp are alternatives. A group that bids on one imp alone promises nothing; one that bids on an imp of a
pod can't stand, since a pod is filled as a whole.
Source: OpenRTB 2.6 §4.2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from schemas.decisions import Outcome
from serving.adserver.auction import rules
from serving.adserver.auction.contest import Contest
from serving.adserver.auction.rules import Candidate
from serving.adserver.dsps.desk import Turn
from serving.adserver.openrtb.messages import SeatBid

_TOGETHER = 1
#: Of one DSP's answer.
MOST_GROUPS = 8


@dataclass(frozen=True, slots=True)
class Group:
    """A seat's bids, on how many imps they are, and the auctions of those that the request has."""

    seat: SeatBid
    imps: int
    contests: Sequence[Contest]

    def bids(self, contest: Contest) -> list[Candidate]:
        """Its bids in an auction that may still win."""
        return [c for c in contest.decision.candidates if c.seat is self.seat and c.runs]

    def leads(self, leader_of: Mapping[int, SeatBid | None]) -> bool:
        """Whether it has the highest bid of all its auctions."""
        return all(leader_of[id(contest)] is self.seat for contest in self.contests)

    @property
    def won(self) -> bool:
        winners = [contest.decision.winner for contest in self.contests]
        return all(winner is not None and winner.seat is self.seat for winner in winners)

    def value_cpm_micros(self) -> int:
        return sum(max((c.bid_cpm_micros for c in self.bids(contest)), default=0) for contest in self.contests)

    def falls(self) -> None:
        """Its bids are out, those that have won included."""
        for contest in self.contests:
            decision = contest.decision
            if decision.winner is not None and decision.winner.seat is self.seat:
                decision.winner.outcome = Outcome.GROUPED_BIDS
                decision.undo()
            for candidate in self.bids(contest):
                candidate.outcome = Outcome.GROUPED_BIDS


def standing(
    turns: Iterable[Turn], contests: Sequence[Contest], alone: Sequence[Contest], prepare: Callable[[Contest], None]
) -> list[Group]:
    """The groups that stand; the bids of the others are out. `alone` are the auctions that are in no pod, and `prepare`
    takes out of one who may not win.
    """
    left = [group for group in _groups(turns, contests) if _is_possible(group, alone)]
    for contest in {id(c): c for group in left for c in group.contests}.values():
        prepare(contest)
    values = {id(group): group.value_cpm_micros() for group in left}
    while left:
        leader_of = {id(c): _leader(c) for group in left for c in group.contests}
        falling = [group for group in left if not group.leads(leader_of)]
        if not falling:
            break
        least = min(falling, key=lambda group: values[id(group)])
        least.falls()
        left.remove(least)
    return left


def _leader(contest: Contest) -> SeatBid | None:
    """The seat that leads an auction; None for our own, and when an equal of somebody else's may be drawn."""
    seats = {id(c.seat): c.seat for c in rules.leaders(contest.decision.candidates)}
    return next(iter(seats.values())) if len(seats) == 1 else None


def _groups(turns: Iterable[Turn], contests: Sequence[Contest]) -> Iterator[Group]:
    """Groups that bid on several imps. A DSP's first few: the others have fallen, so that nobody can make this long."""
    for turn in turns:
        found = 0
        for seat in turn.response.seatbid if turn.response is not None else ():
            if seat.group == _TOGETHER and len(wanted := {bid.impid for bid in seat.bid}) > 1:
                group = Group(seat, len(wanted), [c for c in contests if c.opportunity.imp.id in wanted])
                found += 1
                if found <= MOST_GROUPS:
                    yield group
                else:
                    group.falls()


def _is_possible(group: Group, alone: Sequence[Contest]) -> bool:
    """Whether all imps that a group bids on are the request's and in no pod; it has fallen if not."""
    singles = {id(contest) for contest in alone}
    if group.imps == sum(id(contest) in singles for contest in group.contests):
        return True
    group.falls()
    return False
