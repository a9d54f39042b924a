"""Which DSPs are worth asking each time: judged once a period from what all processes have counted.

Every process adds its counts to the running period in Valkey. When a period is over, each of them reads the same sums
and comes to the same tiers, without asking the others; a process that starts takes those of the last period. Scores and
tiers are written to Valkey as well, for whoever wants to see them (`DSP_SCORES`).

A DSP's worth is what would be missed without it: the price of its wins above the next bid, per request sent to it.
Its bids are worth a little more than nothing, so that one who bids and does not win is told from one who never bids;
errors and answers that come too late take from it in proportion, and so does the time that its answers take: an auction
ends with its last answer. Tier 1 is the smallest set of DSPs that makes
`TOP_SHARE` of all worth, tier 2 those that make the next until `MOST_SHARE`, tier 3 the rest. Who was asked too rarely
to be judged stays in tier 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from connectors.valkey import AsyncValkey
from connectors.valkey_wire import Command
from schemas.errors import ConnectorError
from schemas.redis_layout import DSP_HEALTH_PERIODS, DSP_SCORES, DspStanding, dsp_health_key, dsp_standing_value
from serving.adserver.dsps.desk import Desk, Tally

TOP_SHARE, MOST_SHARE = 0.9, 0.99
#: Requests of a period below which nobody is judged.
ENOUGH_CALLS = 200
#: Worth of a bid that does not win: this share of a thousandth of a currency unit, in CPM micros.
BID_CPM_MICROS = 1_000
#: Mean latency at which a request sent to a DSP is worth half of what it is at once: about a player's usual deadline.
HALF_WORTH_MS = 150
_FLUSHES = 6  # per period
_TIMEOUT_S = 1.0
_COUNTED = tuple(f.name for f in fields(Tally))


def worth(tally: Tally) -> float:
    """What a request sent to a DSP brings, in CPM micros.

    Example:
    >>> worth(Tally(calls=100, bids=10, wins=5, gained_cpm_micros=5_000_000, expired=50))
    25050.0
    >>> worth(Tally(calls=100, gained_cpm_micros=5_000_000, answers=100, latency_ms=15_000))
    25000.0
    """
    if not tally.calls:
        return 0.0
    failed = min(tally.calls, tally.errors + tally.expired + tally.invalid)
    value = tally.gained_cpm_micros + tally.bids * BID_CPM_MICROS
    latency_ms = tally.latency_ms / tally.answers if tally.answers else 0.0
    return value / tally.calls * (1 - failed / tally.calls) / (1 + latency_ms / HALF_WORTH_MS)


def standing(tally: Tally, tier: int) -> DspStanding:
    """A DSP's tier with what it comes from."""
    calls = max(1, tally.calls)
    failed = tally.errors + tally.expired + tally.invalid
    bid_rate, win_rate, failed_share = (round(1_000_000 * n / calls) for n in (tally.bids, tally.wins, failed))
    latency_ms = tally.latency_ms // max(1, tally.answers)
    return DspStanding(tier, round(worth(tally)), tally.calls, bid_rate, win_rate, failed_share, latency_ms)


def tiers(tallies: Mapping[str, Tally]) -> dict[str, int]:
    """The tier of each DSP.

    Example:
    >>> best, rest = Tally(calls=1000, gained_cpm_micros=10**9), Tally(calls=1000)
    >>> tiers({"best": best, "rest": rest, "new": Tally(calls=3)})
    {'new': 1, 'best': 1, 'rest': 3}
    """
    found = {name: 1 for name, tally in tallies.items() if tally.calls < ENOUGH_CALLS}
    judged = sorted(((worth(t), name) for name, t in tallies.items() if name not in found), reverse=True)
    total, reached = sum(value for value, _ in judged), 0.0
    for value, name in judged:
        share = reached / total if total else 0.0
        found[name] = 3 if not value else 1 if share < TOP_SHARE else 2 if share < MOST_SHARE else 3
        reached += value
    return found


class TierKeeper:
    """Keeps the desks' tiers up to date. Valkey being away leaves them as they are; what was counted is kept."""

    def __init__(
        self,
        valkey: AsyncValkey,
        desks: Callable[[], Mapping[str, Desk]],
        period_s: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._valkey = valkey
        self._desks = desks
        self._period_s = period_s
        self._clock = clock
        self._told: dict[str, tuple[Desk, Tally]] = {}
        self._judged_s: int | None = None

    async def run(self) -> None:
        """Tells and judges until it is cancelled."""
        while True:
            with contextlib.suppress(ConnectorError):
                await self.step()
            await asyncio.sleep(self._period_s / _FLUSHES)

    async def step(self) -> None:
        """Adds this process's counts to the running period; judges the last one once it is over.

        Errors: ConnectorError; then it is done again with the next step.
        """
        now_s = int(self._clock())
        start_s = now_s - now_s % self._period_s
        await self._tell(start_s)
        # others tell the end of their last period within a step of its end
        ended_s = start_s - self._period_s
        if self._judged_s != ended_s and now_s - start_s >= self._period_s / _FLUSHES:
            await self._judge(ended_s)
            self._judged_s = ended_s
        elif self._judged_s is None:
            await self._judge(ended_s)

    async def _tell(self, start_s: int) -> None:
        key = dsp_health_key(self._period_s, start_s)
        commands: list[Command] = []
        now: dict[str, tuple[Desk, Tally]] = {}
        for name, desk in self._desks().items():
            counts = desk.counted()
            known = self._told.get(name)
            added = counts.since(known[1]) if known is not None and known[0] is desk else counts
            now[name] = (desk, counts)
            for field in _COUNTED:
                if value := getattr(added, field):
                    commands.append(("HINCRBY", key, f"{field}:{name}", value))
        if commands:
            commands.append(("EXPIRE", key, DSP_HEALTH_PERIODS * self._period_s))
            await self._ask(commands)
        self._told = now

    async def _judge(self, start_s: int) -> None:
        (reply,) = await self._ask([("HGETALL", dsp_health_key(self._period_s, start_s))])
        desks = self._desks()
        counted = {name: Tally() for name in desks}
        for raw, value in zip(reply[0::2], reply[1::2], strict=True):
            field, _, name = raw.decode().partition(":")
            if name in counted and field in _COUNTED:
                setattr(counted[name], field, int(value))
        if not reply:
            return
        found = {name: standing(counted[name], tier) for name, tier in tiers(counted).items()}
        for name, judged in found.items():
            desks[name].tier, desks[name].score_cpm_micros = judged.tier, judged.score_cpm_micros
        if found:
            pairs = [part for name, judged in found.items() for part in (name, dsp_standing_value(judged))]
            life_s = DSP_HEALTH_PERIODS * self._period_s
            await self._ask([("DEL", DSP_SCORES), ("HSET", DSP_SCORES, *pairs), ("EXPIRE", DSP_SCORES, life_s)])

    async def _ask(self, commands: Sequence[Command]) -> list[list[bytes]]:
        replies = await self._valkey.pipeline(commands, _TIMEOUT_S)
        for reply in replies:
            if isinstance(reply, ConnectorError):
                raise reply
        return replies
