"""The ad server's doors: what comes in over HTTP, and which answer leaves.

| door | answers |
| --- | --- |
| `POST /openrtb2/auction` | 200 bid response; 204 with a reason if no imp has an ad; 400 with path and reason |
| `GET /vast` | 200 VAST 4.2, without an Ad and with `X-Headwater-Reason` when there is none; 400 without a placement |
| `GET /status` | 200 when decisions can be made, else 503; what is in service |
| `GET /metrics` | Prometheus |

`X-Headwater-Reason` holds numbers of `schemas.decisions`. A player or page never gets a 5xx: what nobody foresaw is
logged, and answered as "no ad".
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from connectors.http_messages import JSON, TEXT, Request, Response
from connectors.http_server import refusal
from schemas.decisions import Degraded, Outcome
from schemas.ids import encode_id
from serving.adserver import metrics
from serving.adserver.decider import Decider
from serving.adserver.decision import Costs, Decision, costs
from serving.adserver.doors.player_tag import to_request
from serving.adserver.inventory import Inventory
from serving.adserver.markup import vast
from serving.adserver.openrtb.messages import BadRequest, Bid, BidResponse, SeatBid, decode_request, encode

logger = logging.getLogger(__name__)

REASON_HEADER = "X-Headwater-Reason"
_XML = "application/xml; charset=utf-8"
_OPENRTB_VERSION = ("x-openrtb-version", "2.6")
_NO_STORE = ("Cache-Control", "no-store")
_ANY_ORIGIN = ("Access-Control-Allow-Origin", "*")  # players in browsers fetch tags from pages of any origin
_OWN_SEAT = "headwater"
_MTYPES = {"banner": 1, "video": 2, "audio": 3, "native": 4}
_REQUEST_ID_BYTES = 16


class Doors:
    """Routes requests. `status` gives (ready, what is in service)."""

    def __init__(
        self,
        decider: Decider,
        inventory: Callable[[], Inventory],
        status: Callable[[], tuple[bool, dict[str, Any]]],
    ) -> None:
        self._decider = decider
        self._inventory = inventory
        self._status = status

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        """The answer to one HTTP request."""
        arrived_s = asyncio.get_running_loop().time()
        if request.path == "/vast":
            if request.method == "GET":
                return self._counted("vast", self._vast(request, arrived_s))
        elif request.path == "/openrtb2/auction":
            if request.method == "POST":
                return self._counted("auction", self._auction(request, arrived_s))
        elif request.path == "/status":
            ready, details = self._status()
            return Response(200 if ready else 503, msgspec.json.encode(details))
        elif request.path == "/metrics":
            return Response(200, generate_latest(), CONTENT_TYPE_LATEST)
        else:
            return refusal(404, "no such door")
        return refusal(405, "this door does not take that method")

    async def _counted(self, door: str, answer: Awaitable[Response]) -> Response:
        response = await answer
        metrics.REQUESTS.labels(door, str(response.status)).inc()
        return response

    async def _auction(self, request: Request, arrived_s: float) -> Response:
        try:
            asked = decode_request(request.body)
        except BadRequest as e:
            return refusal(400, e.reason, path=e.path)
        currency = self._inventory().currency
        if asked.cur and currency not in asked.cur:
            return Response(204, headers=(_reasons([Degraded.NO_CANDIDATE]),))
        try:
            decisions = await self._decider.decide(asked, arrived_s, request.body)
        except Exception:
            logger.exception("auction failed")
            return Response(204, headers=((REASON_HEADER, str(int(Outcome.INTERNAL_ERROR))),))
        reasons = {reason for d in decisions for reason in d.reasons}
        bids = [_bid(d, currency) for d in decisions if d.winner is not None]
        if not bids:
            return Response(204, headers=(_reasons(reasons), _OPENRTB_VERSION))
        body = encode(BidResponse(id=asked.id, seatbid=[SeatBid(bid=bids, seat=_OWN_SEAT)], cur=currency))
        return Response(200, body, JSON, (_OPENRTB_VERSION, *([_reasons(reasons)] if reasons else ())))

    async def _vast(self, request: Request, arrived_s: float) -> Response:
        try:
            asked = to_request(
                request.params,
                encode_id(os.urandom(_REQUEST_ID_BYTES)),
                self._inventory(),
                request.header(b"user-agent"),
                request.header(b"accept-language"),
            )
        except BadRequest as e:
            return refusal(400, e.reason, path=e.path)
        except ValueError as e:  # more parameters than a query may have
            return Response(400, str(e).encode(), TEXT)
        try:
            (decision,) = await self._decider.decide(asked, arrived_s)
        except Exception:
            logger.exception("vast failed")
            return _vast_answer(vast.EMPTY, (REASON_HEADER, str(int(Outcome.INTERNAL_ERROR))))
        markup = decision.markup if decision.winner is not None else vast.EMPTY
        return _vast_answer(markup, *([_reasons(decision.reasons)] if decision.reasons else ()))


def _vast_answer(markup: str, *headers: tuple[str, str]) -> Response:
    return Response(200, markup.encode(), _XML, (_NO_STORE, _ANY_ORIGIN, *headers))


def _reasons(reasons: Iterable[Degraded]) -> tuple[str, str]:
    return REASON_HEADER, ",".join(str(int(r)) for r in sorted(reasons))


def _bid(decision: Decision, currency: str) -> Bid:
    """A decision as the bid of our response. `ext.headwater` says in one place what the markup says in many."""
    winner = decision.winner
    if winner is None:
        raise ValueError("a decision without a winner has no bid")
    record_id = decision.record.record_id if decision.record is not None else ""
    creative = winner.row.creative if winner.row is not None else None
    cost = costs(winner) if decision.record is not None else Costs()
    details: dict[str, Any] = {
        "record_id": record_id,
        "advertiser_id": winner.advertiser_id,
        "campaign_id": winner.campaign_id,
        "line_item_id": winner.line_item_id,
        "creative_id": winner.creative_id,
        "pricing": winner.pricing,
        "impression_cost_micros": cost.impression_micros,
        "click_cost_micros": cost.click_micros,
        "currency": currency,
    }
    if decision.markup_format == "banner":
        details["trackers"] = decision.trackers
    return Bid(
        id=record_id or decision.opportunity.imp.id,
        impid=decision.opportunity.imp.id,
        price=winner.bid_cpm_micros / 1_000_000,
        adm=decision.markup,
        adomain=[winner.row.advertiser.domain] if winner.row is not None else winner.bid.adomain if winner.bid else [],
        cid=winner.campaign_id,
        crid=winner.creative_id,
        w=creative.width if creative is not None else winner.bid.w if winner.bid else None,
        h=creative.height if creative is not None else winner.bid.h if winner.bid else None,
        dur=creative.duration_s if creative is not None else winner.bid.dur if winner.bid else None,
        mtype=_MTYPES[decision.markup_format],
        ext={"headwater": details},
    )
