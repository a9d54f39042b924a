"""The ad server's doors: what comes in over HTTP, and which answer leaves.

| door | answers |
| --- | --- |
| `POST /openrtb2/auction` | 200 bid response; 204 with a reason if no imp has an ad; 400 with path and reason |
| `GET /vast` | 200 VAST 4.2, without an Ad and with `X-Headwater-Reason` when there is none; 400 without a placement |
| `GET /status` | 200 when decisions can be made, else 503; what is in service |
| `GET /metrics` | Prometheus |

`X-Headwater-Reason` holds numbers of `schemas.decisions`, `X-Openrtb-Nbr` the specification's reason for no bid. A
player or page never gets a 5xx: what nobody foresaw is logged, and answered with the house ad, or with none. Reasons
are counted (`adserver_degraded_total`) also where no auction was held.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, Counter, generate_latest

from connectors.http_messages import JSON, Request, Response, refusal
from schemas.decisions import Degraded
from serving.adserver import metrics, podding
from serving.adserver.decider import Decider
from serving.adserver.decision import Decision
from serving.adserver.doors import ads_manager
from serving.adserver.doors.answer import (
    TECHNICAL_ERROR,
    UNKNOWN_ERROR,
    answer_currency,
    bid_response,
    debug,
    no_bid,
    no_bid_reason,
    wants_reason,
)
from serving.adserver.doors.player_tag import TAG_RULES, TagRules, asked_by
from serving.adserver.inventory import Inventory
from serving.adserver.markup import vast
from serving.adserver.openrtb.messages import BadRequest, BidRequest, decode_request, encode
from serving.adserver.overload import Overload

logger = logging.getLogger(__name__)

REASON_HEADER = "X-Headwater-Reason"
_XML = "application/xml; charset=utf-8"
_OPENRTB_VERSION = ("x-openrtb-version", "2.6")
_NO_STORE = ("Cache-Control", "no-store")
_ANY_ORIGIN = ("Access-Control-Allow-Origin", "*")  # players in browsers fetch tags from pages of any origin
_NBR_HEADER = "X-Openrtb-Nbr"
_REQUEST_ID_BYTES = 16
_GZIP = 31  # zlib's window bits for gzip with its header
_INFLATED_BYTES = 1_048_576
#: Refused requests are one line in the log for so long, with their count.
_SHED_LINE_S = 10.0


class Doors:
    """Routes requests. `status` gives (ready, what is in service)."""

    def __init__(
        self,
        decider: Decider,
        inventory: Callable[[], Inventory],
        status: Callable[[], tuple[bool, dict[str, Any]]],
        overload: Overload,
        all_metrics: Callable[[], Awaitable[str]] | None = None,
        outside: Callable[[Request], Awaitable[Response]] | None = None,
        tag_rules: TagRules = TAG_RULES,
    ) -> None:
        """`all_metrics` gives /metrics of every process behind the port; without it this one is alone."""
        self._decider = decider
        self._inventory = inventory
        self._status = status
        self._overload = overload
        self._all_metrics = all_metrics
        self._outside = outside
        self._tag_rules = tag_rules
        self._shed_count, self._shed_told_s = 0, float("-inf")

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        """The answer to one HTTP request."""
        # a loop that is late has found the request late too: it may have waited that long, and its client with it
        arrived_s = asyncio.get_running_loop().time() - self._overload.lag_s
        if request.path == "/vast":
            if request.method == "GET":
                if why := self._overload.refuses():
                    return self._shed("vast", why)
                return self._counted("vast", self._vast(request, arrived_s))
        elif request.path == "/openrtb2/auction":
            if request.method == "POST":
                if why := self._overload.refuses():
                    return self._shed("auction", why)
                return self._counted("auction", self._auction(request, arrived_s))
        elif request.path == ads_manager.PATH and self._outside is not None:
            if request.method in ("GET", "POST"):
                if why := self._overload.refuses():
                    return self._shed("ads_manager", why)
                return self._counted("ads_manager", self._adopted(self._outside(request)))
        elif request.path == "/status":
            ready, details = self._status()
            return Response(200 if ready else 503, msgspec.json.encode(details))
        elif request.path == "/metrics":
            if self._all_metrics is not None:
                return self._merged(self._all_metrics())
            return Response(200, generate_latest(), CONTENT_TYPE_LATEST)
        else:
            return refusal(404, "no such door")
        return refusal(405, "this door does not take that method")

    async def _counted(self, door: str, answer: Awaitable[Response]) -> Response:
        self._overload.in_flight += 1
        try:
            response = await answer
        finally:
            self._overload.in_flight -= 1
        _requests(door, response.status).inc()
        return response

    async def _merged(self, text: Awaitable[str]) -> Response:
        return Response(200, (await text).encode(), CONTENT_TYPE_LATEST)

    def _shed(self, door: str, why: str) -> Response:
        """No ad, at once: the request is not even read."""
        metrics.SHED.labels(why).inc()
        metrics.REQUESTS.labels(door, "shed").inc()
        _count(Degraded.OVERLOADED)
        self._shed_count += 1
        if (now_s := time.monotonic()) - self._shed_told_s >= _SHED_LINE_S:
            details = {"reason": int(Degraded.OVERLOADED), "why": why, "count": self._shed_count}
            logger.warning("requests refused", extra=details)
            self._shed_count, self._shed_told_s = 0, now_s
        if door != "auction":
            return _vast_answer(vast.EMPTY, _reasons([Degraded.OVERLOADED]))
        reasons = [Degraded.OVERLOADED]
        return Response(204, headers=(_OPENRTB_VERSION, _reasons(reasons), (_NBR_HEADER, str(no_bid_reason(reasons)))))

    async def _auction(self, request: Request, arrived_s: float) -> Response:
        try:
            body = request.body
            if request.header(b"content-encoding") == "gzip":
                body = _inflated(body)
            asked = decode_request(body)
        except BadRequest as e:
            return refusal(400, e.reason, path=e.path)
        rates = self._inventory().rates
        currency = answer_currency(asked, rates)
        try:
            if currency is None:
                self._decider.refuse(asked, Degraded.NO_CURRENCY, arrived_s, body)
                return _no_bid(asked, [Degraded.NO_CURRENCY], UNKNOWN_ERROR)
            decisions = await self._decided(request, asked, arrived_s, body)
            made = bid_response(asked, decisions, rates, currency)
        except Exception:
            logger.exception("fallback failed")
            return _no_bid(asked, [_count(Degraded.FAILED)], TECHNICAL_ERROR)
        reasons = {reason for d in decisions for reason in d.reasons}
        if asked.test:
            made = made or no_bid(asked, no_bid_reason(reasons))
            latency_ms = (asyncio.get_running_loop().time() - arrived_s) * 1000
            made.ext = {"headwater": {"debug": debug(decisions, latency_ms)}}
        if made is None:
            return _no_bid(asked, reasons, no_bid_reason(reasons))
        return Response(200, encode(made), JSON, (_OPENRTB_VERSION, *([_reasons(reasons)] if reasons else ())))

    async def _decided(
        self, request: Request, asked: BidRequest, arrived_s: float, body: bytes = b""
    ) -> list[Decision]:
        """The request's decisions; those of its fallback when the auction fails."""
        try:
            return await self._decider.decide(asked, arrived_s, body, request.connected)
        except Exception:
            logger.exception("auction failed")
        return self._decider.fall_back(asked, Degraded.FAILED, arrived_s, body)

    async def _adopted(self, answer: Awaitable[Response]) -> Response:
        try:
            return await answer
        except Exception:
            logger.exception("ads manager failed")
            return _vast_answer(vast.EMPTY, _reasons([_count(Degraded.FAILED)]))

    async def _vast(self, request: Request, arrived_s: float) -> Response:
        asked = asked_by(request, self._inventory(), self._tag_rules)
        if isinstance(asked, Response):
            return asked
        try:
            decisions = await self._decided(request, asked, arrived_s)
        except Exception:
            logger.exception("fallback failed")
            return _vast_answer(vast.EMPTY, _reasons([_count(Degraded.FAILED)]))
        reasons = {reason for d in decisions for reason in d.reasons}
        shown = [d.markup for d in decisions if d.winner is not None]
        is_pod = podding.is_dynamic(asked.imp[0])
        return _vast_answer(vast.answer(shown, asked.imp[0], is_pod), *([_reasons(reasons)] if reasons else ()))


