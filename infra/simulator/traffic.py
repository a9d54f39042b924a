"""Open-loop traffic over the public doors: asks for ads, plays what it gets, fires the tracking URLs, keeps the ledger.

Requests leave on their schedule whether or not earlier ones were answered. Ads play `speed_up` times faster than
life. Which user asks for what, and what then happens, depends on the seed and the request's number alone.
A beacon without an answer is sent again, as a player's SDK does; every attempt is in the ledger.
One process, no task per beacon: timers and callbacks, about 60 µs of CPU for each.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import accumulate, count

import msgspec

from connectors.endpoints import Endpoints
from connectors.http_client import Answer, HttpPool, PoolLimits
from connectors.keys import CONVERSIONS, KeyRing
from infra.simulator.behaviour import LATE, Faults, Kind, Shot, click_probability, expired_shot, plan
from infra.simulator.ledger import Ledger
from infra.simulator.market import PROBE_PLACEMENT
from infra.simulator.requests import openrtb_request, read_openrtb, vast_path
from infra.simulator.vast import ShownAd, UnreadableAd, read_vast
from infra.simulator.world import User, World
from schemas.catalog import Placement
from schemas.errors import ConnectorError

#: Seconds until a beacon that got no answer is sent again, one by one.
RETRY_AFTER_S = (0.5, 1.0, 2.0, 4.0, 8.0)
#: Kinds of a beacon that is the first of its event.
_FIRST: tuple[Kind, ...] = ("normal", *LATE, "ahead")
_TICK_S = 0.25
_SETTLE_S = 60.0
_EXPIRED_WITHIN_S = 8.0  # of a token's end, the event that is late for it has been sent
_POOL = PoolLimits(connections=256, response_bytes=1 << 20, connect_s=5.0, exchange_s=10.0)


@dataclass(frozen=True, slots=True)
class TrafficSettings:
    """How much, how fast, and with which mishaps. `first_request` lets a second stretch continue a first one."""

    requests: int = 3_300
    rps: float = 55.0
    speed_up: float = 10.0
    openrtb_share: float = 0.15
    conversion_share: float = 0.2  # of clicks that people make
    first_request: int = 0
    token_life_s: float | None = None  # the ad server's, where it is short enough to be waited out
    faults: Faults = field(default_factory=Faults)


@dataclass(slots=True)
class TrafficCounts:
    """Live numbers of a run. `beacons` counts attempts that were answered, by kind."""

    asked: int = 0
    shown: int = 0
    no_ad: int = 0
    untracked: int = 0
    failed: int = 0
    unreadable: int = 0
    beacons: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    conversions: int = 0
    latencies_ms: list[float] = field(default_factory=list, repr=False)

    @property
    def fired(self) -> int:
        return sum(self.beacons.values())

    def latency_ms(self, quantile: float) -> float:
        """A quantile of the ad server's answers, 0 before the first."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] if ordered else 0.0


class Player:
    """Plays ads: puts the beacons of a plan on timers, sends them, and writes each answer into the ledger."""

    def __init__(self, ends: Endpoints, ledger: Ledger, counts: TrafficCounts) -> None:
        self._loop = asyncio.get_running_loop()
        self._ledger = ledger
        self._counts = counts
        self._collector_url = ends.collector_url
        self._dsps_url = ends.dsps_url
        self._collector = HttpPool(ends.collector_url, _POOL)
        self._dsps = HttpPool(ends.dsps_url, _POOL)
        self.outstanding = 0

    def play(self, ad: ShownAd, shots: list[Shot], pixels: list[str]) -> None:
        """Schedules the beacons, and fires other parties' impression pixels: the simulated DSPs', no others."""
        began_s, began_ms = self._loop.time(), time.time() * 1000
        for shot in shots:
            self.outstanding += 1
            client_ms = int(began_ms + shot.happened_s * 1000) + shot.clock_shift_ms
            self._loop.call_at(began_s + shot.after_s, self._fire, ad, shot, client_ms, 0)
        for url in pixels:
            if url.startswith(self._dsps_url + "/"):
                path = url[len(self._dsps_url) :]
                sent = self._dsps.send(self._dsps.request_bytes("GET", path) + b"\r\n")
                sent.add_done_callback(asyncio.Future.exception)  # theirs to lose

    def close(self) -> None:
        self._collector.close()
        self._dsps.close()

    def _fire(self, ad: ShownAd, shot: Shot, client_ms: int, attempt: int) -> None:
        path = shot.tracker.url[len(self._collector_url) :]
        path += f"{'&' if '?' in path else '?'}ts={client_ms}"
        fired_ms = time.time_ns() // 1_000_000
        sent = self._collector.send(self._collector.request_bytes("GET", path) + b"\r\n")
        sent.add_done_callback(lambda f: self._answered(f, ad, shot, client_ms, fired_ms, attempt))

    def _answered(
        self,
        sent: asyncio.Future[Answer],
        ad: ShownAd,
        shot: Shot,
        client_ms: int,
        fired_ms: int,
        attempt: int,
    ) -> None:
        error = sent.exception()
        status = 0 if error is not None else sent.result().status
        tracker = shot.tracker
        self._ledger.fired(
            ad.record_id,
            tracker.event,
            tracker.ordinal,
            shot.kind,
            client_ms,
            fired_ms,
            status,
            shot.expected_reject,
            tracker.url if shot.expected_reject else "",
        )
        if not 200 <= status < 300 and attempt < len(RETRY_AFTER_S):
            self._counts.retried += 1
            self._loop.call_later(RETRY_AFTER_S[attempt], self._fire, ad, shot, client_ms, attempt + 1)
            return
        self._counts.beacons[shot.kind] += 1
        if shot.kind in _FIRST:
            self._counts.events[tracker.event] += 1
        self.outstanding -= 1


