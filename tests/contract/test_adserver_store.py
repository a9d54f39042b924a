"""Wins, caps and registry records on a real Valkey: never a micro too much, however many win at once."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from connectors.endpoints import Endpoints
from connectors.valkey import AsyncValkey, Valkey
from connectors.valkey_wire import Command
from schemas.catalog import FrequencyCap
from schemas.counters import COUNTER_BY_NAME
from schemas.ids import encode_id
from schemas.redis_layout import (
    MATERIALIZER_MARKER,
    PROGRESS_KEY,
    REGISTRY_LAG_S,
    TOTAL_SPEND,
    OpenWins,
    entity_key,
    household_key,
    open_wins_key,
    open_wins_value,
    pack_counters,
    registry_key,
    reserved_amounts_key,
    reserved_key,
    spend_key,
    user_key,
)
from schemas.registry_record import AdRecord
from serving.adserver.inventory import Inventory
from serving.adserver.limits import gate
from serving.adserver.limits.budgets import Budgets, BudgetTimes
from serving.adserver.limits.caps import cap_rules
from serving.adserver.limits.ledger import Budget, Reservation
from serving.adserver.store import Commit, Store
from tests.samples.adserver import NOW_S, catalog

TIMES = BudgetTimes(reservation_s=600)
TTL_S = 3600


@pytest.fixture
def valkey(local_services: Endpoints) -> Iterator[Valkey]:
    with Valkey(local_services.valkey_url) as connection:
        yield connection


@pytest.fixture
def campaign() -> str:
    return f"cmp-{uuid.uuid4().hex}"


@pytest.fixture(autouse=True)
def _complete(valkey: Valkey) -> Iterator[None]:
    """The materializer has written everything, until now."""
    now_ms = time.time_ns() // 1_000_000
    valkey.pipeline(
        [("SET", MATERIALIZER_MARKER, "this run"), ("HSET", PROGRESS_KEY, b"spend", now_ms, b"frequency", now_ms)]
    )
    yield
    valkey.call("DEL", MATERIALIZER_MARKER, PROGRESS_KEY)


@asynccontextmanager
async def _store(url: str, timeout_s: float = 5.0, times: BudgetTimes = TIMES) -> AsyncIterator[Store]:
    connection = AsyncValkey(url)
    await connection.start()
    try:
        yield Store(connection, timeout_s, TTL_S, times)
    finally:
        await connection.close()


def _record(campaign: str, record_id: str | None = None) -> AdRecord:
    return AdRecord(
        record_id=record_id or encode_id(uuid.uuid4().bytes),
        request_id="r",
        imp_id="1",
        advertiser_id="adv",
        campaign_id=campaign,
        creative_id="cr",
        decision_time_ms=NOW_S * 1000,
    )


def _inventory(campaign: str, budget_micros: int, price_micros: int, **changes: Any) -> Inventory:
    """A catalogue of one CPM campaign whose wins cost `price_micros`."""
    ads = [{"id": campaign, "pricing": "cpm", "bid_micros": price_micros * 1000, "budget_micros": budget_micros}]
    return Inventory(catalog([ad | changes for ad in ads]))


def _spend(valkey: Valkey, campaign: str, micros: int) -> None:
    day = time.strftime("%Y%m%d", time.gmtime())
    valkey.call("HSET", spend_key(campaign), day, micros, TOTAL_SPEND, micros)


def test_a_thousand_wins_at_once_never_overspend(local_services: Endpoints, valkey: Valkey, campaign: str) -> None:
    price, budget, committed = 2_345, 1_000_000, 123_456
    inventory = _inventory(campaign, budget, price)
    row = inventory.rows[0]
    _spend(valkey, row.campaign.id, committed)

    async def run() -> list[Commit]:
        async with _store(local_services.valkey_url) as a, _store(local_services.valkey_url) as b:
            for store in (a, b):
                await store.budgets.refresh(inventory)
            reservation = Reservation(row.budget, price)
            wins = [store.commit(_record(row.campaign.id), reservation) for _ in range(500) for store in (a, b)]
            return list(await asyncio.gather(*wins))

    outcomes = asyncio.run(run())
    granted = outcomes.count(Commit.DONE)
    assert granted == (budget - committed) // price
    assert outcomes.count(Commit.NO_BUDGET) == 1000 - granted
    assert int(valkey.call("HGET", reserved_amounts_key(row.campaign.id), "total")) == granted * price
    assert valkey.call("ZCARD", reserved_key(row.campaign.id)) == granted


def test_two_quick_requests_can_not_both_take_the_last_of_a_cap(
    local_services: Endpoints, valkey: Valkey, campaign: str
) -> None:
    """Ten requests of one viewer at once on two servers, a cap of two, and nothing counted yet."""
    inventory = _inventory(campaign, 10**9, 1_000, caps=[{"scope": "campaign", "limit": 2, "window_s": 3600}])
    row, viewer = inventory.rows[0], f"v1:{uuid.uuid4().hex}"

    async def run() -> list[Commit]:
        async with _store(local_services.valkey_url) as a, _store(local_services.valkey_url) as b:
            for store in (a, b):
                await store.budgets.refresh(inventory)

            async def request(store: Store) -> Commit:
                standing = await store.read(viewer, None, None, NOW_S * 1000)
                assert standing.caps.allowed(row.caps)
                claims = gate.claims(row, standing.caps)
                return await store.commit(_record(row.campaign.id), Reservation(row.budget, 1_000), claims)

            outcomes = list(await asyncio.gather(*(request(store) for _ in range(5) for store in (a, b))))
            standing = await a.read(viewer, None, None, NOW_S * 1000)
            assert not standing.caps.allowed(row.caps), "what is under way is seen before ranking"
            return outcomes

    outcomes = asyncio.run(run())
    assert (outcomes.count(Commit.DONE), outcomes.count(Commit.CAPPED)) == (2, 8)
    assert int(valkey.call("HGET", reserved_amounts_key(row.campaign.id), "total")) == 2_000, "the refused are undone"


def test_a_cap_of_a_stream_is_kept_for_viewers_who_may_not_be_known(
    local_services: Endpoints, valkey: Valkey, campaign: str
) -> None:
    cap = {"scope": "advertiser", "limit": 1, "per": "stream"}
    inventory = _inventory(campaign, 10**9, 1_000, caps=[cap])
    row, session = inventory.rows[0], uuid.uuid4().hex

    async def run() -> None:
        async with _store(local_services.valkey_url) as store:
            await store.budgets.refresh(inventory)
            for expected in (True, False):
                standing = await store.read(None, None, session, NOW_S * 1000)
                assert standing.caps.allowed(row.caps) is expected
                claims = gate.claims(row, standing.caps)
                committed = await store.commit(_record(row.campaign.id), None, claims)
                assert committed is (Commit.DONE if expected else Commit.CAPPED)
            other = await store.read(None, None, "another", NOW_S * 1000)
            assert other.caps.allowed(row.caps)
            unknown = await store.read(None, None, None, NOW_S * 1000)
            assert not unknown.caps.allowed(row.caps), "what can't be counted stays away"

    asyncio.run(run())


@pytest.mark.parametrize("marker", [None, b"rebuilding:this run"])
def test_money_is_not_given_while_spend_is_not_known(
    local_services: Endpoints, valkey: Valkey, campaign: str, marker: bytes | None
) -> None:
    inventory = _inventory(campaign, 10**9, 1_000)
    row = inventory.rows[0]
    lost = ("DEL", MATERIALIZER_MARKER) if marker is None else ("SET", MATERIALIZER_MARKER, marker)

    async def run() -> None:
        async with _store(local_services.valkey_url) as store:
            reservation = Reservation(row.budget, 1_000)
            assert await store.commit(_record(row.campaign.id), reservation) is Commit.BUDGET_UNKNOWN, "not asked yet"
            await store.budgets.refresh(inventory)
            assert await store.commit(_record(row.campaign.id), reservation) is Commit.DONE
            valkey.call(*lost)
            assert await store.commit(_record(row.campaign.id), reservation) is Commit.BUDGET_UNKNOWN, "noticed at once"
            assert not store.budgets.known
            await store.budgets.refresh(inventory)
            assert not store.budgets.known
            valkey.call("SET", MATERIALIZER_MARKER, "this run")
            await store.budgets.refresh(inventory)
            assert store.budgets.known is (marker is not None), "emptied: wins on their way are forgotten, so it waits"

    asyncio.run(run())
    assert int(valkey.call("HGET", reserved_amounts_key(row.campaign.id), "total")) == 1_000


def test_a_busy_campaign_leases_and_returns(local_services: Endpoints, valkey: Valkey, campaign: str) -> None:
    inventory = _inventory(campaign, 100_000_000, 1_000)
    row = inventory.rows[0]
    moment = [1000.0]

    async def run() -> None:
        connection = AsyncValkey(local_services.valkey_url)
        await connection.start()
        store = Store(connection, 5.0, TTL_S, TIMES)
        store.budgets = budgets = Budgets(connection, TIMES, monotonic=lambda: moment[0])
        reservation = Reservation(row.budget, 1_000)
        await budgets.refresh(inventory)
        for _ in range(3):
            for _ in range(100):
                assert await store.commit(_record(row.campaign.id), reservation) is Commit.DONE
            moment[0] += 1.0
            await budgets.refresh(inventory)
        one_by_one = valkey.call("ZCARD", reserved_key(row.campaign.id))
        for _ in range(50):
            assert await store.commit(_record(row.campaign.id), reservation) is Commit.DONE
        assert valkey.call("ZCARD", reserved_key(row.campaign.id)) == one_by_one, "paid by the lease"
        await budgets.close()
        await connection.close()

    asyncio.run(run())
    assert int(valkey.call("HGET", reserved_amounts_key(row.campaign.id), "total")) == 350_000, "the rest is returned"


def test_pacing_and_urgency_follow_the_ledger_and_the_stream(
    local_services: Endpoints, valkey: Valkey, campaign: str
) -> None:
    made = catalog(
        [
            {"id": campaign, "pricing": "cpm", "bid_micros": 1_000_000, "campaign": {"pacing": "evenly"}},
            {"id": f"{campaign}-g", "pricing": "guaranteed", "bid_micros": 1_000_000},
        ]
    )
    now_s = int(time.time())
    promise = {"goal_impressions": 1_000, "start_ms": (now_s - 5_000) * 1000, "end_ms": (now_s + 5_000) * 1000}
    made = replace(made, line_items=[made.line_items[0], replace(made.line_items[1], **promise)])
    counter = COUNTER_BY_NAME["placement_impressions_hour"]
    hours = {(counter, "", now_s - now_s % 3600 - 3600 * back): 1_000 if back < 3 else 10 for back in range(1, 25)}
    pairs = [part for pair in pack_counters(hours).items() for part in pair]
    valkey.call("HSET", entity_key("placement", "pl-video"), *pairs)
    _spend(valkey, f"cmp-{campaign}-g", 250_000)  # a quarter of the promise in half of its time

    async def run() -> Budgets:
        async with _store(local_services.valkey_url) as store:
            await store.budgets.refresh(Inventory(made))
            return store.budgets

    budgets = asyncio.run(run())
    valkey.call("DEL", entity_key("placement", "pl-video"))
    assert list(budgets.thresholds) == [f"cmp-{campaign}"]
    assert 0 < budgets.thresholds[f"cmp-{campaign}"] < 2**32, "a slow start"
    assert budgets.urgency == {f"li-{campaign}-g": pytest.approx(3.375, rel=0.02)}
    busy_ms = ((now_s // 3600 - 2) % 24) * 3_600_000
    assert budgets.curve.passed(busy_ms + 3_600_000) - budgets.curve.passed(busy_ms) > 0.3, "the last day's traffic"


def test_of_many_quiet_campaigns_some_are_looked_at_in_turn(local_services: Endpoints, campaign: str) -> None:
    ads = [{"id": f"{campaign}-{n}", "pricing": "cpm", "bid_micros": 1_000_000} for n in range(1_200)]
    inventory = Inventory(catalog(ads))

    async def run() -> None:
        async with _store(local_services.valkey_url) as store:
            await store.budgets.refresh(inventory)
            assert len(store.budgets.accounts) == 1_200, "everybody once"
            row = inventory.rows[1_100]
            async with _store(local_services.valkey_url) as other:
                await other.budgets.refresh(inventory)
                await other.commit(_record(row.campaign.id), Reservation(row.budget, 1_000))
            for _ in range(3):
                await store.budgets.refresh(inventory)
            assert store.budgets.accounts[row.campaign.id].reserved_micros == 1_000

    asyncio.run(run())


def test_wins_that_could_not_be_undone_are_undone_with_the_next_refresh(
    local_services: Endpoints, valkey: Valkey, campaign: str
) -> None:
    inventory = _inventory(campaign, 10_000, 1_000)
    row = inventory.rows[0]

    async def run() -> None:
        async with _store(local_services.valkey_url) as store:
            await store.budgets.refresh(inventory)
            reservation, record = Reservation(row.budget, 1_000), _record(row.campaign.id)
            assert await store.commit(record, reservation) is Commit.DONE
            store.budgets.undo_later([store.budgets.release(reservation, record.record_id)])
            await store.budgets.refresh(inventory)
            assert store.budgets.headroom_micros == {row.campaign.id: 10_000}

    asyncio.run(run())


def test_a_win_is_registered_for_its_tokens_life_and_lag(
    local_services: Endpoints, valkey: Valkey, campaign: str
) -> None:
    record = _record(campaign)

    async def run() -> Commit:
        async with _store(local_services.valkey_url) as store:
            await store.budgets.refresh(_inventory(campaign, 1, 1))
            valkey.call("SCRIPT", "FLUSH")  # a restarted server does not know the script: it is sent in full
            return await store.commit(record, Reservation(Budget(campaign, 1), 1))

    assert asyncio.run(run()) is Commit.DONE
    assert AdRecord.from_bytes(valkey.call("GET", registry_key(record.record_id))) == record
    assert 0 < valkey.call("TTL", registry_key(record.record_id)) <= TTL_S + REGISTRY_LAG_S


def test_standing_reads_the_viewers_counters(local_services: Endpoints, valkey: Valkey, campaign: str) -> None:
    pseudonym = f"v1:{uuid.uuid4().hex}"
    household = f"v1:{uuid.uuid4().hex}"
    counter = COUNTER_BY_NAME["user_campaign_impressions_minute"]
    start_s = NOW_S - NOW_S % counter.bucket_s
    commands: list[Command] = []
    for key, count in ((user_key(pseudonym), 2), (household_key(household), 5)):
        ((field, entries),) = pack_counters({(counter, campaign, start_s): count}).items()
        commands.append(("HSET", key, field, entries))
    valkey.pipeline(commands)
    ids = {"campaign": campaign, "creative": "c", "advertiser": "a"}

    async def run() -> None:
        async with _store(local_services.valkey_url) as store:
            standing = await store.read(pseudonym, household, None, NOW_S * 1000)
            assert standing.viewer is standing.user is not None and standing.household is None
            unknown = await store.read(None, household, None, NOW_S * 1000)
            assert unknown.user is None and unknown.read and unknown.viewer is not None
            nobody = await store.read(None, None, None, NOW_S * 1000)
            assert nobody.viewer is None and nobody.read
            for found, seen in ((standing, 2), (unknown, 5)):
                for limit, expected in ((seen, False), (seen + 1, True)):
                    rules = cap_rules([FrequencyCap("campaign", limit, 3600)], ids)
                    assert found.caps.allowed(rules) is expected
            assert not nobody.caps.allowed(cap_rules([FrequencyCap("campaign", 9, 3600)], ids))

    asyncio.run(run())


def test_open_wins_are_read_by_campaign(local_services: Endpoints, valkey: Valkey, campaign: str) -> None:
    minute = OpenWins(10_000, 2_500, 4, 1)
    valkey.call("HSET", open_wins_key(campaign), str(NOW_S), open_wins_value(minute))

    async def run() -> None:
        async with _store(local_services.valkey_url) as store:
            assert await store.open_wins([campaign, "cmp-new"]) == {campaign: {NOW_S: minute}, "cmp-new": {}}

    asyncio.run(run())


def test_a_server_that_is_away_is_an_answer_not_an_exception(campaign: str) -> None:
    async def run() -> None:
        async with _store("redis://127.0.0.1:9/0", timeout_s=0.05) as store:
            standing = await store.read("v1:x", None, None, NOW_S * 1000)
            assert (standing.read, standing.user, store.budgets.known) == (False, None, False)
            assert await store.commit(_record(campaign), None) is Commit.NOT_REGISTERED

    asyncio.run(run())
