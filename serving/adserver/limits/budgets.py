"""What this process knows of the campaigns' money, refreshed off the request path: headroom, pacing, urgency, leases.

A refresh settles every campaign's ledger (which is also the sweep of expired reservations), so no request has to ask.
What it knows is up to a period old and only a first filter: a win is granted by the ledger or by a lease.
Fail closed: while the materializer has not marked Valkey as complete, or the last refresh is too old, nothing is known
and campaigns with a budget stay out (reason 2003). What could not be undone when it should have been is undone with
the next refresh.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from connectors.valkey import AsyncValkey
from connectors.valkey_wire import Command, is_unknown_script
from schemas.counters import COUNTER_BY_NAME
from schemas.errors import ConnectorError
from schemas.redis_layout import (
    FREQUENCY_PROGRESS,
    MATERIALIZER_MARKER,
    PROGRESS_KEY,
    SPEND_PROGRESS,
    entity_key,
    has_everything,
    unpack_counters,
)
from serving.adserver import metrics
from serving.adserver.inventory import AdRow, Inventory
from serving.adserver.limits import guaranteed, pacing
from serving.adserver.limits.leases import Demand, Lease
from serving.adserver.limits.ledger import LEDGER, Account, Budget, Reservation, account, lease_id, operation
from serving.adserver.limits.pending import WINS

#: Scripts of this room by the hash that they are called by, for a server that does not know them yet.
SCRIPTS = {script.sha1: script for script in (LEDGER, WINS)}
_TIMEOUT_S = 1.0
_PER_PIPELINE = 100
_MOST_UNDOS = 10_000
_QUIET_PER_REFRESH = 500


@dataclass(frozen=True, slots=True)
class BudgetTimes:
    """What may be tuned, s. `event_reservation_s`: the life of wins that a click or a completed view pays, as late as
    those come. `settle_s`: how far one partition of the stream may be behind the newest.
    `lease_wins_per_s`: from how many wins per second on a campaign leases money; 0: none does.
    """

    reservation_s: float = 120.0
    event_reservation_s: float = 900.0
    settle_s: float = 15.0
    refresh_s: float = 1.0
    expired_s: float = 5.0
    pacing_s: float = 5.0
    lease_s: float = 5.0
    lease_wins_per_s: float = 20.0
    stream_kept_s: float = 4 * 3600.0
    curve_s: float = 900.0

    def life_s(self, budget: Budget) -> float:
        """How long money of a budget is held for a win that has not been paid."""
        return max(self.reservation_s, self.event_reservation_s) if budget.per_event else self.reservation_s


class Budgets:
    """One per process. `valkey` is shared with the requests; clocks and ids are parameters."""

    def __init__(
        self,
        valkey: AsyncValkey,
        times: BudgetTimes = BudgetTimes(),  # frozen
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._valkey = valkey
        self.times = times
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self.headroom_micros: dict[str, int] = {}
        self.thresholds: dict[str, int] = {}  # campaigns that are paced: the gate's threshold
        self.urgency: dict[str, float] = {}  # guaranteed line items
        self.settled_ms = 0
        self.counted_ms = 0  # until when impressions of viewers are known to be counted
        self.accounts: dict[str, Account] = {}
        self.curve = pacing.Curve()
        self._refreshed_s = float("-inf")
        self._closed_until_s = self._events_closed_until_s = float("-inf")
        self._complete = False
        self._throttles: dict[str, pacing.Throttle] = {}
        self._paced_s = self._learnt_s = float("-inf")
        self._leases: dict[str, Lease] = {}
        self._demand: defaultdict[str, Demand] = defaultdict(Demand)
        self._may_lease = True
        self._undo: list[Command] = []
        self._turn = 0

    @property
    def known(self) -> bool:
        """Whether anything may be granted."""
        now_s = self._monotonic()
        return self._complete and now_s - self._refreshed_s < self.times.expired_s and now_s >= self._closed_until_s

    # ---- of one win ------------------------------------------------------------------------------------------------

    def take(self, reservation: Reservation) -> bool:
        """Whether a win is paid for by a lease; else it has to be reserved."""
        lease = self._leases.get(reservation.campaign_id)
        return lease is not None and lease.take(reservation.price_micros, self._monotonic())

    def give_back(self, reservation: Reservation) -> None:
        """A leased win that did not come about. Of a lease that has ended since, the money waits for its life's end."""
        lease = self._leases.get(reservation.campaign_id)
        if lease is not None and lease.left_micros + reservation.price_micros <= lease.size_micros:
            lease.left_micros += reservation.price_micros

    def reserve(self, reservation: Reservation, record_id: str) -> Command:
        """The call of the ledger for a win."""
        life_ms = round(self.times.life_s(reservation.budget) * 1000)
        return operation("reserve", reservation.budget, self.settled_ms, record_id, reservation.price_micros, life_ms)

    def release(self, reservation: Reservation, record_id: str) -> Command:
        return operation("release", reservation.budget, self.settled_ms, record_id)

    def won(self, reservation: Reservation) -> None:
        self._demand[reservation.campaign_id].won(reservation.price_micros)
        self.headroom_micros[reservation.campaign_id] = (
            self.headroom_micros.get(reservation.campaign_id, 0) - reservation.price_micros
        )

    def refused(self, campaign_id: str, found: Account) -> None:
        self.headroom_micros[campaign_id] = found.headroom_micros

    def lost(self, marker: bytes | None) -> None:
        """The server does not have everything any more: nothing is granted until it has, and no lease holds. Without
        any marker it was emptied, of reservations too, so what is on its way has to arrive or end first.
        """
        if self._complete and not marker:
            now_s, times = self._monotonic(), self.times
            self._closed_until_s = now_s + times.reservation_s + times.lease_s
            self._events_closed_until_s = now_s + max(times.reservation_s, times.event_reservation_s) + times.lease_s
        self._complete = False
        self._leases.clear()

    def undo_later(self, commands: Sequence[Command]) -> None:
        """Keeps what has to be undone until the next refresh; of too many, the oldest wait for their life's end."""
        self._undo = [*self._undo, *commands][-_MOST_UNDOS:]

    # ---- off the request path --------------------------------------------------------------------------------------

    async def run(self, inventory: Callable[[], Inventory]) -> None:
        """Refreshes until it is cancelled. Valkey being away leaves what is known, which then expires."""
        while True:
            with suppress(ConnectorError):  # the age of what is known tells; the connection's own log says why
                await self.refresh(inventory())
            await asyncio.sleep(self.times.refresh_s)

    async def refresh(self, inventory: Inventory) -> None:
        """Settles all campaigns, renews leases, paces. Errors: ConnectorError."""
        started_s = self._monotonic()
        marker, told = await self._call(
            [("GET", MATERIALIZER_MARKER), ("HMGET", PROGRESS_KEY, SPEND_PROGRESS, FREQUENCY_PROGRESS)]
        )
        if not has_everything(marker):
            self.lost(marker)
            return
        settle_ms = round(self.times.settle_s * 1000)
        self.settled_ms, self.counted_ms = (max(0, int(at or 0) - settle_ms) for at in told)
        undo, self._undo = self._undo, []
        try:
            await self._call(undo)
        except ConnectorError:
            self.undo_later(undo)
            raise
        elapsed_s = started_s - self._refreshed_s if self._complete else 0.0
        settled = await self._settle(self._due(inventory))
        known = {c: found for c, found in self.accounts.items() if c in inventory.budgets}
        accounts = known | settled
        self.know(accounts, started_s, {c for c, budget in inventory.budgets.items() if budget.per_event})
        await self._renew_leases(inventory, elapsed_s)
        now_ms = round(self._clock() * 1000)
        self.urgency = {
            row.line_item.id: _urgency(row, accounts, now_ms)
            for row in inventory.rows
            if row.line_item.goal_impressions
        }
        if started_s - self._learnt_s >= self.times.curve_s:
            self._learnt_s = started_s
            await self._learn_curve(inventory, now_ms // 1000)
        if started_s - self._paced_s >= self.times.pacing_s:
            self._paced_s = started_s
            self._pace(inventory, now_ms)
        metrics.RESERVED.set(sum(found.reserved_micros for found in accounts.values()))
        metrics.EXPIRED_RESERVATIONS.set(sum(found.released_micros for found in accounts.values()))
        metrics.LATE_SPEND.set(sum(found.late_micros for found in accounts.values()))

    def know(self, accounts: dict[str, Account], at_s: float, per_event: Collection[str] = ()) -> None:
        """Takes in how all campaigns stood at a moment (monotonic). `per_event`: those that clicks or views pay, which
        get nothing as long as some may come of ads whose reservations were lost.
        """
        self.accounts = accounts
        self.headroom_micros = {campaign: found.headroom_micros for campaign, found in accounts.items()}
        if at_s < self._events_closed_until_s:
            self.headroom_micros.update(dict.fromkeys(per_event, 0))
        self._refreshed_s, self._complete = at_s, True

    async def return_leases(self) -> None:
        """Gives leases back and takes no more: from now on wins are reserved one by one. Errors: none; what can't be
        given back now is with the next refresh or at the end, else it comes back by itself.
        """
        self._may_lease = False
        ends = [self._returned(lease, campaign) for campaign, lease in self._leases.items()]
        self._leases.clear()
        try:
            await self._call(ends)
        except ConnectorError:
            self.undo_later(ends)

    async def close(self) -> None:
        """Undoes what is to be undone, and gives back a lease that was being taken. Errors: none."""
        await self.return_leases()
        with suppress(ConnectorError):
            await self._call(self._undo)

    def _due(self, inventory: Inventory) -> list[Budget]:
        """Ledgers to settle now: all that something is reserved in or won from here, and of the quiet ones some in
        turn, so that ten thousand campaigns cost a refresh no more than those of them that run.
        """
        busy: list[Budget] = []
        quiet: list[Budget] = []
        for campaign, budget in inventory.budgets.items():
            found = self.accounts.get(campaign)
            is_quiet = found is not None and not found.reserved_micros and campaign not in self._demand
            (quiet if is_quiet else busy).append(budget)
        first = self._turn % len(quiet) if quiet else 0
        self._turn = first + _QUIET_PER_REFRESH
        return busy + (quiet[first:] + quiet[:first])[:_QUIET_PER_REFRESH]

    async def _settle(self, budgets: Sequence[Budget]) -> dict[str, Account]:
        found: dict[str, Account] = {}
        for start in range(0, len(budgets), _PER_PIPELINE):
            batch = budgets[start : start + _PER_PIPELINE]
            replies = await self._call([operation("settle", b, self.settled_ms) for b in batch])
            found.update((b.campaign_id, account(reply)) for b, reply in zip(batch, replies, strict=True))
        return found

    async def _renew_leases(self, inventory: Inventory, elapsed_s: float) -> None:
        """Ends leases that may run out, and takes new ones for campaigns that win often."""
        now_s, times = self._monotonic(), self.times
        ends: list[Command] = []
        asked: list[tuple[Budget, str, Command]] = []
        for campaign, demand in self._demand.items():
            demand.look(elapsed_s)
            budget, lease = inventory.budgets.get(campaign), self._leases.get(campaign)
            if lease is not None and (budget is None or lease.is_due(now_s, times.refresh_s)):
                ends.append(self._returned(self._leases.pop(campaign), campaign))
                lease = None
            hot = self._may_lease and times.lease_wins_per_s and demand.wins_per_s >= times.lease_wins_per_s
            if budget is not None and lease is None and hot:
                size_micros, least_micros = demand.size(times.lease_s)
                life_ms = round((times.lease_s + times.life_s(budget)) * 1000)
                new_id = lease_id(self._random(16))
                ask = operation("lease", budget, self.settled_ms, new_id, size_micros, life_ms, least_micros)
                asked.append((budget, new_id, ask))
        if not ends and not asked:
            return
        try:
            replies = await self._call([*ends, *(ask for _, _, ask in asked)])
        except ConnectorError:
            # perhaps done, perhaps not: all of it goes back as soon as the server can be asked
            self.undo_later(ends)
            self.undo_later([self._returned(Lease(i, 2**53, 2**53, 0.0), b.campaign_id) for b, i, _ in asked])
            raise
        for (budget, new_id, _), reply in zip(asked, replies[len(ends) :], strict=True):
            if granted_micros := account(reply).granted_micros:
                until_s = now_s + times.lease_s
                self._leases[budget.campaign_id] = Lease(new_id, granted_micros, granted_micros, until_s)

    def _returned(self, lease: Lease, campaign_id: str) -> Command:
        return operation("return", Budget(campaign_id, 0), self.settled_ms, lease.lease_id, lease.left_micros)

    async def _learn_curve(self, inventory: Inventory, now_s: int) -> None:
        """The forecast of the day's traffic: impressions of all placements, by hour, of the last day."""
        by_hour: defaultdict[int, int] = defaultdict(int)
        counter = COUNTER_BY_NAME["placement_impressions_hour"]
        placements = list(inventory.placements)
        for start in range(0, len(placements), _PER_PIPELINE):
            batch = placements[start : start + _PER_PIPELINE]
            for reply in await self._call([("HGETALL", entity_key("placement", p)) for p in batch]):
                packed = dict(zip(reply[0::2], reply[1::2], strict=True))
                for entry in unpack_counters("placement", packed):
                    if entry.code == counter.code and entry.bucket_s == counter.bucket_s:
                        by_hour[entry.bucket_start_s] += entry.value
        self.curve = pacing.learnt_curve(by_hour, now_s)

    def _pace(self, inventory: Inventory, now_ms: int) -> None:
        """Looks at the spend of each paced campaign, and sets how much of its traffic it gets."""
        thresholds = {}
        for campaign in inventory.paced_campaigns:
            found = self.accounts.get(campaign.id)
            if found is None:
                continue
            daily_micros = campaign.daily_budget_micros
            if campaign.lifetime_budget_micros:
                before = found.committed_ever_micros - found.committed_micros
                daily_micros = min(daily_micros, campaign.lifetime_budget_micros - before)
            plan = pacing.day_plan(campaign, max(0, daily_micros), self.curve, now_ms)
            throttle = self._throttles.setdefault(campaign.id, pacing.Throttle())
            # of the clicks and views that money is held for, most never come: what they will cost is not that
            held_micros = 0 if inventory.budgets[campaign.id].per_event else found.reserved_micros
            share = throttle.look(plan, found.committed_micros + held_micros, now_ms)
            thresholds[campaign.id] = pacing.threshold(share)
            metrics.PACING_SHARE.labels(campaign.id).set(share)
        self.thresholds = thresholds

    async def _call(self, commands: Sequence[Command]) -> list[Any]:
        """Errors: ConnectorError, also for a refused command."""
        replies = await self._valkey.pipeline(commands, _TIMEOUT_S)
        for i, reply in enumerate(replies):
            if is_unknown_script(reply):
                full = SCRIPTS[str(commands[i][1])].full(commands[i])
                (replies[i],) = await self._valkey.pipeline([full], _TIMEOUT_S)
            if isinstance(replies[i], ConnectorError):
                raise replies[i]
        return replies


def _urgency(row: AdRow, accounts: dict[str, Account], now_ms: int) -> float:
    """Of a guaranteed line item; what is reserved will be delivered, most of it."""
    line, found = row.line_item, accounts.get(row.campaign.id)
    if found is None:
        return 0.0
    delivered = (found.committed_ever_micros + found.reserved_micros) // max(1, row.win_price_micros)
    return guaranteed.urgency(
        line.goal_impressions, delivered, guaranteed.traffic_passed(line.start_ms, line.end_ms, now_ms)
    )
