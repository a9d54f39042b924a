"""What a decision reads from and writes to Valkey: one pipelined round trip each. Never raises: absence is an answer.

Reading: the user's counters, and the day's committed spend of the candidates' campaigns. Writing: the win's budget
reservation and its registry record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from connectors.valkey import AsyncValkey, Command, is_unknown_script
from schemas.errors import ConnectorError
from schemas.redis_layout import (
    REGISTRY_LAG_S,
    OpenWins,
    entity_key,
    household_key,
    open_wins_key,
    parse_open_wins,
    registry_key,
    spend_key,
    user_key,
)
from schemas.registry_record import AdRecord
from serving.adserver import metrics
from serving.adserver.features.counters import CounterBlob
from serving.adserver.features.reader import ENTITIES, EntityCounters, entity_counters, entity_ids
from serving.adserver.inventory import Inventory
from serving.adserver.limits.budget import RESERVE, in_flight, reserve_arguments, reserve_keys

_KEYS_PER_PIPELINE = 200
_REFRESH_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Standing:
    """How things stand for one request. `user` is None when unknown or unread, `spend_micros` None when unread.

    `household` is read for an unknown user only: for it, caps count what the household has seen.
    """

    user: CounterBlob | None = None
    spend_micros: dict[str, int] | None = field(default_factory=dict)
    read: bool = True
    household: CounterBlob | None = None

    @property
    def viewer(self) -> CounterBlob | None:
        """Whose impressions caps count; None when nobody's can be counted."""
        return self.user if self.user is not None else self.household


class Commit(Enum):
    """What came of writing a win down."""

    DONE = "done"
    NO_BUDGET = "no_budget"
    BUDGET_UNKNOWN = "budget_unknown"
    NOT_REGISTERED = "not_registered"


@dataclass(frozen=True, slots=True)
class Reservation:
    """The budget that a win needs. Integer micros."""

    campaign_id: str
    price_micros: int
    daily_budget_micros: int


def utc_day(now_ms: int) -> str:
    """yyyymmdd, as spend is kept.

    Example:
    >>> utc_day(86_400_000)
    '19700102'
    """
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d")


class Store:
    """The ad server's side of Valkey. `timeout_s` bounds each round trip of a request."""

    def __init__(self, valkey: AsyncValkey, timeout_s: float, token_ttl_s: int, reservation_s: int) -> None:
        self._valkey = valkey
        self._timeout_s = timeout_s
        self._record_life_s = token_ttl_s + REGISTRY_LAG_S
        self._reservation_ms = reservation_s * 1000

    @property
    def connected(self) -> bool:
        return self._valkey.connected

    async def read(
        self,
        pseudonym: str | None,
        household: str | None,
        campaign_ids: Collection[str],
        now_ms: int,
        spare_s: float,
    ) -> Standing:
        """The user's (else the household's) counters and the campaigns' committed spend of the day.

        `spare_s` is time that the request waits for DSPs anyway: it may be used up as well.
        """
        day = utc_day(now_ms)
        commands: list[Command] = [("HGET", spend_key(c), day) for c in campaign_ids]
        if pseudonym:
            commands.append(("HGETALL", user_key(pseudonym)))
        elif household:
            commands.append(("HGETALL", household_key(household)))
        try:
            replies = await self._valkey.pipeline(commands, max(self._timeout_s, spare_s))
        except ConnectorError:
            return Standing(None, None, read=False)
        if any(isinstance(reply, ConnectorError) for reply in replies):
            return Standing(None, None, read=False)
        blob = CounterBlob(replies.pop()) if pseudonym or household else None
        spend = {c: int(r or 0) for c, r in zip(campaign_ids, replies, strict=True)}
        return Standing(blob, spend) if pseudonym else Standing(None, spend, household=blob)

    async def commit(self, record: AdRecord, reservation: Reservation | None) -> Commit:
        """Reserves and registers a win, in one round trip. Repeating it for the same record id changes nothing."""
        commands: list[Command] = []
        if reservation is not None:
            arguments = reserve_arguments(
                record.record_id,
                reservation.price_micros,
                reservation.daily_budget_micros,
                utc_day(record.decision_time_ms),
                self._reservation_ms,
            )
            commands.append(RESERVE.call(reserve_keys(reservation.campaign_id), arguments))
        commands.append(("SET", registry_key(record.record_id), record.to_bytes(), "EX", self._record_life_s))
        try:
            replies = await self._valkey.pipeline(commands, self._timeout_s)
            if reservation is not None and is_unknown_script(replies[0]):
                replies[:1] = await self._valkey.pipeline([RESERVE.full(commands[0])], self._timeout_s)
        except ConnectorError:
            return Commit.NOT_REGISTERED
        if isinstance(replies[-1], ConnectorError):
            return Commit.NOT_REGISTERED
        if reservation is None:
            return Commit.DONE
        if isinstance(replies[0], ConnectorError):
            return Commit.BUDGET_UNKNOWN
        return Commit.DONE if replies[0][0] == 1 else Commit.NO_BUDGET

    async def entity_counters(self, inventory: Inventory, now_s: int) -> EntityCounters:
        """Features of all ads and of what they belong to. Errors: ConnectorError."""
        ids = entity_ids(inventory)
        replies = await self._hashes([entity_key(entity, i) for entity in ENTITIES for i in ids[entity]])
        by_entity: dict[str, list[list[bytes]]] = {}
        position = 0
        for entity in ENTITIES:
            by_entity[entity] = replies[position : position + len(ids[entity])]
            position += len(ids[entity])
        return entity_counters(ids, by_entity, now_s)

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
