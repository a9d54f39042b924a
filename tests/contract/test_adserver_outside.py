"""What is outside: documents over real HTTP, within limits; the stream's verdicts in a real Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from connectors.endpoints import Endpoints
from connectors.http_messages import Response
from connectors.valkey import AsyncValkey, Valkey
from jobs.transforms.valkey_writes import PendingWrites
from schemas.errors import ConnectorError, Refused, TimedOut
from schemas.redis_layout import SUSPECTS
from serving.adserver.markup.fetch import VastFetcher
from serving.adserver.markup.unwrap import Limits, Unwrapper
from serving.adserver.traffic.suspects import Suspects
from tests.samples.partners import Partner, partner
from tests.unit.test_adserver_unwrap import inline, wrapper

LIMIT_BYTES = 20_000


def _fetch(url: str, allow_private: bool = True, allowed: Callable[[str], bool] = lambda _url: True) -> bytes:
    fetcher = VastFetcher(LIMIT_BYTES, allow_private)
    headers = {"User-Agent": "TV/1\r\nX-Evil: 1", "Accept-Language": "de"}
    return asyncio.run(fetcher.fetch(url, 1.0, headers, allowed))


def _plan(at: Partner, path: str, *answers: Response) -> str:
    at.answers[path] = list(answers)
    return f"{at.url}{path}"


def test_documents_are_fetched_within_limits() -> None:
    with partner() as server:
        document = inline().encode()
        there = _plan(server, "/there", Response(200, document), Response(200, document))
        assert _fetch(there) == document
        (heard,) = server.heard
        assert heard.headers[b"user-agent"] == b"TV/1X-Evil: 1" and b"x-evil" not in heard.headers
        assert _fetch(_plan(server, "/here", Response(302, headers=(("Location", "/there"),)))) == document
        refused = {
            "/large": Response(200, b"x" * (LIMIT_BYTES + 1)),
            "/gone": Response(404),
            "/away": Response(302, headers=(("Location", "file:///etc/passwd"),)),
        }
        for path, answer in refused.items():
            with pytest.raises(Refused):
                _fetch(_plan(server, path, answer))
        loop = [Response(302, headers=(("Location", "/round"),)) for _ in range(9)]
        with pytest.raises(Refused, match="redirects"):
            _fetch(_plan(server, "/round", *loop))
        with pytest.raises(Refused, match="private"):
            _fetch(there, allow_private=False)
        elsewhere = _plan(server, "/sent", Response(302, headers=(("Location", "/there"),)))
        with pytest.raises(Refused, match="not allowed"):
            _fetch(elsewhere, allowed=lambda url: url == elsewhere)
        server.delay_s = 3.0
        with pytest.raises(TimedOut):
            _fetch(there)


def test_a_chain_over_http_is_followed_to_its_media() -> None:
    with partner() as server:
        second = _plan(server, "/b", Response(200, inline("3.0", namespace=False).encode()))
        first = _plan(server, "/a", Response(200, wrapper("a", second).encode()))
        unwrapper = Unwrapper(VastFetcher(LIMIT_BYTES, allow_private=True), Limits())
        document = asyncio.run(unwrapper.follow(first))
        assert b"a.mp4" in document and b"https://a.test/i" in document
        judging = Unwrapper(VastFetcher(LIMIT_BYTES, allow_private=False), Limits())
        with pytest.raises(ConnectorError):
            asyncio.run(judging.follow(first))


def test_verdicts_reach_the_ad_server_until_they_are_over(local_services: Endpoints) -> None:
    now_s = int(time.time())
    verdict = {"rule": "click_flood", "household_pseudonym": "v1:h", "verdict_time_ms": now_s * 1000}
    writes = PendingWrites()
    writes.add_verdict(verdict | {"user_pseudonym": "v1:flood"})
    old = PendingWrites()
    old.add_verdict(verdict | {"user_pseudonym": "v1:old", "verdict_time_ms": (now_s - 200_000) * 1000})
    with Valkey(local_services.valkey_url) as valkey:
        valkey.pipeline([*old.commands(), *writes.commands(), *old.commands()])
        assert valkey.call("ZCARD", SUSPECTS) == 2, "a rebuild writes old ones again; the reader leaves them out"
        valkey.pipeline(writes.commands())
        assert valkey.call("ZCARD", SUSPECTS) == 1

    async def read() -> Suspects:
        valkey = AsyncValkey(local_services.valkey_url)
        await valkey.start()
        suspects = Suspects(valkey, time.time)
        try:
            await suspects.refresh()
        finally:
            await valkey.close()
        return suspects

    suspects = asyncio.run(read())
    assert suspects.has("v1:flood", None, now_s) and not suspects.has("v1:flood", None, now_s + 90_000)
    assert not suspects.has("v1:old", None, now_s) and not suspects.has(None, "v1:h", now_s) and len(suspects) == 1
