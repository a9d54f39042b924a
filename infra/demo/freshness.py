"""How long an event takes to be seen: by the ad server in Valkey, and by SQL in Druid.

A probe is one ad on a placement that nobody else visits. From the moment its impression is fired, the probe user's
counters are polled in Valkey as the ad server reads them, and the placement's impressions are polled in Druid.
What is measured includes the polling: at most 10 ms in Valkey, 250 ms in Druid.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from connectors.druid import DruidClient
from connectors.endpoints import Endpoints
from connectors.http_client import HttpPool
from connectors.keys import KeyRing
from connectors.valkey import AsyncValkey
from infra.simulator.ledger import Ledger
from infra.simulator.market import PROBE_PLACEMENT
from infra.simulator.requests import vast_path
from infra.simulator.vast import ShownAd, UnreadableAd, read_vast
from infra.simulator.world import User, World
from schemas import campaign_metrics
from schemas.counters import COUNTER_BY_NAME
from schemas.errors import ConnectorError
from schemas.redis_layout import sum_counter, user_key

INTERVAL_S = 1.0
_VALKEY_POLL_S = 0.01
_DRUID_POLL_S = 0.25
_GIVE_UP_S = 30.0
_USERS = 200
_FIRST_REQUEST = 10_000_000  # far from the numbers of the traffic beside it
_LAST_BUCKET_S = 2**32 - 1


@dataclass(slots=True)
class Freshness:
    """Latencies in ms, one per probe that was seen; `missed` were not within half a minute."""

    valkey_ms: list[float] = field(default_factory=list)
    druid_ms: list[float] = field(default_factory=list)
    missed: int = 0


def together(parts: Iterable[Freshness]) -> Freshness:
    """The probes of several stretches as one."""
    found = Freshness()
    for part in parts:
        found.valkey_ms += part.valkey_ms
        found.druid_ms += part.druid_ms
        found.missed += part.missed
    return found


def quantile(values: list[float], share: float) -> float | None:
    """The value that `share` of the values do not exceed; None of nothing.

    Example:
    >>> quantile([4.0, 1.0, 3.0, 2.0], 0.5), quantile([4.0, 1.0, 3.0, 2.0], 0.99)
    (2.0, 4.0)
    """
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]


class FreshnessProbe:
    """Fires probes beside other traffic until it is told to stop. Everything it fires is in the ledger."""

    def __init__(self, world: World, ends: Endpoints, ledger: Ledger) -> None:
        self.found = Freshness()
        self._ends = ends
        self._ledger = ledger
        self._template = world.users[0]
        self._placement = next(p for p in world.catalog.placements if p.id == PROBE_PLACEMENT)
        self._ring = KeyRing.load(ends.secrets)
        self._adserver = HttpPool(ends.adserver_url)
        self._collector = HttpPool(ends.collector_url)
        self._valkey = AsyncValkey(ends.valkey_url)
        self._fired_s: list[float] = []
        self._fired_before = 0

    async def run(self, stop: asyncio.Event) -> Freshness:
        """Probes once in `INTERVAL_S` until `stop` is set, then waits for the last ones to be seen."""
        await self._valkey.start()
        self._fired_before = await self._impressions_in_druid() or 0
        druid_watch = asyncio.create_task(self._watch_druid(stop))
        probes = []
        number = 0
        while not stop.is_set():
            probes.append(asyncio.create_task(self._probe(number)))
            number += 1
            await asyncio.sleep(INTERVAL_S)
        await asyncio.gather(*probes)
        await druid_watch
        self._adserver.close()
        self._collector.close()
        await self._valkey.close()
        return self.found

    async def _probe(self, number: int) -> None:
        user = replace(self._template, id=f"probe-{time.time_ns()}-{number % _USERS}", opted_out=False, bot=False)
        ad = await self._ask(user, _FIRST_REQUEST + number)
        if ad is None:
            return
        tracker = next(t for t in ad.of("impression") if t.url.startswith(self._ends.collector_url))
        fired_ms = time.time_ns() // 1_000_000
        fired_s = time.monotonic()
        path = f"{tracker.url[len(self._ends.collector_url) :]}?ts={fired_ms}"
        try:
            answer = await self._collector.fetch("GET", path, 5.0)
            status = answer.status
        except ConnectorError:
            status = 0
        self._ledger.fired(ad.record_id, "impression", 0, "normal", fired_ms, fired_ms, status, "", tracker.url)
        if not 200 <= status < 300:
            self.found.missed += 1
            return
        self._fired_s.append(fired_s)
        await self._watch_valkey(user, ad, fired_s)

    async def _ask(self, user: User, request: int) -> ShownAd | None:
        asked_ms = time.time_ns() // 1_000_000
        try:
            answer = await self._adserver.fetch("GET", vast_path(user, self._placement, f"probe-{request}"), 2.0)
            ad = read_vast(answer.body) if answer.status == 200 else None
        except (ConnectorError, UnreadableAd):
            return None
        if ad is not None and not ad.record_id:
            return None  # a degraded answer without trackers: nothing to time
        if ad is not None:
            self._ledger.decided(
                ad,
                request=request,
                door="vast",
                user_id=user.id,
                placement_id=self._placement.id,
                asked_ms=asked_ms,
                latency_ms=answer.latency_s * 1000,
                opted_out=False,
            )
        return ad

    async def _watch_valkey(self, user: User, ad: ShownAd, fired_s: float) -> None:
        key = user_key(self._ring.pseudonym(user.id))
        counter = COUNTER_BY_NAME["user_campaign_impressions_hour"]
        while time.monotonic() - fired_s < _GIVE_UP_S:
            try:
                (flat,) = await self._valkey.pipeline([("HGETALL", key)], 1.0)
            except ConnectorError:
                flat = []
            values = dict(zip(flat[::2], flat[1::2], strict=True)) if isinstance(flat, list) else {}
            if sum_counter(values, counter, ad.campaign_id, 0, _LAST_BUCKET_S):
                self.found.valkey_ms.append((time.monotonic() - fired_s) * 1000)
                return
            await asyncio.sleep(_VALKEY_POLL_S)
        self.found.missed += 1

    async def _watch_druid(self, stop: asyncio.Event) -> None:
        """Impressions of the placement only grow: the n-th to be visible is the n-th that was fired."""
        seen = 0
        give_up_s = float("inf")
        while seen < len(self._fired_s) or not stop.is_set():
            await asyncio.sleep(_DRUID_POLL_S)
            if stop.is_set():
                give_up_s = min(give_up_s, time.monotonic() + _GIVE_UP_S)
                if time.monotonic() > give_up_s:
                    self.found.missed += len(self._fired_s) - seen
                    return
            total = await self._impressions_in_druid()
            if total is None:
                continue
            now_s = time.monotonic()
            while seen < min(total - self._fired_before, len(self._fired_s)):
                self.found.druid_ms.append((now_s - self._fired_s[seen]) * 1000)
                seen += 1

    async def _impressions_in_druid(self) -> int | None:
        def ask() -> int | None:
            query = f"SELECT SUM(impressions) AS n FROM {campaign_metrics.DATASOURCE} WHERE placement_id = ?"
            try:
                with DruidClient.of(self._ends, timeout_s=5.0) as druid:
                    rows = druid.sql(query, (PROBE_PLACEMENT,))
            except ConnectorError:
                return None
            return int(rows[0]["n"] or 0) if rows else 0

        return await asyncio.to_thread(ask)