class AdvertiserServer:
    """What advertisers' servers do after a click: they report an order at the conversion door, by the click's token."""

    def __init__(self, ends: Endpoints, ledger: Ledger, counts: TrafficCounts) -> None:
        self._loop = asyncio.get_running_loop()
        self._ledger = ledger
        self._counts = counts
        self._collector = HttpPool(ends.collector_url, _POOL)
        self._key = KeyRing.load(ends.secrets).api_key(CONVERSIONS)
        self.outstanding = 0

    def convert(self, ad: ShownAd, click: Shot, order_id: str, rng: random.Random) -> None:
        """Schedules the report of an order, a moment after the click."""
        value_micros = rng.randrange(5, 200) * 1_000_000
        order: dict[str, str | int] = {
            "order_id": order_id,
            "advertiser_id": ad.advertiser_id,
            "click_token": click.tracker.url.rpartition("/")[2],
            "value_micros": value_micros,
            "currency": ad.currency,
        }
        self.outstanding += 1
        self._loop.call_later(click.after_s + rng.uniform(0.5, 2.0), self._report, ad, order, 0)

    def close(self) -> None:
        self._collector.close()

    def _report(self, ad: ShownAd, order: dict[str, str | int], attempt: int) -> None:
        body = msgspec.json.encode([order])
        head = f"Content-Type: application/json\r\nX-Api-Key: {self._key}\r\nContent-Length: {len(body)}\r\n\r\n"
        sent = self._collector.send(self._collector.request_bytes("POST", "/v1/conversions", head) + body)
        sent.add_done_callback(lambda f: self._answered(f, ad, order, attempt))

    def _answered(self, sent: asyncio.Future[Answer], ad: ShownAd, order: dict[str, str | int], attempt: int) -> None:
        status = 0 if sent.exception() is not None else sent.result().status
        accepted = 200 <= status < 300
        if not accepted and attempt < len(RETRY_AFTER_S):
            self._counts.retried += 1
            self._loop.call_later(RETRY_AFTER_S[attempt], self._report, ad, order, attempt + 1)
            return
        self._ledger.converted(str(order["order_id"]), ad.record_id, int(order["value_micros"]), status)
        self._counts.conversions += accepted
        self.outstanding -= 1


