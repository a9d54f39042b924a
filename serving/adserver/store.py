"""What a decision reads from and writes to Valkey: one pipelined round trip each. Never raises: absence is an answer.

Reading: the viewer's counters, and wins that are not counted yet; what campaigns may spend is in memory (`budgets`).
Writing: the win's claim on caps, its budget reservation and its registry record.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from connectors.valkey import AsyncValkey
from connectors.valkey_wire import Command, is_unknown_script
from schemas.errors import ConnectorError, TimedOut, Unavailable
from schemas.redis_layout import (
    MATERIALIZER_MARKER,
    REGISTRY_LAG_S,
    OpenWins,
    entity_key,
    has_everything,
    household_key,
    open_wins_key,
    parse_open_wins,
    pending_key,
    registry_key,
    stream_pending_key,
    user_key,
)
from schemas.registry_record import AdRecord
from serving.adserver import metrics
from serving.adserver.features.breaker import FeatureBreaker
from serving.adserver.features.columns import ENTITIES
from serving.adserver.features.counters import CounterBlob
from serving.adserver.features.snapshot import EntityCounters, Table, entity_counters, entity_ids
from serving.adserver.inventory import Inventory
from serving.adserver.limits.budget import in_flight
from serving.adserver.limits.budgets import SCRIPTS, Budgets, BudgetTimes
from serving.adserver.limits.caps import Lives, PendingRead, RequestCaps
from serving.adserver.limits.ledger import Reservation, account
from serving.adserver.limits.pending import Claim, PendingWins

_KEYS_PER_PIPELINE = 200
_REFRESH_TIMEOUT_S = 1.0
#: Kept of a request's time for making the answer once Valkey has spoken, or for giving it up, which takes two looks.
_ANSWER_S = 0.005


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand for one request. `user` is None when unknown or unread.

    `household` is read for an unknown user only: for it, caps count what the household has seen. `cold`: the user's
    features were not asked for, since the store is slow.
    """

    caps: RequestCaps
    user: CounterBlob | None = None
    household: CounterBlob | None = None
    read: bool = True
    cold: bool = False

    @property
    def viewer(self) -> CounterBlob | None:
        """Whose impressions caps count; None when nobody's can be counted."""
        return self.user if self.user is not None else self.household


class Commit(Enum):
    """What came of writing a win down. `CAPPED`: other requests of this viewer have won what a cap allowed."""

    DONE = "done"
    CAPPED = "capped"
    NO_BUDGET = "no_budget"
    BUDGET_UNKNOWN = "budget_unknown"
    NOT_REGISTERED = "not_registered"


