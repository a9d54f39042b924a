"""The DSP fan-out: one request serialised once, sent to every bidder in parallel, collected until the deadline.

Each bidder is alone: one that errs, hangs or floods loses its own turn and nobody else's. Connections are kept;
an answer after the deadline is read off-path and counted, never used.
Source: OpenRTB 2.6 §2 (transport: POST, JSON, `x-openrtb-version`, 204 for no bid).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from connectors.http_client import Answer, HttpPool, PoolLimits
from schemas.catalog import Bidder
from schemas.decisions import Outcome
from schemas.errors import ConfigError, TimedOut
from serving.adserver import metrics
from serving.adserver.openrtb.messages import BidResponse, decode_response

logger = logging.getLogger(__name__)

_HELD_UP_S = 0.005
_LAST_LOOK_S = 0.001

_HEADERS = "Content-Type: application/json\r\nAccept: application/json\r\nx-openrtb-version: 2.6\r\n"


@dataclass(slots=True)
class Turn:
    """What came of calling one DSP for one request. `outcome` is None when it answered with bids to look at."""

    bidder: Bidder
    outcome: Outcome | None
    response: BidResponse | None = None


@dataclass(slots=True)
class Fanout:
    """Calls in flight. `due_s` is the loop time at which each bidder's answer is no longer waited for."""

    calls: list[tuple[Bidder, asyncio.Future[Answer], float]] = field(default_factory=list)

    async def collect(self) -> list[Turn]:
        """Every bidder's turn, once all have answered or their time is over."""
        loop = asyncio.get_running_loop()
        waiting = [(future, due_s) for _, future, due_s in self.calls if not future.done()]
        if waiting:
            latest_s = max(due_s for _, due_s in waiting)
            futures = [future for future, _ in waiting]
            await asyncio.wait(futures, timeout=max(0.0, latest_s - loop.time()))
            if loop.time() - latest_s > _HELD_UP_S and not all(f.done() for f in futures):
                # our own loop was held up: timers ran before the sockets were read, so look at those once more
                await asyncio.wait(futures, timeout=_LAST_LOOK_S)
        turns = [_turn(bidder, future, due_s, loop.time()) for bidder, future, due_s in self.calls]
        for turn in turns:
            metrics.DSP_CALLS.labels(turn.bidder.id, "bid" if turn.outcome is None else turn.outcome.name.lower()).inc()
        return turns


def _turn(bidder: Bidder, future: asyncio.Future[Answer], due_s: float, now_s: float) -> Turn:
    if not future.done():
        future.add_done_callback(_read_late)
        return Turn(bidder, Outcome.EXPIRED)
    error = future.exception()
    if error is not None:
        return Turn(bidder, Outcome.EXPIRED if isinstance(error, TimedOut) else Outcome.DSP_ERROR)
    answer = future.result()
    if answer.latency_s * 1000 > bidder.timeout_ms:
        return Turn(bidder, Outcome.EXPIRED)
    if answer.status == 204:
        return Turn(bidder, Outcome.NO_BID)
    if answer.status != 200:
        return Turn(bidder, Outcome.DSP_ERROR)
    try:
        response = decode_response(answer.body)
    except ValueError:  # msgspec's errors and undecodable text are such
        return Turn(bidder, Outcome.INVALID_RESPONSE)
    return Turn(bidder, None if any(s.bid for s in response.seatbid) else Outcome.NO_BID, response)


def _read_late(future: asyncio.Future[Answer]) -> None:
    """Takes the exception of a call that nobody waits for, so that it is not reported as forgotten."""
    if not future.cancelled():
        future.exception()


class Bidders:
    """Pools of connections to the DSPs of a bidders file. `replace` swaps the file's rows without a restart."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._pools: dict[str, tuple[Bidder, HttpPool, bytes]] = {}

    def replace(self, bidders: Sequence[Bidder]) -> None:
        """Calls these from now on; pools of unchanged endpoints are kept. Errors: ConfigError changes nothing."""
        pools: dict[str, tuple[Bidder, HttpPool, bytes]] = {}
        for bidder in bidders:
            known = self._pools.get(bidder.id)
            pool = known[1] if known and known[0].endpoint == bidder.endpoint else self._pool(bidder)
            parts = urlsplit(bidder.endpoint)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            pools[bidder.id] = (bidder, pool, pool.request_bytes("POST", path, _HEADERS))
        if len(pools) != len(bidders):
            raise ConfigError("bidders: an id is given twice")
        kept = {id(pool) for _, pool, _ in pools.values()}
        for _, pool, _ in self._pools.values():
            if id(pool) not in kept:
                pool.close()
        self._pools = pools

    def __len__(self) -> int:
        return len(self._pools)

    def call(self, body_of: Callable[[Bidder], bytes | None], country: str | None, deadline_s: float) -> Fanout:
        """Sends every DSP that buys in this country its request, if there is one. Never blocks. `deadline_s` is loop
        time.
        """
        now_s = asyncio.get_running_loop().time()
        fanout = Fanout()
        if deadline_s <= now_s:
            return fanout
        for bidder, pool, head in self._pools.values():
            if not bidder.regions or country in bidder.regions:
                body = body_of(bidder)
                if body is None:
                    continue
                tail = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
                due_s = min(deadline_s, now_s + bidder.timeout_ms / 1000)
                fanout.calls.append((bidder, pool.send(head + tail), due_s))
        return fanout

    def close(self) -> None:
        for _, pool, _ in self._pools.values():
            pool.close()

    def _pool(self, bidder: Bidder) -> HttpPool:
        latency = metrics.DSP_LATENCY.labels(bidder.id)
        return HttpPool(bidder.endpoint, self._limits, latency.observe)
