"""Three demand-side platforms that answer OpenRTB 2.6: each with its own prices, latency, no-bids and mistakes.

Doors: `POST /dsp/<id>/bid` · `GET /dsp/<id>/imp` (their own impression pixel) · `GET /status` with counts.
Verification and measurement partners listen beside them: `GET /partner/<id>/<event>`.
An answer depends on the request's id alone, so a world's auctions can be repeated.

Run: python -m infra.simulator.dsps   (listens on the port "dsps")
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import msgspec
import uvloop

from connectors.endpoints import endpoints
from connectors.http_messages import Request, Response, refusal
from connectors.http_server import serve_until_terminated
from connectors.logs import configure_logging
from infra.simulator.market import DSP_IDS
from infra.simulator.partners import Partners

#: How long a stuck DSP holds the connection: longer than any ad server waits.
STUCK_S = 0.6


@dataclass(frozen=True, slots=True)
class Profile:
    """How a DSP behaves. Prices and latencies are log-normal: median and sigma of the logarithm."""

    bid_share: float
    median_cpm: float  # dollars
    price_sigma: float
    median_latency_ms: float
    latency_sigma: float
    error_share: float = 0.01  # answers 500
    stuck_share: float = 0.01  # answers long after every deadline
    invalid_share: float = 0.01  # bids that break the protocol
    categories: frozenset[str] = frozenset()  # content it buys; empty: any


PROFILES: dict[str, Profile] = dict(
    zip(
        DSP_IDS,
        (
            Profile(0.55, 3.2, 0.5, 8.0, 0.4),
            Profile(0.35, 5.0, 0.6, 18.0, 0.5, error_share=0.02),
            Profile(0.30, 6.5, 0.7, 30.0, 0.7, stuck_share=0.03, categories=frozenset({"IAB17", "IAB19", "IAB12"})),
        ),
        strict=True,
    )
)

_VAST = """<?xml version="1.0" encoding="UTF-8"?>
<VAST version="4.2"><Ad id="{crid}"><InLine><AdSystem>{dsp}</AdSystem><AdTitle>{crid}</AdTitle>
<Impression id="{dsp}"><![CDATA[{url}/dsp/{dsp}/imp?crid={crid}]]></Impression>
<Creatives><Creative id="{crid}"><Linear><Duration>00:00:{seconds:02d}</Duration>
<VideoClicks><ClickThrough><![CDATA[https://{domain}/{crid}]]></ClickThrough></VideoClicks>
<MediaFiles><MediaFile delivery="progressive" type="video/mp4" width="1280" height="720">
<![CDATA[https://media.{domain}/{crid}.mp4]]></MediaFile></MediaFiles></Linear></Creative></Creatives></InLine></Ad></VAST>"""

_BANNER = '<a href="https://{domain}/{crid}"><img src="https://media.{domain}/{crid}.png" width="300" height="250"></a>'


@dataclass(frozen=True, slots=True)
class Answer:
    """What a DSP does with one request: the status, the body (None with 204), how long it takes."""

    status: int
    body: dict[str, Any] | None
    latency_s: float


def answer(dsp: str, profile: Profile, request: dict[str, Any], own_url: str) -> Answer:
    """A DSP's answer to a bid request. Shape: `request` is OpenRTB 2.6, decoded. Errors: KeyError, IndexError."""
    request_id = request["id"]
    rng = random.Random(f"{dsp}:{request_id}")
    latency_s = profile.median_latency_ms / 1000 * math.exp(rng.gauss(0.0, profile.latency_sigma))
    fate = rng.random()
    if fate < profile.error_share:
        return Answer(500, None, latency_s)
    if fate < profile.error_share + profile.stuck_share:
        return Answer(204, None, STUCK_S)
    inventory = request.get("site") or request.get("app") or {}
    wanted = not profile.categories or bool(profile.categories.intersection(inventory.get("cat", ())))
    if not wanted or rng.random() >= profile.bid_share:
        return Answer(204, None, latency_s)
    offered = [_bid(dsp, profile, imp, rng, own_url) for imp in request["imp"]]
    bids = [bid for bid in offered if bid is not None]
    if not bids:
        return Answer(204, None, latency_s)
    if rng.random() < profile.invalid_share:
        bids[0]["impid"] = "no-such-imp"
    body = {
        "id": request_id,
        "cur": "USD",
        "seatbid": [{"seat": f"{dsp}-seat-{rng.randrange(1, 3)}", "bid": bids}],
    }
    return Answer(200, body, latency_s)


def _bid(dsp: str, profile: Profile, imp: dict[str, Any], rng: random.Random, own_url: str) -> dict[str, Any] | None:
    """One bid, or None when it would be below the floor."""
    price = round(profile.median_cpm * math.exp(rng.gauss(0.0, profile.price_sigma)), 4)
    campaign = rng.randrange(1, 4)
    crid = f"{dsp}-cr-{campaign}{rng.randrange(1, 3)}"
    domain = f"brand-{campaign}.{dsp}.example"
    if price < imp.get("bidfloor", 0.0):
        return None
    video = "video" in imp and imp["video"] is not None
    values = {"dsp": dsp, "crid": crid, "domain": domain, "url": own_url, "seconds": 15}
    return {
        "id": f"{rng.getrandbits(64):016x}",
        "impid": imp["id"],
        "price": price,
        "cid": f"c{campaign}",
        "crid": crid,
        "adomain": [domain],
        "mtype": 2 if video else 1,
        "w": 1280 if video else 300,
        "h": 720 if video else 250,
        **({"dur": 15} if video else {}),
        "adm": (_VAST if video else _BANNER).format(**values),
    }


class Exchange:
    """The three DSPs, and the partners, behind one port, with counts of what they did."""

    def __init__(self, own_url: str) -> None:
        self._own_url = own_url
        self.counts: dict[str, Counter[str]] = {dsp: Counter() for dsp in PROFILES}
        self.partners = Partners()

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        """The answer to one HTTP request."""
        if request.path == "/status":
            partners = {name: desk.report() for name, desk in self.partners.desks.items()}
            return Response(200, msgspec.json.encode({"status": "ready", "dsps": self.counts, "partners": partners}))
        parts = request.path.strip("/").split("/")
        if len(parts) == 3 and parts[0] == "partner":
            return self.partners.handle(parts[1], parts[2], request)
        if len(parts) != 3 or parts[0] != "dsp" or parts[1] not in PROFILES:
            return refusal(404, "no such DSP")
        if parts[2] == "imp":
            self.counts[parts[1]]["impressions"] += 1
            return Response(204)
        if parts[2] != "bid" or request.method != "POST":
            return refusal(404, "no such door")
        return self._bid(parts[1], request)

    async def _bid(self, dsp: str, request: Request) -> Response:
        try:
            found = answer(dsp, PROFILES[dsp], msgspec.json.decode(request.body), self._own_url)
        except (msgspec.DecodeError, KeyError, IndexError, TypeError, AttributeError):
            self.counts[dsp]["malformed"] += 1
            return refusal(400, "not an OpenRTB bid request")
        self.counts[dsp][str(found.status)] += 1
        await asyncio.sleep(found.latency_s)
        if found.status == 500:
            return refusal(500, "out of order")
        return Response(found.status) if found.body is None else Response(200, msgspec.json.encode(found.body))


def main() -> int:
    configure_logging("dsps")
    ends = endpoints()
    exchange = Exchange(ends.dsps_url)
    uvloop.run(serve_until_terminated(exchange.handle, ends.host, ends.port("dsps")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
