"""`headwater bench budget`: money and caps when everything happens at once, and what a win costs.

The soak (`budget_soak`): 10,000 wins under way at once in several servers on a real Valkey, servers and Valkey killed
in it, answers repeated, the stream repeated; what was truly shown against budgets and caps. Then a commit (caps,
budget, registry record) beside the usual WATCH/MULTI with redis-py, on few campaigns so that they meet, and with
Valkey's file synced before each answer beside once a second.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import redis.asyncio

from connectors.endpoints import Endpoints
from connectors.valkey import AsyncValkey, Valkey
from infra.bench.budget_market import TIMES, inventory, record_of
from infra.bench.budget_soak import soak
from infra.bench.report import Row, Sample, cpu_seconds, interleaved
from infra.bench.services import pid_of, services
from infra.bench.straightforward_budget import Win
from infra.bench.straightforward_budget import commit as straightforward_commit
from infra.local.platform import VALKEY_SYNC
from schemas.counters import HOUR_S
from schemas.ids import encode_id
from schemas.redis_layout import MATERIALIZER_MARKER, PROGRESS_KEY, pending_key, user_key
from schemas.registry_record import AdRecord
from serving.adserver.inventory import AdRow
from serving.adserver.limits.ledger import Reservation
from serving.adserver.limits.pending import Claim
from serving.adserver.store import Commit, Store

AT_ONCE, WORKERS, SOAK_S = 10_000, 4, 30.0
#: Wins that each campaign's budget pays in the soak.
BUDGET_WINS = 1_500
COMMITS, CONCURRENT = 3_000, 64
_PLENTY = 10**9
_TOKEN_LIFE_S = 3_600
_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class _Cost:
    """Of one commit: CPU of the client and of Valkey, and time, in microseconds."""

    client_us: float
    valkey_us: float
    wall_us: float


def run(pairs: int, scale: float) -> tuple[list[Row], list[str]]:
    """The soak's sums, and what a commit costs. `scale` shortens both; the soak stays at its number of wins at once."""
    with services(("valkey",)) as where:
        found = soak(where, max(8.0, SOAK_S * scale), AT_ONCE, WORKERS, max(100, int(BUDGET_WINS * scale)))
        commits = max(CONCURRENT, int(COMMITS * scale))
        costs: dict[str, list[_Cost]] = {"ours": [], "beside": []}
        interleaved(
            lambda: _note(costs["ours"], _ours(where, commits)),
            lambda: _note(costs["beside"], _beside(where, commits)),
            pairs,
            lambda: print(".", end="", flush=True, file=sys.stderr),
        )
        synced = interleaved(lambda: _synced(where, "always", commits), lambda: _synced(where, "no", commits), pairs)
    print(file=sys.stderr)
    rows = [
        Row("overspend in the soak", "micros", ((float(found.overspend_micros), None),)),
        Row("stranded after the sweep", "% of budgets", ((100 * found.stranded_share, None),)),
        Row("caps exceeded in the soak", "impressions", ((float(found.caps_exceeded), None),)),
        Row("client CPU of a commit", "us", _samples(costs, "client_us")),
        Row("Valkey's CPU of a commit", "us", _samples(costs, "valkey_us")),
        Row(f"time per commit, {CONCURRENT} at once", "us", _samples(costs, "wall_us")),
        Row("the same, file synced always beside by the kernel", "us", synced),
    ]
    notes = [
        f"soak: {found.at_once:,} wins under way at once in {WORKERS} processes; {found.wins:,} wins, "
        f"{found.shown:,} shown, {found.clicks:,} paid by clicks, "
        f"{found.spent_micros / found.budget_micros:.1%} of the budgets spent; "
        f"{found.valkey_kills} kills of Valkey, {found.worker_kills} of servers; "
        f"commits of the servers that lived: {', '.join(f'{k} {v:,}' for k, v in sorted(found.outcomes.items()))}",
        "beside: redis-py with WATCH and MULTI, the same campaigns and as many at once; no leases in either",
    ]
    return rows, notes


def _note(kept: list[_Cost], cost: _Cost) -> float:
    kept.append(cost)
    return cost.client_us


def _samples(costs: dict[str, list[_Cost]], name: str) -> tuple[Sample, ...]:
    return tuple((getattr(a, name), getattr(b, name)) for a, b in zip(costs["ours"], costs["beside"], strict=True))


def _synced(where: Endpoints, policy: str, commits: int) -> float:
    with Valkey(where.valkey_url) as valkey:
        valkey.call("CONFIG", "SET", "appendfsync", policy)
        try:
            return _ours(where, commits).wall_us
        finally:
            valkey.call("CONFIG", "SET", "appendfsync", VALKEY_SYNC)


def _ours(where: Endpoints, commits: int) -> _Cost:
    async def all_of_them() -> _Cost:
        connection = AsyncValkey(where.valkey_url)
        await connection.start()
        now_ms = time.time_ns() // 1_000_000
        await connection.call("SET", MATERIALIZER_MARKER, "bench")
        await connection.call("HSET", PROGRESS_KEY, "spend", now_ms, "frequency", now_ms)
        market = inventory(_PLENTY)
        store = Store(connection, _TIMEOUT_S, _TOKEN_LIFE_S, TIMES)
        await store.budgets.refresh(market)

        async def one(number: int) -> None:
            row = market.rows[number % len(market.rows)]
            claim = Claim(pending_key(user_key(f"v1:{encode_id(os.urandom(16))}")), HOUR_S * 1000, 0, _scopes(row))
            reservation = Reservation(row.budget, row.win_price_micros)
            done = await store.commit(_record(row), reservation, (claim,))
            if done is not Commit.DONE:
                raise RuntimeError(f"a commit ended with {done}")

        try:
            return await _measured(where, one, commits)
        finally:
            await connection.close()

    return asyncio.run(all_of_them())


def _beside(where: Endpoints, commits: int) -> _Cost:
    async def all_of_them() -> _Cost:
        market = inventory(_PLENTY)
        async with redis.asyncio.from_url(where.valkey_url, max_connections=CONCURRENT) as client:

            async def one(number: int) -> None:
                row = market.rows[number % len(market.rows)]
                record = _record(row)
                win = Win(
                    record.record_id,
                    row.campaign.id,
                    encode_id(os.urandom(16)),
                    row.win_price_micros,
                    row.budget.daily_micros,
                    2,
                    record.to_bytes(),
                )
                if not await straightforward_commit(client, win, _TOKEN_LIFE_S):
                    raise RuntimeError("a commit was refused")

            return await _measured(where, one, commits)

    return asyncio.run(all_of_them())


async def _measured(where: Endpoints, one: Callable[[int], Awaitable[None]], commits: int) -> _Cost:
    """Costs of `commits` calls, so many at once."""
    pid = pid_of(where, "valkey")
    numbers = iter(range(commits))

    async def some() -> None:
        for number in numbers:
            await one(number)

    await one(0)  # scripts and connections are there before the clocks run
    client_s, valkey_s, wall_s = time.process_time(), cpu_seconds([pid]), time.monotonic()
    await asyncio.gather(*(some() for _ in range(CONCURRENT)))
    spent = (time.process_time() - client_s, cpu_seconds([pid]) - valkey_s, time.monotonic() - wall_s)
    return _Cost(*(1e6 * s / commits for s in spent))


def _scopes(row: AdRow) -> tuple[tuple[str, int, int], ...]:
    return tuple((scope.field, 0, 2) for scope in row.cap_scopes[1:])


def _record(row: AdRow) -> AdRecord:
    return record_of(row, os.urandom(16), time.time_ns() // 1_000_000)