@cache
def _requests(door: str, status: int) -> Counter:
    """One of the few counters of requests, which `labels` would look up under a lock each time."""
    return metrics.REQUESTS.labels(door, str(status))


def _inflated(body: bytes) -> bytes:
    """A compressed body (OpenRTB 2.6 §2.3). Errors: BadRequest when it is none, or longer than a body may be."""
    stream = zlib.decompressobj(_GZIP)
    try:
        found = stream.decompress(body, _INFLATED_BYTES)
    except zlib.error as e:
        raise BadRequest("$", f"not gzip: {e}") from e
    if not stream.eof:
        raise BadRequest("$", f"cut off, or longer than {_INFLATED_BYTES} bytes")
    return found


def _vast_answer(markup: str, *headers: tuple[str, str]) -> Response:
    return Response(200, markup.encode(), _XML, (_NO_STORE, _ANY_ORIGIN, *headers))


def _count(reason: Degraded) -> Degraded:
    """Counts a reason that no decision was logged with."""
    metrics.DEGRADED.labels(reason.name.lower()).inc()
    return reason


def _reasons(reasons: Iterable[Degraded]) -> tuple[str, str]:
    return REASON_HEADER, ",".join(str(int(r)) for r in sorted(reasons))


def _no_bid(asked: BidRequest, reasons: Iterable[Degraded], nbr: int) -> Response:
    """§4.2.1: nothing to buy is 204; a body says the reason to whoever asked for it."""
    headers = (_reasons(reasons), _OPENRTB_VERSION, (_NBR_HEADER, str(nbr)))
    if wants_reason(asked):
        return Response(200, encode(no_bid(asked, nbr)), JSON, headers)
    return Response(204, headers=headers)