class Traffic:
    """One stretch of traffic. `run` ends by itself when everything was answered or given up."""

    def __init__(self, world: World, ends: Endpoints, ledger: Ledger, settings: TrafficSettings) -> None:
        self.counts = TrafficCounts()
        self._world = world
        self._settings = settings
        self._ledger = ledger
        self._loop = asyncio.get_running_loop()
        self._adserver = HttpPool(ends.adserver_url, _POOL)
        self._player = Player(ends, ledger, self.counts)
        self._advertiser = AdvertiserServer(ends, ledger, self.counts)
        self._token_prefix = f"{ends.collector_url}/t/"
        self._placements = [p for p in world.catalog.placements if p.id != PROBE_PLACEMENT]
        self._visits = list(accumulate(world.visit_weights(time.gmtime().tm_hour)))
        self._seen: Counter[tuple[str, str]] = Counter()
        self._waiting = 0

    async def run(
        self,
        on_tick: Callable[[TrafficCounts], None] = lambda counts: None,
        until: Callable[[], bool] = lambda: True,
    ) -> TrafficCounts:
        """Sends everything and waits for the end of it; `on_tick` is called four times a second.

        When all requests are sent and `until` is not true yet, more are sent at the same rate until it is.
        """
        ticker = self._loop.create_task(self._tick(on_tick))
        try:
            began_s = self._loop.time()
            arrivals = random.Random(f"{self._world.seed}:{self._settings.first_request}:arrivals")
            due_s = began_s
            for i in count():
                if i >= self._settings.requests and until():
                    break
                due_s += arrivals.expovariate(self._settings.rps)
                if (wait_s := due_s - self._loop.time()) > 0:
                    await asyncio.sleep(wait_s)
                self._ask(self._settings.first_request + i)
            give_up_s = self._loop.time() + _SETTLE_S
            while self._outstanding() and self._loop.time() < give_up_s:
                await asyncio.sleep(0.05)
        finally:
            ticker.cancel()
            self._adserver.close()
            self._player.close()
            self._advertiser.close()
            self._ledger.flush()
        on_tick(self.counts)
        return self.counts

    async def _tick(self, on_tick: Callable[[TrafficCounts], None]) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._ledger.flush()
            on_tick(self.counts)

    def _outstanding(self) -> int:
        return self._waiting + self._player.outstanding + self._advertiser.outstanding

    def _ask(self, number: int) -> None:
        rng = random.Random(f"{self._world.seed}:{number}")
        (user,) = rng.choices(self._world.users, cum_weights=self._visits)
        placement = rng.choice(self._placements)
        by_openrtb = placement.format == "banner" or rng.random() < self._settings.openrtb_share
        if by_openrtb:
            body = openrtb_request(user, placement, f"req-{self._world.seed}-{number}")
            head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            payload = self._adserver.request_bytes("POST", "/openrtb2/auction", head) + body
        else:
            path = vast_path(user, placement, f"s-{self._world.seed}-{number}")
            payload = self._adserver.request_bytes("GET", path) + b"\r\n"
        self.counts.asked += 1
        self._waiting += 1
        asked_ms = time.time_ns() // 1_000_000
        self._adserver.send(payload).add_done_callback(
            lambda f: self._decided(f, number, user, placement, by_openrtb, asked_ms, rng)
        )

    def _decided(
        self,
        sent: asyncio.Future[Answer],
        number: int,
        user: User,
        placement: Placement,
        by_openrtb: bool,
        asked_ms: int,
        rng: random.Random,
    ) -> None:
        self._waiting -= 1
        try:
            answer = sent.result()
        except ConnectorError:
            self.counts.failed += 1
            return
        self.counts.latencies_ms.append(answer.latency_s * 1000)
        if answer.status not in (200, 204):
            self.counts.failed += 1
            return
        try:
            ad = None
            if answer.status == 200:
                ad = read_openrtb(answer.body) if by_openrtb else read_vast(answer.body)
        except UnreadableAd:
            self.counts.unreadable += 1
            return
        if ad is None:
            self.counts.no_ad += 1
            return
        if not ad.record_id:  # a degraded answer: a house ad that could not be registered, and has no trackers
            self.counts.untracked += 1
            return
        self.counts.shown += 1
        self._ledger.decided(
            ad,
            request=number,
            door="openrtb" if by_openrtb else "vast",
            user_id=user.id,
            placement_id=placement.id,
            asked_ms=asked_ms,
            latency_ms=answer.latency_s * 1000,
            opted_out=user.opted_out,
        )
        seen = (user.id, ad.campaign_id)
        p_click = click_probability(self._world, user, ad, placement.content_category, self._seen[seen])
        ours = tuple(t for t in ad.trackers if t.url.startswith(self._token_prefix))
        theirs = [t.url for t in ad.trackers if t.event == "impression" and t not in ours]
        ad = replace(ad, trackers=ours)
        shots = plan(ad, user, p_click, self._settings.speed_up, self._settings.faults, rng)
        if (expired := self._expired(ad, shots, number, rng)) is not None:
            shots.append(expired)
        shown = any(s.tracker.event == "impression" for s in shots)
        self._seen[seen] += shown
        self._player.play(ad, shots, theirs if shown else [])
        click = next((s for s in shots if s.tracker.event == "click" and s.kind in _FIRST), None)
        if click is not None and not user.bot and rng.random() < self._settings.conversion_share:
            self._advertiser.convert(ad, click, f"order-{self._ledger.name}-{number}", rng)

    def _expired(self, ad: ShownAd, shots: list[Shot], number: int, rng: random.Random) -> Shot | None:
        """An event to be sent after its token's life, for a few of the ads that are shown early enough for it."""
        settings = self._settings
        left_s = (settings.requests - (number - settings.first_request)) / settings.rps
        if settings.token_life_s is None or not shots or left_s < settings.token_life_s + _EXPIRED_WITHIN_S:
            return None
        return expired_shot(ad, shots, settings.token_life_s, rng) if rng.random() < settings.faults.expired else None
