"""Leases: the money of many wins at once, taken from the ledger in one call and given away in this process.

For campaigns that win often: their ledger is one key, which every win of every server would have to change. A lease is
about as large as what the campaign wins here in its lifetime (`size`), and never more than an eighth of what is left
(`ledger.py`): towards the end of a budget leases get small, then stop, and wins are reserved one by one again.
What a server has not given away goes back when the lease is renewed and when the server drains. If it is killed, the
whole lease is free again after its life and a reservation's: that is the most that can strand, and for so long.
"""

from __future__ import annotations

from dataclasses import dataclass

#: How a rate is smoothed, per look.
_WEIGHT = 0.3
#: Lives that a lease is sized for: renewed before it is used up.
_LIVES = 1.5
#: A lease of fewer wins is not worth a call.
LEAST_WINS = 8


@dataclass(slots=True)
class Lease:
    """Money to give away until `until_s` (monotonic). Micros."""

    lease_id: str
    left_micros: int
    size_micros: int
    until_s: float

    def take(self, price_micros: int, now_s: float) -> bool:
        """Whether a win's price was in it; then it is gone."""
        if now_s >= self.until_s or price_micros > self.left_micros:
            return False
        self.left_micros -= price_micros
        return True

    def is_due(self, now_s: float, look_s: float) -> bool:
        """Whether it may run out, of time or of money, before the look after the next."""
        return now_s + 2 * look_s >= self.until_s or 2 * self.left_micros < self.size_micros


class Demand:
    """How fast a campaign wins in this process."""

    __slots__ = ("_micros", "_wins", "micros_per_s", "wins_per_s")

    def __init__(self) -> None:
        self._wins = self._micros = 0
        self.wins_per_s = self.micros_per_s = 0.0

    def won(self, price_micros: int) -> None:
        self._wins += 1
        self._micros += price_micros

    def look(self, for_s: float) -> None:
        """Takes in what was won since the last look."""
        if for_s > 0:
            self.wins_per_s += _WEIGHT * (self._wins / for_s - self.wins_per_s)
            self.micros_per_s += _WEIGHT * (self._micros / for_s - self.micros_per_s)
        self._wins = self._micros = 0

    def size(self, lease_s: float) -> tuple[int, int]:
        """(micros of a lease, the least that is worth having)."""
        price_micros = self.micros_per_s / self.wins_per_s if self.wins_per_s else 0.0
        return round(self.micros_per_s * lease_s * _LIVES), max(1, round(price_micros * LEAST_WINS))
