"""DSPs over real HTTP, each failing in its own way: it loses alone, the good one's bid counts, and in time."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from connectors.http_client import HttpPool, PoolLimits
from schemas.catalog import Bidder
from schemas.decisions import Outcome
from schemas.errors import ConfigError, Refused, Unavailable
from serving.adserver.dsps.bidders import Bidders, CallRules

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

GOOD = json.dumps({"id": "r", "seatbid": [{"bid": [{"id": "b", "impid": "1", "price": 2.5}]}]}).encode()


def _response(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")), 0)
    return await reader.readexactly(length)


# Servers and client share this process and a machine that may stall: what is in time is so by a wide margin.
TIMEOUT_MS = 2_000
DEADLINE_S = 2.5


def _answers(payload: bytes, delay_s: float = 0.0, close: bool = False) -> Behaviour:
    """A server that answers every request of a connection with the same bytes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await _read_request(reader)
                await asyncio.sleep(delay_s)
                writer.write(payload)
                await writer.drain()
                if close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    return behave


async def _resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _read_request(reader)
    writer.transport.abort()


async def _drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _read_request(reader)
    for byte in _response(GOOD):
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def _endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    try:
        while True:
            writer.write(b"X-More: " + b"x" * 1_000 + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.001)
    except ConnectionError:
        writer.close()


