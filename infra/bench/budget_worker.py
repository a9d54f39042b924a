"""A server of the budget soak: wins as many ads at once as it can, with the ad server's own limits and store.

Run: `python -m infra.bench.budget_worker JOURNAL RUN AT_ONCE BUDGET_WINS SEED`. Ends on SIGTERM, giving leases back.
Every win is written to the journal before a player may show it, so that nothing is forgotten when it is killed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time

import uvloop

from connectors.endpoints import endpoints
from connectors.valkey import AsyncValkey
from infra.bench.budget_market import TIMES, VIEWERS, inventory, record_of
from schemas.errors import ConnectorError
from serving.adserver.auction.rules import from_row
from serving.adserver.inventory import Inventory
from serving.adserver.limits import gate
from serving.adserver.limits.ledger import Reservation
from serving.adserver.store import Commit, Store

_TIMEOUT_S = 3.0
_TOKEN_LIFE_S = 60
_REPLAYED_SHARE = 0.05


class Worker:
    """One process's wins. `counts` says how the commits ended."""

    def __init__(self, store: Store, valkey: AsyncValkey, market: Inventory, journal: int, run: str, seed: int) -> None:
        self._store = store
        self._valkey = valkey
        self._market = market
        self._journal = journal
        self._run = run
        self._rng = random.Random(seed)
        self.counts: dict[str, int] = {}

    async def run(self, at_once: int, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await asyncio.gather(*(self._request() for _ in range(at_once)))
            await asyncio.sleep(0.0 if self._store.budgets.known else 0.05)

    async def _request(self) -> None:
        """One auction with one candidate: read, check, commit."""
        started_ms = time.time_ns() // 1_000_000
        row = self._rng.choice(self._market.rows)
        viewer = self._rng.randrange(VIEWERS)
        by_s = time.monotonic() + _TIMEOUT_S
        standing = await self._store.read(
            f"v1:{self._run}-{viewer}", None, None, started_ms, waits=lambda: True, by_s=by_s
        )
        candidate = from_row(row)
        raw_id = self._rng.randbytes(16)
        record = record_of(row, raw_id, started_ms)
        budgets, kinds = self._store.budgets, self._market.cap_kinds
        gate.check([(row, candidate)], standing.caps, kinds, budgets, record.request_id)
        if not candidate.runs:
            self._count(candidate.outcome.name)
            return
        claims = gate.claims(row, standing.caps)
        reservation = Reservation(row.budget, row.win_price_micros)
        outcome = await self._store.commit(record, reservation, claims)
        self._count(outcome.name)
        if outcome is Commit.DONE:
            os.write(self._journal, f"{started_ms} {record.record_id} {row.row} {viewer}\n".encode())
            if self._rng.random() < _REPLAYED_SHARE:
                await self._replay([self._store.budgets.reserve(reservation, record.record_id)])
                await self._replay([claim.win(record.record_id) for claim in claims])

    async def _replay(self, commands: list) -> None:  # type: ignore[type-arg]
        """What was asked for is asked for again, as a client does that lost the answer."""
        try:
            await self._valkey.pipeline(commands, _TIMEOUT_S)
        except ConnectorError:
            self._count("REPLAY_LOST")

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


async def work(journal: int, run: str, at_once: int, budget_wins: int, seed: int) -> None:
    """Wins until SIGTERM, then prints how commits ended."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    market = inventory(budget_wins, run)
    valkey = AsyncValkey(endpoints().valkey_url, stalled_s=10.0)
    await valkey.start()
    store = Store(valkey, _TIMEOUT_S, _TOKEN_LIFE_S, TIMES)
    refresher = asyncio.create_task(store.budgets.run(lambda: market))
    worker = Worker(store, valkey, market, journal, run, seed)
    await worker.run(at_once, stopping)
    refresher.cancel()
    await store.budgets.close()
    await valkey.close()
    print(" ".join(f"{name}={count}" for name, count in sorted(worker.counts.items())))


def main() -> None:
    path, run = sys.argv[1:3]
    at_once, budget_wins, seed = map(int, sys.argv[3:6])
    journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    uvloop.run(work(journal, run, at_once, budget_wins, seed))


if __name__ == "__main__":
    main()
