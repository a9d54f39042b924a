"""The DSPs that may be called, and which of them a request is sent to.

A request goes to every DSP that buys in its country, that its rate limit and breaker let through, and that is worth
asking: DSPs of tier 1 and those that a deal of the request names always are, others for a share of the requests that
never falls to nothing, so that each can win its place back.
Source: OpenRTB 2.6 §2 (transport: POST, JSON, `x-openrtb-version`, 204 for no bid).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from connectors.http_client import HttpPool, PoolLimits
from schemas.catalog import Bidder
from schemas.errors import ConfigError
from serving.adserver.dsps.desk import Desk
from serving.adserver.dsps.fanout import Fanout
from serving.adserver.dsps.latency import AdaptiveTimeout
from serving.adserver.settings import Settings

#: Share of requests that a DSP is asked for, by tier; the last is also the least that anyone gets.
TIER_SHARES: Mapping[int, float] = {1: 1.0, 2: 0.5, 3: 0.05}


@dataclass(frozen=True, slots=True)
class CallRules:
    """How DSPs are called. `workers` share a DSP's rate limit."""

    limits: PoolLimits
    timeout_floor_s: float = 0.02
    timeout_quantile: float = 0.97
    timeout_headroom: float = 1.3
    probe_share: float = 0.02  # of calls that wait for a DSP's own limit, whatever was learnt
    workers: int = 1


def call_rules(settings: Settings, workers: int = 1) -> CallRules:
    """How this server calls DSPs."""
    return CallRules(
        PoolLimits(connections=settings.dsp_connections, response_bytes=settings.dsp_response_bytes),
        timeout_floor_s=settings.dsp_timeout_floor_ms / 1000,
        timeout_quantile=settings.dsp_timeout_quantile,
        timeout_headroom=settings.dsp_timeout_headroom,
        probe_share=settings.dsp_probe_share,
        workers=workers,
    )


class Bidders:
    """Desks of the DSPs of a bidders file. `replace` swaps the file's rows without a restart."""

    def __init__(self, rules: CallRules, draw: Callable[[], float] = random.random) -> None:
        self._rules = rules
        self._draw = draw
        self.desks: dict[str, Desk] = {}
        self._by_country: dict[str | None, tuple[Desk, ...]] = {}

    def __len__(self) -> int:
        return len(self.desks)

    def replace(self, bidders: Sequence[Bidder]) -> None:
        """Calls these from now on; desks of unchanged rows are kept. Errors: ConfigError changes nothing."""
        desks: dict[str, Desk] = {}
        for bidder in bidders:
            known = self.desks.get(bidder.id)
            desks[bidder.id] = known if known is not None and known.bidder == bidder else self._desk(bidder, known)
        if len(desks) != len(bidders):
            raise ConfigError("bidders: an id is given twice")
        kept = {id(desk.pool) for desk in desks.values()}
        for desk in self.desks.values():
            if id(desk.pool) not in kept:
                desk.pool.close()
        self.desks = desks
        self._by_country = {}

    def call(
        self,
        body_of: Callable[[Bidder], bytes | None],
        country: str | None,
        deadline_s: float,
        must_ask: Callable[[Bidder], bool] | None = None,
    ) -> Fanout:
        """Sends every DSP its request. Never blocks. `deadline_s` is monotonic time.

        `body_of` gives a DSP's request, or None when there is none for it, and the same object to those that get the
        same. `must_ask` says whether a DSP is asked whatever its tier.
        """
        now_s = time.monotonic()
        if deadline_s <= now_s:
            return Fanout()
        calls: list[Desk] = []
        due_s: list[float] = []
        payloads: list[bytes] = []
        lengths: dict[int, bytes] = {}
        draw, probe_share = self._draw, self._rules.probe_share
        for desk in self._buying_in(country):
            bidder = desk.bidder
            if desk.tier > 1 and draw() >= TIER_SHARES[desk.tier] and not (must_ask is not None and must_ask(bidder)):
                desk.tally.skipped_tier += 1
                continue
            body = body_of(bidder)
            if body is None or not desk.may_ask(now_s):
                continue
            tail = lengths.get(id(body))
            if tail is None:
                tail = lengths[id(body)] = b"%d\r\n\r\n%b" % (len(body), body)
            timeout_s = desk.timeout.longest_s if draw() < probe_share else desk.timeout.timeout_s
            calls.append(desk)
            due_s.append(min(deadline_s, now_s + timeout_s))
            payloads.append(desk.head + tail)
        fanout = Fanout(calls, due_s)
        for tag, desk in enumerate(calls):
            desk.tally.calls += 1
            desk.tally.sent_bytes += len(payloads[tag])
            desk.pool.start(payloads[tag], fanout, tag)
        return fanout

    def close(self) -> None:
        for desk in self.desks.values():
            desk.pool.close()

    def _buying_in(self, country: str | None) -> tuple[Desk, ...]:
        found = self._by_country.get(country)
        if found is None:
            if len(self._by_country) > 1000:  # countries are checked, but nothing grows with what others send
                self._by_country.clear()
            found = tuple(d for d in self.desks.values() if not d.bidder.regions or country in d.bidder.regions)
            self._by_country[country] = found
        return found

    def _desk(self, bidder: Bidder, known: Desk | None) -> Desk:
        rules = self._rules
        same = known is not None and known.bidder.endpoint == bidder.endpoint
        pool = known.pool if known is not None and same else HttpPool(bidder.endpoint, rules.limits)
        timeout = AdaptiveTimeout(
            bidder.timeout_ms / 1000, rules.timeout_floor_s, rules.timeout_quantile, rules.timeout_headroom
        )
        return Desk(bidder, pool, timeout, rules.workers)
