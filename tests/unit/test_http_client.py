"""Every exchange ends exactly once, whatever its host is called and whenever its pool is closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectors.http_client import HttpPool, PoolLimits
from schemas.errors import ConfigError, ConnectorError, Refused, Unavailable

_LIMITS = PoolLimits(connections=4, connect_s=0.05)


class Told:
    """A taker that keeps what it was told."""

    def __init__(self) -> None:
        self.errors: list[tuple[int, ConnectorError]] = []

    def answered(self, tag: int, status: int, body: bytes, latency_s: float) -> None:
        raise AssertionError("nobody is there to answer")

    def failed(self, tag: int, error: ConnectorError, latency_s: float) -> None:
        self.errors.append((tag, error))


async def _no_name(host: str, port: int, **_: Any) -> list[Any]:
    """Resolves as the system does a name that nobody has."""
    if "\0" in host:
        raise ValueError("embedded null character")
    host.encode("idna")
    raise socket.gaierror(f"{host}: no such name")


def _told(origin: str, then: Callable[[HttpPool], None] = lambda _pool: None) -> Told:
    """What six exchanges with an origin come to, on four connections."""
    told = Told()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.getaddrinfo = _no_name  # type: ignore[method-assign]
        pool = HttpPool(origin, _LIMITS)
        for tag in range(6):
            pool.start(b"GET / HTTP/1.1\r\n\r\n", told, tag)
        assert not told.errors, "never from within start"
        then(pool)
        for _ in range(500):
            if len(told.errors) >= 6:
                break
            await asyncio.sleep(0.001)
        for _ in range(5):
            await asyncio.sleep(0)
        assert not pool.busy

    asyncio.run(run())
    return told


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_characters="/?#@:[]", exclude_categories=["Cs"]), min_size=1, max_size=80))
@example("a" * 64)
@example("a..b")
@example(".")
@example("\0")
@example("xn--a")
@example("\u00df" * 60)
@example("\u3002")
def test_an_exchange_with_an_odd_host_ends_once(host: str) -> None:
    try:
        told = _told(f"http://{host}")
    except ConfigError:
        return
    assert sorted(tag for tag, _ in told.errors) == list(range(6))
    assert all(isinstance(error, Unavailable) for _, error in told.errors)


@pytest.mark.parametrize(
    "origin", ["http://[oops", "http://a:99999", "http://a:x", "http://", "ftp://a", "http://[::1"]
)
def test_what_is_no_address_is_a_matter_of_configuration(origin: str) -> None:
    with pytest.raises(ConfigError):
        HttpPool(origin)


def test_exchanges_of_a_pool_that_is_closed_end_once() -> None:
    told = _told("http://nobody.test", HttpPool.close)
    assert sorted(tag for tag, _ in told.errors) == list(range(6))


def test_a_closed_pool_refuses() -> None:
    told = Told()

    async def run() -> None:
        pool = HttpPool("http://nobody.test", _LIMITS)
        pool.close()
        pool.start(b"", told, 7)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(run())
    ((tag, error),) = told.errors
    assert tag == 7 and "given up" in str(error)


@pytest.mark.parametrize("raised", [ValueError("x"), RuntimeError("x"), OSError("x"), Refused("x"), TimeoutError()])
def test_whatever_resolving_raises_is_told(raised: Exception) -> None:
    told = Told()

    async def run() -> None:
        async def resolve(_host: str, _port: int) -> str:
            raise raised

        HttpPool("http://nobody.test", _LIMITS, resolve=resolve).start(b"", told, 1)
        await asyncio.sleep(0.01)

    asyncio.run(run())
    assert [tag for tag, _ in told.errors] == [1]
