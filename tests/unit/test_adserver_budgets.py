"""What a process does with the ledgers' answers: how long money is held, and what is left to grant and to pace by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from connectors.valkey_wire import Command
from serving.adserver.inventory import Inventory
from serving.adserver.limits.budgets import Budgets, BudgetTimes
from serving.adserver.limits.ledger import Reservation
from tests.samples.adserver import NOW_S, catalog

TIMES = BudgetTimes(reservation_s=120, event_reservation_s=900, lease_s=5)
_LIFE_MS = -3  # its place among the arguments of the ledger's script


class Ledgers:
    """A Valkey that says of every campaign that so much is committed and reserved."""

    def __init__(self, committed_micros: int = 0, reserved_micros: int = 0) -> None:
        self.account = [0, 60_000_000, committed_micros, committed_micros, reserved_micros, 0, 0]

    async def pipeline(self, commands: Sequence[Command], _timeout_s: float) -> list[Any]:
        now_ms = time.time_ns() // 1_000_000
        replies = {"GET": b"run", "HMGET": [now_ms, now_ms], "EVALSHA": self.account, "HGETALL": []}
        return [replies[str(command[0])] for command in commands]


def _market(**of_campaign: Any) -> Inventory:
    prices = {"cpm": 2_000_000, "cpc": 300_000, "cpv": 20_000}
    return Inventory(
        catalog([{"id": p, "pricing": p, "bid_micros": m, "campaign": of_campaign} for p, m in prices.items()])
    )


@pytest.mark.parametrize(("pricing", "life_s"), [("cpm", 120), ("cpc", 900), ("cpv", 900)])
def test_money_for_a_click_or_a_view_is_held_as_late_as_those_come(pricing: str, life_s: int) -> None:
    row = next(row for row in _market().rows if row.line_item.pricing == pricing)
    command = Budgets(Ledgers(), TIMES).reserve(Reservation(row.budget, row.win_price_micros), "record")  # type: ignore[arg-type]
    assert command[_LIFE_MS] == life_s * 1000


def test_after_a_loss_clicks_are_waited_for_longer_than_impressions() -> None:
    moment = [1_000.0]
    inventory = _market()
    budgets = Budgets(Ledgers(), TIMES, monotonic=lambda: moment[0])  # type: ignore[arg-type]

    def refresh() -> dict[str, int]:
        asyncio.run(budgets.refresh(inventory))
        return {c: budgets.headroom_micros[f"cmp-{c}"] if budgets.known else 0 for c in ("cpm", "cpc", "cpv")}

    everything = dict.fromkeys(("cpm", "cpc", "cpv"), 60_000_000)
    assert refresh() == everything
    budgets.lost(None)
    assert not any(refresh().values()), "impressions of wins that were forgotten may be on their way"
    moment[0] += TIMES.reservation_s + TIMES.lease_s
    assert refresh() == {"cpm": 60_000_000, "cpc": 0, "cpv": 0}
    moment[0] += TIMES.event_reservation_s - TIMES.reservation_s
    assert refresh() == everything


def test_a_campaign_of_clicks_is_paced_by_what_it_has_spent() -> None:
    """Nearly all of its budget is held for clicks, of which one in a hundred will come."""
    now_s = [float(NOW_S)]
    inventory = _market(pacing="evenly")
    ledgers = Ledgers(reserved_micros=99_000_000)
    budgets = Budgets(ledgers, TIMES, clock=lambda: now_s[0], monotonic=lambda: now_s[0])  # type: ignore[arg-type]
    for _ in range(3):
        asyncio.run(budgets.refresh(inventory))
        now_s[0] += TIMES.pacing_s
    assert budgets.thresholds["cmp-cpm"] < 2**32 // 100, "impressions that money is held for will be shown"
    assert budgets.thresholds["cmp-cpc"] > 2**32 // 20
