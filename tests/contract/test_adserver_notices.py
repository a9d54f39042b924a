"""Notices over real HTTP: called once each, whatever the other end does, and never into a private network."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY

from serving.adserver.dsps import notifier
from serving.adserver.dsps.notifier import Notifier


def _counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("adserver_notices_total", {"outcome": outcome}) or 0.0


class _Dsp:
    """A DSP's notice server: keeps the request lines, answers with `status`, or hangs up."""

    def __init__(self, status: int | None) -> None:
        self.lines: list[str] = []
        self.address = ""
        self._status = status
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> _Dsp:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.lines.append(head.split(b"\r\n")[0].decode())
                if self._status is None:
                    break
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self._status)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


def test_each_notice_is_one_get() -> None:
    async def run() -> list[str]:
        before = _counted("called"), _counted("failed")
        async with _Dsp(204) as dsp, _Dsp(500) as failing:
            made = Notifier(allow_private=True)
            for i in range(5):
                made.send(f"{dsp.address}/win?p={i}")
            made.send(f"{failing.address}/")
            made.send("http://127.0.0.1:1/nobody-listens")
            await made.drain(5)
            made.close()
            assert (_counted("called") - before[0], _counted("failed") - before[1]) == (5, 2)
            return dsp.lines

    assert sorted(asyncio.run(run())) == [f"GET /win?p={i} HTTP/1.1" for i in range(5)]


def test_a_notice_does_not_lead_into_a_private_network() -> None:
    async def run() -> list[str]:
        before = _counted("refused")
        async with _Dsp(204) as dsp:
            made = Notifier(allow_private=False)
            made.send(f"{dsp.address}/win")
            made.send("ftp://d.example/")
            await made.drain(5)
            made.close()
            assert _counted("refused") - before == 2
            return dsp.lines

    assert asyncio.run(run()) == []


def test_a_flood_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "MOST_IN_FLIGHT", 3)

    async def run() -> int:
        before = _counted("dropped")
        async with _Dsp(204) as dsp:
            made = Notifier(allow_private=True)
            for _ in range(10):
                made.send(f"{dsp.address}/win")
            await made.drain(5)
            made.close()
            assert _counted("dropped") - before == 7
            return len(dsp.lines)

    assert asyncio.run(run()) == 3
