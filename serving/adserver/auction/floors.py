"""Floors that depend on how long an ad lasts, in the catalogue's currency.

Source: OpenRTB 2.6 §3.2.35 (DurFloors), §7.11 (which floor counts).
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.money import to_micros
from serving.adserver.auction.rates import Rates
from serving.adserver.openrtb.impressions import DurationFloor

#: (from s, to s, CPM micros); the floor is None when its currency is not known: nothing is above it.
DurationFloors = tuple[tuple[int, int, int | None], ...]

_LONGEST_S = 2**53


def by_duration(parts: Sequence[DurationFloor], currency: str, rates: Rates, least_micros: int = 0) -> DurationFloors:
    """Floors by duration, none below the least."""
    found = []
    for part in parts:
        floor = rates.floor_to_ours(to_micros(repr(part.bidfloor)), currency)
        longest = part.maxdur if part.maxdur is not None else _LONGEST_S
        found.append((part.mindur or 0, longest, None if floor is None else max(floor, least_micros)))
    return tuple(found)


def of_duration(floors: DurationFloors, seconds: int | None, otherwise: int | None) -> int | None:
    """The floor of an ad that lasts so long: the first whose range it is in.

    Example:
    >>> of_duration(((0, 15, 5), (16, 30, 9)), 15, 1), of_duration(((0, 15, 5),), 60, 1), of_duration((), 15, None)
    (5, 1, None)
    """
    if seconds is None:
        return otherwise
    return next((floor for first, last, floor in floors if first <= seconds <= last), otherwise)
