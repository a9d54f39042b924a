"""Budgets, caps and registry records on a real Valkey: never a micro too much, however many win at once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.endpoints import Endpoints
from connectors.valkey import AsyncValkey, Command, Valkey
from schemas.catalog import FrequencyCap
from schemas.errors import Refused, TimedOut, Unavailable
from schemas.features import COUNTER_BY_NAME
from schemas.ids import encode_id
from schemas.redis_layout import (
    REGISTRY_LAG_S,
    TOTAL_SPEND,
    OpenWins,
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
from serving.adserver.limits import caps
from serving.adserver.limits.budget import RESERVE, reserve_arguments, reserve_keys
from serving.adserver.store import Commit, Reservation, Store, utc_day
from tests.samples.adserver import NOW_S

DAY = utc_day(NOW_S * 1000)
LIFE_MS = 600_000
TTL_S = 3600


@pytest.fixture
def valkey(local_services: Endpoints) -> Iterator[Valkey]:
    with Valkey(local_services.valkey_url) as connection:
        yield connection


@pytest.fixture
def campaign() -> str:
    return f"cmp-{uuid.uuid4().hex}"


@asynccontextmanager
async def _store(url: str, timeout_s: float = 5.0, reservation_s: int = 600) -> AsyncIterator[Store]:
    connection = AsyncValkey(url)
    await connection.start()
    try:
        yield Store(connection, timeout_s, TTL_S, reservation_s)
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


def _reserve(valkey: Valkey, campaign: str, record: str, price: int, budget: int, life_ms: int = LIFE_MS) -> bool:
    granted, _ = valkey.eval(RESERVE, reserve_keys(campaign), reserve_arguments(record, price, budget, DAY, life_ms))
    return granted == 1


def test_a_thousand_wins_at_once_never_overspend(local_services: Endpoints, valkey: Valkey, campaign: str) -> None:
    price, budget, committed = 2_345, 1_000_000, 123_456
    valkey.call("HSET", spend_key(campaign), DAY, committed)

    async def run() -> list[Commit]:
        async with _store(local_services.valkey_url) as a, _store(local_services.valkey_url) as b:
            wins = [
                store.commit(_record(campaign), Reservation(campaign, price, budget))
                for _ in range(500)
                for store in (a, b)
            ]
            return list(await asyncio.gather(*wins))

    outcomes = asyncio.run(run())
    granted = outcomes.count(Commit.DONE)
    assert granted == (budget - committed) // price
    assert outcomes.count(Commit.NO_BUDGET) == 1000 - granted
    assert int(valkey.call("HGET", reserved_amounts_key(campaign), "total")) == granted * price
    assert valkey.call("ZCARD", reserved_key(campaign)) == granted


def test_reserving_again_for_the_same_record_changes_nothing(valkey: Valkey, campaign: str) -> None:
    assert all(_reserve(valkey, campaign, "r1", 600, 1000) for _ in range(5))
    assert not _reserve(valkey, campaign, "r2", 600, 1000)
    assert _reserve(valkey, campaign, "r3", 400, 1000)


def test_an_expired_reservation_gives_its_money_back(valkey: Valkey, campaign: str) -> None:
    assert _reserve(valkey, campaign, "r1", 1000, 1000, life_ms=30)
    assert not _reserve(valkey, campaign, "r2", 1000, 1000)
    assert valkey.call("BLPOP", "no-such-list", "0.05") is None  # the server's own clock has gone on by 50 ms
    assert _reserve(valkey, campaign, "r2", 1000, 1000)
    assert valkey.call("ZCARD", reserved_key(campaign)) == 1


def test_spend_that_is_rebuilt_gives_no_money_away(valkey: Valkey, campaign: str) -> None:
    valkey.call("HSET", spend_key(campaign), DAY, 900)
    assert _reserve(valkey, campaign, "r1", 100, 1000)
    valkey.call("DEL", spend_key(campaign))
    assert not _reserve(valkey, campaign, "r2", 100, 1000)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    budget=st.integers(0, 5_000),
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, 900), st.integers(0, 30)), max_size=60),
)
def test_spend_and_open_wins_stay_within_the_budget(
    valkey: Valkey, budget: int, steps: list[tuple[bool, int, int]]
) -> None:
    """Wins and their impressions in any order: what is committed plus what may still come never passes the budget,
    and no win is refused while there is money for it."""
    campaign = f"cmp-{uuid.uuid4().hex}"
    open_wins: list[tuple[str, int]] = []
    committed = 0
    for number, (is_win, price, position) in enumerate(steps):
        if is_win or not open_wins:
            left = budget - committed - sum(p for _, p in open_wins)
            granted = _reserve(valkey, campaign, f"r{number}", price, budget)
            assert granted == (price <= left)
            if granted:
                open_wins.append((f"r{number}", price))
        else:
            _, price = open_wins.pop(position % len(open_wins))
            committed += price
            valkey.call("HSET", spend_key(campaign), DAY, committed)
        assert committed + sum(p for _, p in open_wins) <= budget


def test_a_win_is_registered_for_its_tokens_life_and_lag(
    local_services: Endpoints, valkey: Valkey, campaign: str
) -> None:
    record = _record(campaign)

    async def run() -> Commit:
        async with _store(local_services.valkey_url) as store:
            valkey.call("SCRIPT", "FLUSH")  # a restarted server does not know the script: it is sent in full
            return await store.commit(record, Reservation(campaign, 1, 1))

    assert asyncio.run(run()) is Commit.DONE
    assert AdRecord.from_bytes(valkey.call("GET", registry_key(record.record_id))) == record
    assert 0 < valkey.call("TTL", registry_key(record.record_id)) <= TTL_S + REGISTRY_LAG_S


def test_standing_reads_caps_and_spend_in_one_trip(local_services: Endpoints, valkey: Valkey, campaign: str) -> None:
    pseudonym = f"v1:{uuid.uuid4().hex}"
    household = f"v1:{uuid.uuid4().hex}"
    counter = COUNTER_BY_NAME["user_campaign_impressions_minute"]
    start_s = NOW_S - NOW_S % counter.bucket_s
    commands: list[Command] = [("HSET", spend_key(campaign), DAY, 77, TOTAL_SPEND, 99)]
    for key, count in ((user_key(pseudonym), 2), (household_key(household), 5)):
        ((field, entries),) = pack_counters({(counter, campaign, start_s): count}).items()
        commands.append(("HSET", key, field, entries))
    valkey.pipeline(commands)

    async def run() -> None:
        async with _store(local_services.valkey_url) as store:
            standing = await store.read(pseudonym, household, [campaign, "cmp-new"], NOW_S * 1000, 0.0)
            assert standing.spend_micros == {campaign: 77, "cmp-new": 0}
            assert standing.viewer is standing.user is not None and standing.household is None
            ids = {"campaign": campaign, "creative": "c", "advertiser": "a"}
            for limit, expected in ((2, False), (3, True)):
                rules = caps.cap_rules([FrequencyCap("campaign", limit, 3600)], ids)
                assert caps.allowed(rules, standing.user, {}, NOW_S) is expected
            unknown = await store.read(None, household, [campaign], NOW_S * 1000, 0.0)
            assert unknown.user is None and unknown.read and unknown.spend_micros == {campaign: 77}
            assert unknown.viewer is not None
            for limit, expected in ((5, False), (6, True)):
                rules = caps.cap_rules([FrequencyCap("campaign", limit, 3600)], ids)
                assert caps.allowed(rules, unknown.viewer, {}, NOW_S) is expected
            nobody = await store.read(None, None, [campaign], NOW_S * 1000, 0.0)
            assert nobody.viewer is None and nobody.read

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
            standing = await store.read("v1:x", None, [campaign], NOW_S * 1000, 0.0)
            assert (standing.read, standing.user, standing.spend_micros) == (False, None, None)
            assert await store.commit(_record(campaign), None) is Commit.NOT_REGISTERED

    asyncio.run(run())


def test_late_replies_never_answer_the_next_question(local_services: Endpoints) -> None:
    async def run() -> None:
        connection = AsyncValkey(local_services.valkey_url, stalled_s=5.0)
        await connection.start()
        with pytest.raises(TimedOut):
            await connection.pipeline([("BLPOP", "no-such-list", "0.2"), ("ECHO", "late")], 0.03)
        assert await connection.pipeline([("ECHO", "mine")], 5.0) == [b"mine"]
        (refused, answered) = await connection.pipeline([("NOSUCH",), ("ECHO", "x")], 5.0)
        assert isinstance(refused, Refused) and answered == b"x"
        await connection.close()

    asyncio.run(run())


def test_both_clients_come_back_after_their_connection_was_cut(local_services: Endpoints, valkey: Valkey) -> None:
    async def run() -> None:
        connection = AsyncValkey(local_services.valkey_url)
        await connection.start()
        own_id = await connection.call("CLIENT", "ID")
        valkey.call("CLIENT", "KILL", "ID", own_id)
        for _ in range(300):
            try:
                if await connection.call("CLIENT", "ID") != own_id:
                    break
            except Unavailable:
                pass
            await asyncio.sleep(0.01)
        else:
            pytest.fail("no new connection")
        await connection.close()

    asyncio.run(run())
    with Valkey(local_services.valkey_url) as other:
        own_id = other.call("CLIENT", "ID")
        valkey.call("CLIENT", "KILL", "ID", own_id)
        with pytest.raises(Unavailable):
            other.call("PING")
        assert other.call("PING") == b"PONG"
