"""VAST from somebody else's address: one GET with limits on bytes, time and redirects, and no way into our own network.

Source: OWASP "Server-Side Request Forgery Prevention"; RFC 9110 §15.4 (redirects).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import quote, urljoin, urlsplit

from connectors.addresses import Resolver, public_address
from connectors.http_client import Answer, HttpPool, PoolLimits
from schemas.errors import ConfigError, Refused, TimedOut

_LOCATION = b"location"
_MOST_REDIRECTS = 3
#: What a URL's path and query may hold as it is; all else, line ends among it, is percent-encoded.
_SAFE = "%/:=&?~+!$,;'@()*"
_HEADERS = "Accept: application/xml, text/xml, */*\r\nAccept-Encoding: identity\r\n"
_USER_AGENT = "Headwater/1 (ad server)"


class VastFetcher:
    """Fetches documents. `allow_private` is for tests and local stacks: names may lead to our own machine then."""

    def __init__(self, limit_bytes: int, allow_private: bool) -> None:
        self._limit_bytes = limit_bytes
        self._resolve: Resolver | None = None if allow_private else public_address

    async def fetch(
        self,
        url: str,
        timeout_s: float,
        headers: Mapping[str, str] | None = None,
        allowed: Callable[[str], bool] = lambda _url: True,
    ) -> bytes:
        """The body of a 200 answer, within `timeout_s` over all redirects. Errors: ConnectorError.

        `headers` are passed on with their line ends taken out; `allowed` judges the address and each redirect.
        """
        try:
            return await asyncio.wait_for(self._follow(url, timeout_s, dict(headers or {}), allowed), timeout_s)
        except TimeoutError as e:
            raise TimedOut(f"no answer within {timeout_s} s") from e

    async def _follow(
        self, url: str, timeout_s: float, headers: dict[str, str], allowed: Callable[[str], bool]
    ) -> bytes:
        for _ in range(_MOST_REDIRECTS + 1):
            if not allowed(url):
                raise Refused("address is not allowed")
            answer = await self._get(url, timeout_s, headers)
            if answer.status == 200:
                return answer.body
            location = (answer.headers or {}).get(_LOCATION)
            if answer.status not in (301, 302, 303, 307, 308) or location is None:
                raise Refused(f"HTTP status {answer.status}")
            url = urljoin(url, location.decode("latin-1"))
        raise Refused(f"more than {_MOST_REDIRECTS} redirects")

    async def _get(self, url: str, timeout_s: float, headers: Mapping[str, str]) -> Answer:
        try:
            parts = urlsplit(url)
            limits = PoolLimits(connections=2, response_bytes=self._limit_bytes, exchange_s=timeout_s)
            pool = HttpPool(f"{parts.scheme}://{parts.netloc}", limits, None, frozenset({_LOCATION}), self._resolve)
            path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_SAFE)
            lines = "".join(f"{name}: {_one_line(value)}\r\n" for name, value in headers.items() if value)
            agent = "" if headers.get("User-Agent") else f"User-Agent: {_USER_AGENT}\r\n"
            head = pool.request_bytes("GET", path, _HEADERS + agent + lines)
        except (ConfigError, ValueError) as e:
            raise Refused(f"not an address: {e}") from e
        try:
            return await pool.send(head + b"\r\n")
        finally:
            pool.close()


def _one_line(value: str) -> str:
    """A header's value without what would end it."""
    return "".join(c for c in value if c.isascii() and c.isprintable())[:512]