async def _closes_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Promises to keep the connection, and does not."""
    await _read_request(reader)
    writer.write(_response(GOOD)[:-10])
    await writer.drain()
    writer.close()


HOSTILE: dict[str, tuple[Behaviour, set[Outcome]]] = {
    "hangs": (_answers(_response(GOOD), delay_s=30), {Outcome.EXPIRED}),
    "late": (_answers(_response(GOOD), delay_s=DEADLINE_S + 1.5), {Outcome.EXPIRED}),
    "drips": (_drips, {Outcome.EXPIRED}),
    "resets": (_resets, {Outcome.DSP_ERROR}),
    "no-bid": (_answers(b"HTTP/1.1 204 No Content\r\n\r\n"), {Outcome.NO_BID}),
    "error": (_answers(_response(b"", "500 No")), {Outcome.DSP_ERROR}),
    "status-999": (_answers(_response(GOOD, "999 What")), {Outcome.DSP_ERROR}),
    "no-http": (_answers(b"hello world\r\n\r\n"), {Outcome.DSP_ERROR}),
    "bad-json": (_answers(_response(b'{"id": ')), {Outcome.INVALID_RESPONSE}),
    "nan": (_answers(_response(GOOD.replace(b"2.5", b"NaN"))), {Outcome.INVALID_RESPONSE}),
    "not-utf8": (_answers(_response(b'{"id": "\xff\xfe"}')), {Outcome.INVALID_RESPONSE}),
    "too-much": (_answers(_response(b" " * 5_000_000)), {Outcome.DSP_ERROR}),
    "gzip-bomb": (
        _answers(_response(gzip.compress(b" " * 1_000_000), headers="Content-Encoding: gzip\r\n")),
        {Outcome.DSP_ERROR},
    ),
    "endless-head": (_endless_head, {Outcome.EXPIRED, Outcome.DSP_ERROR}),
    "closes-early": (_closes_early, {Outcome.DSP_ERROR}),
    "two-lengths": (_answers(_response(GOOD, headers="Content-Length: 3\r\n")), {Outcome.DSP_ERROR}),
    "length-and-chunks": (_answers(_response(GOOD, headers="Transfer-Encoding: chunked\r\n")), {Outcome.DSP_ERROR}),
    "empty": (_answers(_response(b"{}")), {Outcome.NO_BID}),
}


async def _started(behaviour: Behaviour) -> tuple[asyncio.Server, str]:
    server = await asyncio.start_server(behaviour, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    return server, f"http://127.0.0.1:{port}/bid?x=1"


def test_every_bad_dsp_loses_alone_and_on_time() -> None:
    async def run() -> None:
        good, good_url = await _started(_answers(_response(GOOD), delay_s=0.01))
        servers = [good]
        rows = [
            Bidder("good", good_url, timeout_ms=TIMEOUT_MS),
            Bidder("nobody", "http://127.0.0.1:9/bid"),
            Bidder("far", good_url, regions=["DE"]),
        ]
        for name, (behaviour, _) in HOSTILE.items():
            server, url = await _started(behaviour)
            servers.append(server)
            rows.append(Bidder(name, url, timeout_ms=TIMEOUT_MS))
        bidders = Bidders(CallRules(PoolLimits(connections=4, response_bytes=100_000)))
        bidders.replace(rows)
        loop = asyncio.get_running_loop()
        for _ in range(3):  # also on connections that were used before
            began_s = loop.time()
            turns = {t.bidder.id: t for t in await bidders.call(lambda _: b"{}", "US", began_s + DEADLINE_S).collect()}
            assert loop.time() - began_s < DEADLINE_S + 1, "before the late one answers"
            assert turns["good"].outcome is None and turns["good"].response is not None
            assert turns["good"].response.seatbid[0].bid[0].price == 2.5
            assert turns["nobody"].outcome is Outcome.DSP_ERROR
            assert "far" not in turns
            for name, (_, outcomes) in HOSTILE.items():
                assert turns[name].outcome in outcomes, (name, turns[name].outcome)
            await asyncio.sleep(0.3)
        bidders.close()
        for server in servers:
            server.close()

    asyncio.run(run())


def test_connections_are_kept_and_late_answers_are_measured() -> None:
    async def run() -> None:
        opened = 0
        slow = _answers(_response(b"ok"), delay_s=0.1)

        async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal opened
            opened += 1
            await slow(reader, writer)

        server, url = await _started(counting)
        latencies: list[float] = []
        pool = HttpPool(url, PoolLimits(connections=2), latencies.append)
        for _ in range(4):
            answer = await pool.fetch("GET", "/", 5.0)
            assert (answer.status, answer.body) == (200, b"ok")
        assert opened == 1
        forgotten = pool.send(pool.request_bytes("GET", "/") + b"\r\n")
        forgotten.cancel()
        await asyncio.sleep(0.3)
        assert len(latencies) == 5 and min(latencies) >= 0.09
        await pool.fetch("GET", "/", 5.0)
        assert opened == 1
        crowd = [pool.send(pool.request_bytes("GET", "/") + b"\r\n") for _ in range(3)]
        results: list[Any] = await asyncio.gather(*crowd, return_exceptions=True)
        assert [isinstance(r, Unavailable) for r in results] == [False, False, True]
        pool.close()
        server.close()

    asyncio.run(run())


def test_a_connection_closed_meanwhile_is_replaced() -> None:
    async def run() -> None:
        server, url = await _started(_answers(_response(b"ok"), close=True))
        pool = HttpPool(url)
        for _ in range(3):
            assert (await pool.fetch("POST", "/", 5.0, b"{}")).status == 200
            await asyncio.sleep(0.02)
        bad, bad_url = await _started(_answers(b"nonsense\r\n\r\n"))
        with pytest.raises(Refused):
            await HttpPool(bad_url).fetch("GET", "/", 5.0)
        pool.close()
        for s in (server, bad):
            s.close()

    asyncio.run(run())


def test_a_broken_bidders_file_changes_nothing() -> None:
    async def run() -> None:
        server, url = await _started(_answers(_response(GOOD)))
        bidders = Bidders(CallRules(PoolLimits()))
        bidders.replace([Bidder("good", url)])
        for rows in ([Bidder("a", "ftp://x.test/")], [Bidder("a", url), Bidder("a", url)]):
            with pytest.raises(ConfigError):
                bidders.replace(rows)
        (turn,) = await bidders.call(lambda _: b"{}", None, asyncio.get_running_loop().time() + 2).collect()
        assert turn.outcome is None
        assert not bidders.call(lambda _: b"{}", None, asyncio.get_running_loop().time() - 1).calls
        bidders.close()
        server.close()

    began = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - began < 20
