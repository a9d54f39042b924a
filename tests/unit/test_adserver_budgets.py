"""What a process does with the ledgers' answers: how long money is held, and what is left to grant and to pace by."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from connectors.valkey_wire import Command
from schemas.errors import Unavailable
from serving.adserver.inventory import Inventory
from serving.adserver.limits.budgets import Budgets, BudgetTimes
from serving.adserver.limits.ledger import Reservation
from serving.adserver.process import LAST_S, put_away
from serving.adserver.workers import GRACE_S
from tests.samples.adserver import NOW_S, catalog

TIMES = BudgetTimes(reservation_s=120, event_reservation_s=900, lease_s=5)
#: Places in a call of the ledger's script.
_OPERATION, _LIFE_MS = 6, -3


class Ledgers:
    """A Valkey that says of every campaign that so much is committed and reserved."""

    def __init__(self, committed_micros: int = 0, reserved_micros: int = 0, granted_micros: int = 0) -> None:
        self.account = [granted_micros, 60_000_000, committed_micros, committed_micros, reserved_micros, 0, 0]
        self.asked: list[str] = []
        self.down = False

    async def pipeline(self, commands: Sequence[Command], _timeout_s: float) -> list[Any]:
        if self.down:
            raise Unavailable("down")
        self.asked += [str(command[_OPERATION]) for command in commands if command[0] == "EVALSHA"]
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


def test_a_server_that_ends_gives_its_leases_back_first_and_takes_no_more() -> None:
    moment = [1_000.0]
    inventory, ledgers = _market(), Ledgers(granted_micros=1_000_000)
    budgets = Budgets(ledgers, TIMES, monotonic=lambda: moment[0])  # type: ignore[arg-type]
    won = Reservation(inventory.rows[0].budget, 2_000)

    def busy() -> list[str]:
        for _ in range(200):
            budgets.won(won)
        moment[0] += 1.0
        ledgers.asked.clear()
        asyncio.run(budgets.refresh(inventory))
        return [name for name in ledgers.asked if name != "settle"]

    assert [busy() for _ in range(2)] == [[], ["lease"]] and budgets.take(won)
    ledgers.down = True
    asyncio.run(budgets.return_leases())
    assert not budgets.take(won), "from now on one by one"
    ledgers.down = False
    assert busy() == ["return"], "with the next refresh, and no new one is taken"
    ledgers.asked.clear()
    asyncio.run(budgets.close())
    assert ledgers.asked == []


def test_what_outlives_requests_ends_by_one_deadline() -> None:
    """The log and notices wait at the same time, behind the money; a supervisor waits longer than that."""
    done: list[str] = []

    class Slow:
        def __init__(self, name: str) -> None:
            self.name = name

        async def wait(self, timeout_s: float) -> None:
            await asyncio.sleep(timeout_s)
            done.append(self.name)

        drain = wait

    class Log(Slow):
        close = Slow.wait

    class Notices(Slow):
        def close(self) -> None:
            done.append("connections")

    class Money:
        async def close(self) -> None:
            done.append("money")

    began_s = time.monotonic()
    asyncio.run(put_away(Money(), Notices("notices"), Log("log"), 0.2))  # type: ignore[arg-type]
    assert time.monotonic() - began_s < 0.35
    assert done[0] == "money" and done[-1] == "connections" and {*done} == {"money", "log", "notices", "connections"}
    assert LAST_S + 2 * 1.0 < GRACE_S, "Valkey is waited for twice"
