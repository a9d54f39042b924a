"""Calls as HTTP requests: GET with macros expanded, the device's headers and an idempotency key.

A partner's connections are its own, so a partner that hangs uses up no one else's.
Source: VAST 4.2 (headers of server-side tracking); draft-ietf-httpapi-idempotency-key-header.
"""

from __future__ import annotations

import asyncio
from urllib.parse import quote, urlsplit

from connectors.addresses import Resolver
from connectors.http_client import Answer, HttpPool, PoolLimits
from jobs.vendors.device import device_headers, header_text
from jobs.vendors.lane import Call
from jobs.vendors.macros import SERVER_USER_AGENT
from jobs.vendors.partners import PartnerBook, authority
from schemas.catalog import Partner

LOCATION, RETRY_AFTER = b"location", b"retry-after"
_KEPT_HEADERS = frozenset({LOCATION, RETRY_AFTER})
_MOST_ORIGINS = 1_024
#: What a URL's path and query may hold as it is; all else, line ends among it, is percent-encoded.
_SAFE = "%/:=&?~+!$,;'@()*"


class Wire:
    """Sends calls, on kept connections by partner and origin. Not shared between event loops."""

    def __init__(self, book: PartnerBook, connect_s: float, resolve: Resolver | None) -> None:
        """`resolve` judges addresses; None allows all."""
        self._book = book
        self._connect_s = connect_s
        self._resolve = resolve
        self._pools: dict[tuple[str, str], HttpPool] = {}

    def send(self, partner: Partner, call: Call, url: str) -> asyncio.Future[Answer]:
        """The answer's future. Errors: BadUrl, for a redirect that leads somewhere else than http(s)."""
        pool = self._pool(partner, f"{urlsplit(url).scheme}://{authority(url)}")
        lines = [
            f"User-Agent: {SERVER_USER_AGENT}\r\nAccept: */*\r\nIdempotency-Key: {call.key}\r\n",
            device_headers(call.device),
        ]
        if partner.headers and self._book.of_url(url).id == partner.id:  # a redirect must not carry them elsewhere
            lines += [f"{header_text(name)}: {header_text(value)}\r\n" for name, value in partner.headers.items()]
        return pool.send(pool.request_bytes("GET", request_target(url), "".join(lines)) + b"\r\n")

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()

    def _pool(self, partner: Partner, origin: str) -> HttpPool:
        found = self._pools.get((partner.id, origin))
        if found is None:
            if len(self._pools) >= _MOST_ORIGINS:
                self._forget()
            found = self._pools[partner.id, origin] = HttpPool(
                origin,
                PoolLimits(
                    connections=2 * partner.max_in_flight,  # those that are being closed count
                    connect_s=self._connect_s,
                    exchange_s=partner.timeout_ms / 1000,
                    head_only=True,
                ),
                keep_headers=_KEPT_HEADERS,
                resolve=self._resolve,
            )
        return found

    def _forget(self) -> None:
        """Closes the connections that nobody uses now."""
        for key, pool in list(self._pools.items()):
            if not pool.busy:
                pool.close()
                del self._pools[key]


def request_target(url: str) -> str:
    """Path and query as they go into a request line; a fragment stays at home.

    Example:
    >>> request_target("https://p.test/a b?x=[y]#z"), request_target("https://p.test")
    ('/a%20b?x=%5By%5D', '/')
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return quote(target, safe=_SAFE)
