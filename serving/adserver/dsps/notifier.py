"""Calls notice URLs off the request path: one GET each, no answer expected, none repeated.

At most `MOST_IN_FLIGHT` at a time and `MOST_ORIGINS` hosts with kept connections; what is more is dropped and counted,
so that a DSP's slow notice server costs memory of that size and nothing else. Addresses of private networks are
refused unless a setting allows them, since a bid may name any host.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from urllib.parse import urlsplit

from connectors.addresses import PrivateAddress, public_address
from connectors.http_client import Answer, HttpPool, PoolLimits
from schemas.errors import ConfigError
from serving.adserver import metrics

MOST_IN_FLIGHT = 512
MOST_ORIGINS = 128
_LIMITS = PoolLimits(connections=8, response_bytes=65_536, connect_s=1.0, exchange_s=3.0, head_only=True)


class Notifier:
    """One per process, in its event loop. `send` never blocks and never raises."""

    def __init__(self, allow_private: bool) -> None:
        self._resolve = None if allow_private else public_address
        self._pools: OrderedDict[str, HttpPool] = OrderedDict()
        self._in_flight: set[asyncio.Future[Answer]] = set()

    def send(self, url: str) -> None:
        """Calls a URL soon. Outcomes are counted: called, refused, failed, dropped."""
        if len(self._in_flight) >= MOST_IN_FLIGHT:
            metrics.NOTICES.labels("dropped").inc()
            return
        try:
            parts = urlsplit(url)
            pool = self._pool(f"{parts.scheme}://{parts.netloc}")
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            future = pool.send(pool.request_bytes("GET", path) + b"\r\n")
        except (ConfigError, ValueError):
            metrics.NOTICES.labels("refused").inc()
            return
        self._in_flight.add(future)
        future.add_done_callback(self._done)

    async def drain(self, timeout_s: float) -> None:
        """Waits for what is under way."""
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=timeout_s)

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _pool(self, origin: str) -> HttpPool:
        """The origin's connections; those of the one that was not called for longest make room. Errors: ConfigError."""
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = HttpPool(origin, _LIMITS, resolve=self._resolve)
            if len(self._pools) > MOST_ORIGINS:
                self._pools.popitem(last=False)[1].close()
        self._pools.move_to_end(origin)
        return pool

    def _done(self, future: asyncio.Future[Answer]) -> None:
        self._in_flight.discard(future)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            metrics.NOTICES.labels("called" if future.result().status < 400 else "failed").inc()
        else:
            metrics.NOTICES.labels("refused" if isinstance(error, PrivateAddress) else "failed").inc()
