"""The HTTP server against raw sockets: what clients send by mistake, slowly, all at once, or on purpose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from connectors.http_messages import Limits, Request, Response
from connectors.http_server import HttpServer

pytestmark = pytest.mark.contract

LIMITS = Limits(
    head_bytes=2_000, body_bytes=10_000, head_timeout_s=0.4, body_timeout_s=0.4, idle_timeout_s=1.0, linger_s=0.3
)
Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def echo(request: Request) -> Response | Awaitable[Response]:
    if request.path == "/slow":
        return _slow(request)
    if request.path == "/broken":
        raise RuntimeError("planted")
    said = {"path": request.path, "params": request.params, "body": request.body.decode(), "method": request.method}
    return Response(200, json.dumps(said).encode())


async def _slow(request: Request) -> Response:
    await asyncio.sleep(0.15)
    return Response(200, b"slow " + request.body, "text/plain")


def converse(talk: Conversation, limits: Limits = LIMITS) -> None:
    async def run() -> None:
        server = HttpServer(echo, limits)
        await server.start("127.0.0.1", 0)
        assert server._server is not None
        reader, writer = await asyncio.open_connection(*server._server.sockets[0].getsockname())
        try:
            async with asyncio.timeout(10):
                await talk(reader, writer)
        finally:
            writer.close()
            await server.drain(0.1)

    asyncio.run(run())


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(status_line.split()[1]), headers, body


def test_pipelined_answers_keep_their_order_behind_a_slow_one() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none")
        writer.write(b"GET /two?a=1&a=2&b=%20 HTTP/1.1\r\nHost: x\r\n\r\nGET /three HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await answer(reader))[2] == b"slow one"
        assert json.loads((await answer(reader))[2])["params"] == {"a": "2", "b": " "}
        assert json.loads((await answer(reader))[2])["path"] == "/three"

    converse(talk)


def test_a_request_in_single_bytes_is_the_same_request() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for (
            byte
        ) in b"POST /x?y=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        _status, _headers, body = await answer(reader)
        assert json.loads(body) == {"path": "/x", "params": {"y": "1"}, "body": "abcde", "method": "POST"}

    converse(talk)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n", 413),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n" + b"x" * 4096 + b"\r\n",
            413,
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 3_000, 431),
        (b"GET /" + b"y" * 3_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"rubbish\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\n", 417),
        (b"GET /half HTTP/1.1\r\nHost", 408),
        (b"POST /half HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", 408),
        (b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n", 500),
    ],
)
def test_refusals_are_readable(sent: bytes, status: int) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        if status == 413 and b"chunked" in sent:
            writer.write((b"1000\r\n" + b"x" * 4096 + b"\r\n") * 5)
        got, headers, body = await answer(reader)
        assert got == status
        assert json.loads(body)["error"]
        if status != 500:
            assert headers["connection"] == "close"
            assert await reader.read() == b""

    converse(talk)


def test_a_refusal_comes_after_the_answers_before_it() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nArubbish\r\n\r\n")
        assert (await answer(reader))[2] == b"slow A"
        assert (await answer(reader))[0] == 400

    converse(talk)


def test_five_megabytes_are_refused_before_they_are_read() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000)
        status, _headers, body = await answer(reader)
        assert (status, json.loads(body)) == (413, {"error": "too_large", "limit_bytes": 10_000})

    converse(talk)


def test_expect_continue_gets_its_go_ahead_before_the_body() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert json.loads((await answer(reader))[2])["body"] == "abc"

    converse(talk)


def test_old_clients_absolute_targets_and_head() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: " in head
        writer.write(b"GET http://host/p?q=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert json.loads((await answer(reader))[2])["path"] == "/p"
        writer.write(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert (await answer(reader))[1]["connection"] == "keep-alive"
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await answer(reader))[1]["connection"] == "close"
        assert await reader.read() == b""

    converse(talk)


def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(4):
            await asyncio.sleep(0.4)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await answer(reader))[0] == 200
        assert await reader.read() == b""

    converse(talk)


def test_a_flood_of_pipelined_requests_waits_and_is_all_answered() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nA")
        writer.write(b"GET /n HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000)
        assert (await answer(reader))[2] == b"slow A"
        for _ in range(5_000):
            assert (await answer(reader))[0] == 200

    converse(talk)


def test_drain_answers_what_was_asked_and_refuses_new_connections() -> None:
    async def run() -> None:
        server = HttpServer(echo, LIMITS)
        await server.start("127.0.0.1", 0)
        assert server._server is not None
        address = server._server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        idle_reader, idle_writer = await asyncio.open_connection(*address)
        writer.write(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nA")
        await asyncio.sleep(0.05)
        draining = asyncio.create_task(server.drain(5))
        status, headers, body = await answer(reader)
        assert (status, headers["connection"], body) == (200, "close", b"slow A")
        assert await idle_reader.read() == b""
        await asyncio.wait_for(draining, 2)
        with pytest.raises(OSError):
            await asyncio.open_connection(*address)
        writer.close()
        idle_writer.close()

    asyncio.run(run())


@pytest.mark.parametrize("stays", [True, False])
def test_a_handler_can_tell_whether_its_client_got_the_answer(stays: bool) -> None:
    async def run() -> bool:
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[Request] = loop.create_future()
        told: asyncio.Future[bool] = loop.create_future()

        async def keep(request: Request) -> Response:
            asked.set_result(request)
            await asyncio.sleep(0.2)
            loop.call_soon(lambda: told.set_result(request.connected()))
            return Response(200, b"done")

        server = HttpServer(keep, LIMITS)
        await server.start("127.0.0.1", 0)
        assert server._server is not None
        _reader, writer = await asyncio.open_connection(*server._server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await asked).connected()
        if not stays:
            writer.transport.abort()
        found = await told
        writer.close()
        await server.drain(0.5)
        return found

    assert asyncio.run(run()) is stays