class Store:
    """The ad server's side of Valkey. `timeout_s` bounds each round trip of a request; `lag_s` tells how late the event
    loop is, since an answer that waits for us is no slowness of Valkey's.
    """

    def __init__(
        self,
        valkey: AsyncValkey,
        timeout_s: float,
        token_ttl_s: int,
        times: BudgetTimes,
        lag_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._valkey = valkey
        self._timeout_s = timeout_s
        self._record_life_s = token_ttl_s + REGISTRY_LAG_S
        self._lag_s = lag_s
        self.budgets = Budgets(valkey, times)
        self.breaker = FeatureBreaker(on_change=metrics.FEATURE_BREAKER.set)

    @property
    def connected(self) -> bool:
        return self._valkey.connected

    async def read(
        self,
        pseudonym: str | None,
        household: str | None,
        session: str | None,
        now_ms: int,
        waits: Callable[[], bool] = lambda: False,
        capped: Callable[[], bool] = lambda: True,
        by_s: float = math.inf,
    ) -> Standing:
        """The user's (else the household's) counters, and the wins of theirs and of the session that are under way.

        `waits`: whether the request waits for DSPs anyway, for so long an answer may take. `capped`: whether caps need
        the counters even when features go without them. `by_s`: monotonic time at which the request goes on without
        what is not known by then.
        """
        cold = pseudonym is not None and not self.breaker.allows()
        if cold and not capped():
            return Standing(self._caps(None, PendingRead(), now_ms), cold=True)
        viewer = user_key(pseudonym) if pseudonym else household_key(household) if household else None
        stream = stream_pending_key(session) if session else None
        commands: list[Command] = []
        if viewer is not None:
            # wins before counters: one that is counted in between is in both rather than in neither
            commands += [("HGETALL", pending_key(viewer)), ("HGETALL", viewer)]
        if stream is not None:
            commands.append(("HGETALL", stream))
        asked_s = time.monotonic()
        try:
            replies = await self._valkey.pipeline(
                commands, min(self._timeout_s, by_s - asked_s), lambda: waits() and time.monotonic() < by_s
            )
        except Unavailable:
            replies = []
        except ConnectorError:
            replies = []
            self.breaker.record(time.monotonic() - asked_s)
        else:
            if commands:
                self.breaker.record(max(0.0, time.monotonic() - asked_s - self._lag_s()))
        if len(replies) < len(commands) or any(isinstance(reply, ConnectorError) for reply in replies):
            return Standing(self._caps(None, PendingRead(), now_ms), read=False, cold=cold)
        read = self._valkey.connected
        stream_wins = PendingWins(replies.pop()) if stream is not None else PendingWins()
        if viewer is None:
            return Standing(self._caps(None, PendingRead(stream_key=stream, stream=stream_wins), now_ms), read=read)
        pending = PendingRead(pending_key(viewer), PendingWins(replies[0]), stream, stream_wins)
        blob = CounterBlob(replies[1])
        caps = self._caps(blob, pending, now_ms)
        if cold:
            return Standing(caps, read=read, cold=True)
        return Standing(caps, blob, read=read) if pseudonym else Standing(caps, household=blob, read=read)

    def _caps(self, viewer: CounterBlob | None, pending: PendingRead, now_ms: int) -> RequestCaps:
        times = self.budgets.times
        lives = Lives(round(times.reservation_s * 1000), round(times.stream_kept_s * 1000), self.budgets.counted_ms)
        return RequestCaps(viewer, pending, lives, now_ms)

    async def commit(
        self,
        record: AdRecord,
        reservation: Reservation | None,
        claims: Sequence[Claim] = (),
        by_s: float = math.inf,
    ) -> Commit:
        """Claims the viewer's attention, reserves the money and registers a win, in one round trip; what of it was
        done when another part was refused is undone. Repeating it for the same record id changes nothing.
        `by_s` is the monotonic time at which the answer must leave: what is not known by then is not shown.
        """
        budgets = self.budgets
        if reservation is not None and not budgets.known:
            return Commit.BUDGET_UNKNOWN
        leased = reservation is not None and budgets.take(reservation)
        commands = [claim.win(record.record_id) for claim in claims]
        if reservation is not None:
            if not leased:
                commands.append(budgets.reserve(reservation, record.record_id))
            commands.append(("GET", MATERIALIZER_MARKER))  # behind the grant: what was emptied before is seen
        commands.append(("SET", registry_key(record.record_id), record.to_bytes(), "EX", self._record_life_s))
        undo = [claim.undo(record.record_id) for claim in claims]
        if reservation is not None and not leased:
            undo.append(budgets.release(reservation, record.record_id))
        try:
            replies = await self._scripts(commands, by_s)
        except ConnectorError:
            result = Commit.NOT_REGISTERED
        else:
            result = self._outcome(replies, reservation, leased, len(claims))
        if result is Commit.DONE:
            if reservation is not None:
                budgets.won(reservation)
            return result
        if reservation is not None and leased:
            budgets.give_back(reservation)
        if undo and result is Commit.NOT_REGISTERED:
            budgets.undo_later(undo)  # nobody waits for a Valkey that has just kept us waiting
        elif undo:
            await self._undo(undo, by_s)
        return result

    def _outcome(self, replies: Sequence[Any], reservation: Reservation | None, leased: bool, claims: int) -> Commit:
        if isinstance(replies[-1], ConnectorError):
            return Commit.NOT_REGISTERED
        if reservation is not None:
            if isinstance(replies[-2], ConnectorError):
                return Commit.BUDGET_UNKNOWN
            if not has_everything(replies[-2]):
                self.budgets.lost(replies[-2])
                return Commit.BUDGET_UNKNOWN
            if not leased:
                if isinstance(replies[claims], ConnectorError):
                    return Commit.BUDGET_UNKNOWN
                found = account(replies[claims])
                if found.granted_micros < reservation.price_micros:
                    self.budgets.refused(reservation.campaign_id, found)
                    return Commit.NO_BUDGET
        return Commit.DONE if all(reply == 0 for reply in replies[:claims]) else Commit.CAPPED

    async def _scripts(self, commands: Sequence[Command], by_s: float) -> list[Any]:
        """Replies of commands; scripts that the server does not know are given to it. Errors: ConnectorError."""
        replies = await self._valkey.pipeline(commands, self._patience_s(by_s))
        unknown = [i for i, reply in enumerate(replies) if is_unknown_script(reply)]
        if unknown:
            full = [SCRIPTS[str(commands[i][1])].full(commands[i]) for i in unknown]
            for i, reply in zip(unknown, await self._valkey.pipeline(full, self._patience_s(by_s)), strict=True):
                replies[i] = reply
        return replies

    def _patience_s(self, by_s: float) -> float:
        """How long a round trip may take. Errors: TimedOut when no time is left for one."""
        left_s = by_s - time.monotonic() - _ANSWER_S
        if left_s <= 0:
            raise TimedOut("no time is left to ask Valkey")
        return min(self._timeout_s, left_s)

    async def _undo(self, commands: Sequence[Command], by_s: float) -> None:
        """Takes back what was granted in vain; later, when it can't be now."""
        try:
            failed = any(isinstance(reply, ConnectorError) for reply in await self._scripts(commands, by_s))
        except ConnectorError:
            failed = True
        if failed:
            self.budgets.undo_later(commands)

    async def entity_counters(self, inventory: Inventory, now_s: int) -> EntityCounters:
        """Features of all ads and of what they belong to. Errors: ConnectorError."""
        ids = entity_ids(inventory)
        replies = await self._hashes([entity_key(entity, i) for entity in ENTITIES for i in ids[entity]])
        tables: dict[str, Table] = {}
        position = 0
        for entity in ENTITIES:
            tables[entity] = Table(replies[position : position + len(ids[entity])])
            position += len(ids[entity])
            await asyncio.sleep(0)  # requests come in between
        return entity_counters(inventory, tables, now_s)

    async def open_wins(self, campaign_ids: Sequence[str]) -> dict[str, dict[int, OpenWins]]:
        """Wins of each campaign by minute of decision (epoch s). Errors: ConnectorError."""
        replies = await self._hashes([open_wins_key(c) for c in campaign_ids])
        return {
            campaign: {int(m): parse_open_wins(v) for m, v in zip(reply[0::2], reply[1::2], strict=True)}
            for campaign, reply in zip(campaign_ids, replies, strict=True)
        }

    async def _hashes(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        replies: list[list[bytes]] = []
        for start in range(0, len(keys), _KEYS_PER_PIPELINE):
            batch: list[Command] = [("HGETALL", key) for key in keys[start : start + _KEYS_PER_PIPELINE]]
            for reply in await self._valkey.pipeline(batch, _REFRESH_TIMEOUT_S):
                if isinstance(reply, ConnectorError):
                    raise reply
                replies.append(reply)
        return replies


class CountersRefresher:
    """Keeps a snapshot of entity counters at most `period_s` old, off the request path; measures spend in flight."""

    def __init__(
        self,
        store: Store,
        inventory: Callable[[], Inventory],
        period_s: float,
        win_open_s: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._win_open_s = win_open_s
        self._inventory = inventory
        self._period_s = period_s
        self._clock = clock
        self._of: Inventory | None = None
        self._snapshot = EntityCounters(0.0)

    def snapshot(self, inventory: Inventory) -> EntityCounters:
        """The newest snapshot of this inventory; an empty one when there is none yet."""
        return self._snapshot if inventory is self._of else EntityCounters(0.0)

    async def run(self) -> None:
        """Refreshes until it is cancelled. Valkey being away leaves the old snapshot, which then expires."""
        while True:
            inventory = self._inventory()
            try:
                now_s = int(self._clock())
                self._snapshot = await self._store.entity_counters(inventory, now_s)
                self._of = inventory
                for campaign, minutes in (await self._store.open_wins(inventory.campaign_ids)).items():
                    found = in_flight(minutes, now_s, self._win_open_s)
                    metrics.IN_FLIGHT.labels(campaign).set(found.open_micros)
                    metrics.PREDICTED.labels(campaign).set(found.predicted_micros)
            except ConnectorError:
                pass  # the snapshot's age tells; the connection's own log says why
            await asyncio.sleep(self._period_s)
