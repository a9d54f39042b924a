"""What a win costs at most, what is in flight, and a win's way to its money. The ledger itself: `ledger.py`.

A win reserves its price for `reservation_s`, one that is paid by a click or a completed view for the longer
`event_reservation_s`; it is granted while committed + reserved + leased + price <= budget, of the UTC day and of the
campaign's life. A CPC win reserves the price of its click.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.counters import MINUTE_S
from schemas.money import impression_cost_micros
from schemas.redis_layout import OpenWins

#: How often wins are confirmed before a campaign has any of its own to tell, and how many wins that belief is worth.
CONFIRMED_SHARE, CONFIRMED_PRIOR_WINS = 0.9, 20.0
#: Pricings that are paid by an event after the impression, at the price of one such event.
PER_EVENT = ("cpc", "cpv")


def price_of_win(pricing: str, bid_micros: int, quantity: float = 1.0) -> int:
    """The most that one win of a line item can cost: an impression's share of its CPM, or its click or view. `quantity`
    is how many impressions one is worth.

    Example:
    >>> price_of_win("cpm", 2_500_000), price_of_win("cpc", 400_000)
    (2500, 400000)
    """
    return bid_micros if pricing in PER_EVENT else impression_cost_micros(bid_micros, quantity)


@dataclass(frozen=True, slots=True)
class InFlight:
    """What a campaign has won and not yet spent: all of it, and what is likely to be spent. Micros."""

    open_micros: int
    predicted_micros: int


def in_flight(minutes: Mapping[int, OpenWins], now_s: int, win_open_s: int) -> InFlight:
    """Spend in flight from the wins by minute of decision (epoch s).

    A win is open while its minute is not over for longer than `win_open_s`. How likely it is confirmed is the share
    of older wins that were, shrunk to `CONFIRMED_SHARE`.

    Example:
    >>> old, young = OpenWins(100_000, 60_000, 80, 48), OpenWins(10_000, 2_000, 8, 2)
    >>> in_flight({0: old, 3600: young}, now_s=3700, win_open_s=900)
    InFlight(open_micros=8000, predicted_micros=5280)
    """
    oldest_s = now_s - win_open_s - MINUTE_S
    over = [m for start_s, m in minutes.items() if start_s <= oldest_s]
    confirmed = sum(m.confirmed_wins for m in over) + CONFIRMED_SHARE * CONFIRMED_PRIOR_WINS
    share = confirmed / (sum(m.wins for m in over) + CONFIRMED_PRIOR_WINS)
    open_micros = sum(m.won_micros - m.confirmed_micros for start_s, m in minutes.items() if start_s > oldest_s)
    return InFlight(open_micros, round(open_micros * share))
