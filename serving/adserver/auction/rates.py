"""Currencies: what an amount of one is worth in the catalogue's, in integer micros."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.money import to_micros

_UNIT_MICROS = 1_000_000
#: What an amount is in when nothing is said (§3.2.4 `bidfloorcur`, §4.2.1 `cur`); empty text says nothing.
UNSAID = "USD"
_MOST_UNITS = 1e9
#: The same in micros, of the catalogue's currency too: what is more would not fit where it is written down.
MOST_MICROS = 10**15
#: How far a product of floats may be from the whole number of micros that was meant.
_EXACT = 1e-4


def micros_of(price: float | None) -> int | None:
    """Micros of a bid's price, rounded down; None for what is no price: none, not above 0, or beyond any CPM.

    Example:
    >>> micros_of(2.5), micros_of(0.0000019), micros_of(0.0), micros_of(float("nan")), micros_of(1e9)
    (2500000, 1, None, None, None)
    """
    if price is None or not 0 < price < _MOST_UNITS:  # true of NaN as well
        return None
    micros = price * _UNIT_MICROS
    nearest = round(micros)  # decimal arithmetic is kept for those that are no whole micros
    return nearest if abs(micros - nearest) < _EXACT else to_micros(repr(price))


class Rates:
    """A table of `micros of the catalogue's currency for one unit`. A currency that is not in it has no worth here.

    Example:
    >>> rates = Rates("USD", {"EUR": 1_250_000})
    >>> rates.to_ours(2_000_000, "EUR"), rates.from_ours(2_500_000, "EUR"), rates.to_ours(1, "XXX")
    (2500000, 2000000, None)
    """

    def __init__(self, currency: str, rates: Mapping[str, int]) -> None:
        self.currency = currency
        self._rates = {name: rate for name, rate in rates.items() if rate > 0} | {currency: _UNIT_MICROS}
        if UNSAID in self._rates:
            self._rates[""] = self._rates[UNSAID]

    def __contains__(self, currency: str) -> bool:
        return currency in self._rates

    def to_ours(self, micros: int, currency: str) -> int | None:
        """Rounded down: a bid is never worth more than was bid."""
        rate = self._rates.get(currency)
        return None if rate is None else micros * rate // _UNIT_MICROS

    def floor_to_ours(self, micros: int, currency: str) -> int | None:
        """Rounded up: a floor is never lower than was asked."""
        rate = self._rates.get(currency)
        return None if rate is None else -(-micros * rate // _UNIT_MICROS)

    def from_ours(self, micros: int, currency: str) -> int | None:
        """Rounded up, so that a bid at a converted floor is above the floor."""
        rate = self._rates.get(currency)
        return None if rate is None else -(-micros * _UNIT_MICROS // rate)
