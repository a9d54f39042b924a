"""Deals that an imp may be sold under: those that its request names, and those of our own for its placement.

Source: OpenRTB 2.6 §3.2.11, §3.2.12 (`at` 3: `bidfloor` is the agreed price; a deal's floor stands in for the imp's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from schemas import catalog
from schemas.money import to_micros
from serving.adserver.auction.floors import DurationFloors, by_duration, of_duration
from serving.adserver.auction.rates import Rates
from serving.adserver.openrtb.impressions import Imp

PRIVATE, PREFERRED, GUARANTEED = "private", "preferred", "guaranteed"
TYPES = (PRIVATE, PREFERRED, GUARANTEED)
_FIXED_PRICE = 3
#: What a request's deals come before, when they say no more than their kind. Our own deals say it themselves.
_PRIORITIES = {PRIVATE: 0, PREFERRED: 1, GUARANTEED: 2}


@dataclass(frozen=True, slots=True)
class DealTerms:
    """One deal, in the catalogue's currency. `floor_cpm_micros` is the price itself when `fixed`, and None when its
    currency is not known: nothing can then be above it. Empty sets mean any. Of an ad that says how long it lasts, the
    floor may depend on that: `duration_floors`, `per_second_micros`.
    """

    id: str
    type: str
    floor_cpm_micros: int | None
    fixed: bool
    priority: int
    seats: frozenset[str] = frozenset()
    bidders: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    ours: bool = False
    duration_floors: DurationFloors = ()
    per_second_micros: int = 0

    def floor_of(self, seconds: int | None) -> int | None:
        """The floor of an ad that lasts so long (§7.11)."""
        floor = of_duration(self.duration_floors, seconds, self.floor_cpm_micros)
        return floor if floor is None else max(floor, self.per_second_micros * (seconds or 0))

    def open_to(self, bidder_id: str, seats: Sequence[str]) -> bool:
        """Whether a bidder may be told of it; one without a list of seats may have any."""
        if self.bidders and bidder_id not in self.bidders:
            return False
        return not self.seats or not seats or not self.seats.isdisjoint(seats)


def own_terms(deal: catalog.Deal) -> DealTerms:
    """A deal of the catalogue."""
    return DealTerms(
        id=deal.id,
        type=deal.type,
        floor_cpm_micros=deal.floor_cpm_micros,
        fixed=deal.type != PRIVATE,
        priority=deal.priority,
        seats=frozenset(deal.seat_ids),
        bidders=frozenset(deal.bidder_ids),
        domains=frozenset(d.lower() for d in deal.advertiser_domains),
        ours=True,
    )


def terms_of(imp: Imp, own: Sequence[DealTerms], rates: Rates) -> dict[str, DealTerms]:
    """Deals of an imp by id; the request's own wins over one of ours with the same id."""
    found = {deal.id: deal for deal in own}
    if imp.pmp is not None:
        for deal in imp.pmp.deals:
            kind = GUARANTEED if deal.guar else PREFERRED if deal.at == _FIXED_PRICE else PRIVATE
            found[deal.id] = DealTerms(
                id=deal.id,
                type=kind,
                floor_cpm_micros=rates.floor_to_ours(to_micros(repr(deal.bidfloor)), deal.bidfloorcur),
                fixed=deal.at == _FIXED_PRICE,
                priority=_PRIORITIES[kind],
                seats=frozenset(deal.wseat),
                domains=frozenset(d.lower() for d in deal.wadomain),
                duration_floors=by_duration(deal.durfloors, deal.bidfloorcur, rates),
                per_second_micros=rates.floor_to_ours(to_micros(repr(deal.mincpmpersec or 0.0)), deal.bidfloorcur) or 0,
            )
    return found
