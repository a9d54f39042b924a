"""Both clients on a real Valkey: late replies, connections that close, connections that were cut."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import uvloop

from connectors.endpoints import Endpoints
from connectors.valkey import AsyncValkey, Valkey
from schemas.errors import Refused, TimedOut, Unavailable


@pytest.fixture
def valkey(local_services: Endpoints) -> Iterator[Valkey]:
    with Valkey(local_services.valkey_url) as connection:
        yield connection


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


def test_a_connection_that_is_just_being_closed_is_none(local_services: Endpoints) -> None:
    async def run() -> None:
        connection = AsyncValkey(local_services.valkey_url, stalled_s=0.0)
        await connection.start()
        with pytest.raises(TimedOut):
            await connection.pipeline([("BLPOP", "no-such-list", "0.2")], 0.01)  # silent for too long: it is replaced
        with pytest.raises(Unavailable, match="not connected"):
            await connection.pipeline([("PING",)], 1.0)
        await connection.close()

    uvloop.run(run())


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
