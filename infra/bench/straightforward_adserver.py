"""The same auction as a Python team would first write it: FastAPI, httpx, redis-py, pydantic, LightGBM's `predict`.

It reads the same catalogue, bidders, counters and model as the ad server, asks the same DSPs, checks caps and budgets,
scores 100 candidates, holds a first-price auction, reserves budget and writes the registry in Valkey, and answers
OpenRTB with VAST and one sealed token per event. What is slow to read per request (counters of ads) it keeps in memory
and reads again every ten seconds, DSPs are asked concurrently over kept connections, and it runs on uvloop and
httptools: nothing in it is slow on purpose. It has no consent rules, deals, pods, pacing, notices, decision log,
adaptive timeouts or tiers, all of which the ad server's figure includes.

Run by `infra.bench.adserver`: python -m infra.bench.straightforward_adserver FOLDER PORT (catalog.json, bidders.json,
model.txt and spec.json in FOLDER).
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import redis.asyncio as redis
import uvicorn
from fastapi import FastAPI, HTTPException, Response

from connectors.endpoints import endpoints
from connectors.keys import KeyRing
from connectors.tokens import TokenMinter
from infra.bench.straightforward_market import Counters, Market, by_counter, total
from infra.bench.straightforward_openrtb import Bid, BidRequest, Device, DspResponse, Imp
from schemas.catalog import Creative
from schemas.counters import COUNTER_BY_NAME, grain_of, touched_buckets, window_buckets
from schemas.events import BY_NAME
from schemas.features import CATEGORICAL_FEATURES, FEATURES, category_value, feature_value, hours
from schemas.ids import encode_id, scope_hash
from schemas.money import impression_cost_micros
from schemas.redis_layout import registry_key, spend_key, unpack_counters, user_key

TTL_S = 86_400
REFRESH_S = 10.0
EVENTS = (
    "impression",
    "viewable",
    "click",
    "error",
    "start",
    "first_quartile",
    "midpoint",
    "third_quartile",
    "complete",
)
DEVICE_TYPES = {1: "phone", 2: "desktop", 3: "ctv", 4: "phone", 5: "tablet"}

RESERVE = """
local spent = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0)
local reserved = tonumber(redis.call('HGET', KEYS[2], 'total') or 0)
if spent + reserved + tonumber(ARGV[2]) > tonumber(ARGV[3]) then return 0 end
redis.call('HINCRBY', KEYS[2], 'total', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[4], ARGV[2])
return 1
"""


class Auctioneer:
    """Answers bid requests."""

    def __init__(self, market: Market, keys: KeyRing, http: httpx.AsyncClient) -> None:
        self.market = market
        self.keys = keys
        self.minter = TokenMinter(keys)
        self.http = http
        self.collector_url = endpoints().collector_url
        self.reserve = market.redis.register_script(RESERVE)

    async def answer(self, request: BidRequest) -> dict[str, Any] | None:
        began_s = time.monotonic()
        imp = request.imp[0]
        asking = asyncio.create_task(self.ask_dsps(request, began_s + request.tmax / 1000 - 0.02))
        candidates = await self.internal(request, imp)
        floor_micros = int(imp.bidfloor * 1_000_000)
        bids: list[tuple[int, Creative | None, Bid | None]] = [
            (price, creative, None) for price, creative in candidates
        ]
        for bidder_id, response in await asking:
            bids += [(price, None, bid) for price, bid in self.checked(request, bidder_id, response)]
        bids = [b for b in bids if b[0] >= floor_micros and b[0] > 0]
        for price, creative, bid in sorted(bids, key=lambda b: -b[0])[:8]:
            raw_id = os.urandom(16)
            if not await self.write(raw_id, request, imp, price, creative, bid):
                continue
            return self.response(request, imp, price, creative, bid, raw_id)
        return None

    async def ask_dsps(self, request: BidRequest, deadline_s: float) -> list[tuple[str, DspResponse]]:
        body = request.model_dump(exclude_none=True)
        body["at"] = 1
        body["user"] = {"id": self.keys.pseudonym(request.user.id)} if request.user and request.user.id else None
        content = json.dumps(body).encode()
        country = request.device.geo.country[:2] if request.device and request.device.geo else None
        asked = [b for b in self.market.bidders if not b.regions or country in b.regions]
        timeout_s = max(0.001, deadline_s - time.monotonic())
        answers = await asyncio.gather(
            *(self.ask(b.endpoint, content, min(timeout_s, b.timeout_ms / 1000)) for b in asked)
        )
        return [(b.id, answer) for b, answer in zip(asked, answers, strict=True) if answer is not None]

    async def ask(self, endpoint: str, content: bytes, timeout_s: float) -> DspResponse | None:
        headers = {"Content-Type": "application/json", "x-openrtb-version": "2.6"}
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self.http.post(endpoint, content=content, headers=headers)
        except (httpx.HTTPError, TimeoutError):
            return None
        if answer.status_code != 200:
            return None
        try:
            return DspResponse.model_validate_json(answer.content)
        except ValueError:
            return None

    def checked(self, request: BidRequest, bidder_id: str, response: DspResponse) -> list[tuple[int, Bid]]:
        if response.id != request.id or response.cur != self.market.currency:
            return []
        imps = {imp.id for imp in request.imp}
        return [
            (int(bid.price * 1_000_000), bid.model_copy(update={"cid": f"x-{bidder_id}-{bid.cid}"}))
            for seat in response.seatbid
            for bid in seat.bid
            if bid.impid in imps
            and math.isfinite(bid.price)
            and bid.crid
            and bid.adm
            and bid.adomain
            and not any(d in request.badv for d in bid.adomain)
            and not any(c in request.bcat for c in bid.cat)
        ]

    async def internal(self, request: BidRequest, imp: Imp) -> list[tuple[int, Creative]]:
        """Targeted creatives within caps and budget, with the CPM that each is ranked by."""
        market, now_s = self.market, int(time.time())
        fitting = [
            c
            for c in market.creatives
            if c.review == "approved"
            and imp.video.minduration <= (c.duration_s or 0) <= (imp.video.maxduration or 10**6)
            and c.mime in imp.video.mimes
        ]
        day = time.strftime("%Y%m%d", time.gmtime(now_s))
        campaign_ids = list({market.line_items[c.line_item_id].campaign_id for c in fitting})
        async with market.redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(user_key(self.keys.pseudonym(request.user.id if request.user else "")).decode())
            for campaign_id in campaign_ids:
                pipe.hget(spend_key(campaign_id).decode(), day)
            user_hash, *spent = await pipe.execute()
        user = by_counter(unpack_counters("user", user_hash))
        spend = {c: int(s or 0) for c, s in zip(campaign_ids, spent, strict=True)}
        sums = self.user_sums(user, now_s)
        allowed = []
        for creative in fitting:
            campaign = market.campaigns[market.line_items[creative.line_item_id].campaign_id]
            if spend[campaign.id] < campaign.daily_budget_micros and self.within_caps(creative, campaign, user, now_s):
                allowed.append(creative)
        if not allowed:
            return []
        rows = [self.inputs(request, imp, creative, sums, now_s) for creative in allowed]
        scores = market.booster.predict(np.array(rows), num_threads=1)
        found = []
        for creative, p_ctr in zip(allowed, scores, strict=True):
            line = market.line_items[creative.line_item_id]
            found.append((int(p_ctr * line.bid_micros * 1000) if line.pricing == "cpc" else line.bid_micros, creative))
        return found

    def user_sums(self, user: Counters, now_s: int) -> dict[tuple[str, int, int], dict[int, int]]:
        """(counter, first bucket, last bucket) -> scope -> sum, of all windows that the user's features need."""
        sums: dict[tuple[str, int, int], dict[int, int]] = {}
        for feature in FEATURES:
            if feature.entity != "user":
                continue
            for name in (feature.numerator, feature.denominator):
                if name is None:
                    continue
                counter = COUNTER_BY_NAME[name]
                key = (name, *window_buckets(now_s, feature.window_s, counter.bucket_s))
                if key in sums:
                    continue
                mine = sums[key] = {}
                for (code, scope), buckets in user.items():
                    if code == counter.code:
                        inside = [value for start_s, value in buckets if key[1] <= start_s <= key[2]]
                        if inside:
                            mine[scope] = sum(inside)
        return sums

    def within_caps(self, creative: Creative, campaign: Any, user: Counters, now_s: int) -> bool:
        ids = {"creative": creative.id, "campaign": campaign.id, "advertiser": campaign.advertiser_id}
        for cap in campaign.frequency_caps:
            counter = COUNTER_BY_NAME[f"user_{cap.scope}_impressions_{grain_of(cap.window_s).name}"]
            span = touched_buckets(now_s, cap.window_s, counter.bucket_s)
            if (total(user, counter.name, scope_hash(ids[cap.scope]), *span) or 0) >= cap.limit:
                return False
        return True

    def inputs(
        self,
        request: BidRequest,
        imp: Imp,
        creative: Creative,
        sums: dict[tuple[str, int, int], dict[int, int]],
        now_s: int,
    ) -> list[float]:
        market = self.market
        line = market.line_items[creative.line_item_id]
        campaign = market.campaigns[line.campaign_id]
        placement = market.placements.get(imp.tagid)
        device = request.device or Device()
        columns: dict[str, str | None] = {
            "creative_id": creative.id,
            "campaign_id": campaign.id,
            "advertiser_id": campaign.advertiser_id,
            "creative_format": creative.format,
            "placement_id": imp.tagid,
            "content_category": placement.content_category if placement else None,
            "publisher_id": placement.publisher_id if placement else None,
            "device_type": DEVICE_TYPES.get(device.devicetype or 0),
            "platform": device.os,
            "country": device.geo.country[:2] if device.geo else None,
            "region": device.geo.region if device.geo else None,
        }
        hour_of_day, hour_of_week = hours(now_s)
        values: dict[str, float] = {
            **market.of_entity.get(("creative", creative.id), {}),
            **market.of_entity.get(("campaign", campaign.id), {}),
            **market.of_entity.get(("advertiser", campaign.advertiser_id), {}),
            **market.of_entity.get(("creative_format", f"{campaign.advertiser_id}/{creative.format}"), {}),
            **market.of_entity.get(("placement", imp.tagid), {}),
            **market.of_entity.get(("category", columns["content_category"] or ""), {}),
            "hour_of_day": hour_of_day,
            "hour_of_week": hour_of_week,
            "live_content": 0.0,
            "creative_duration_s": float(creative.duration_s or 0),
        }
        scopes = {
            "creative": scope_hash(creative.id),
            "campaign": scope_hash(campaign.id),
            "advertiser": scope_hash(campaign.advertiser_id),
            "category": scope_hash(columns["content_category"] or ""),
        }
        for feature in FEATURES:
            if feature.entity == "user":
                counter = COUNTER_BY_NAME[feature.numerator]
                span = window_buckets(now_s, feature.window_s, counter.bucket_s)
                scope = scopes[counter.scope]
                above = sums[feature.numerator, *span].get(scope)
                below = sums[feature.denominator, *span].get(scope) if feature.denominator else None
                values[feature.name] = feature_value(feature, above, below)
        for name in CATEGORICAL_FEATURES:
            values[name] = self.market.codes[name].get(category_value(name, columns) or "", math.nan)
        return [values[name] for name in market.inputs]

    async def write(
        self, raw_id: bytes, request: BidRequest, imp: Imp, price: int, creative: Creative | None, bid: Bid | None
    ) -> bool:
        """Reserves the budget and writes the registry's record."""
        market, record_id = self.market, encode_id(raw_id)
        record: dict[str, Any] = {"record_id": record_id, "request_id": request.id, "imp_id": imp.id, "price": price}
        if creative is not None:
            line = market.line_items[creative.line_item_id]
            campaign = market.campaigns[line.campaign_id]
            cost = line.bid_micros if line.pricing == "cpc" else impression_cost_micros(line.bid_micros)
            day = time.strftime("%Y%m%d", time.gmtime())
            keys = [spend_key(campaign.id), b"straightforward:" + campaign.id.encode()]
            if not await self.reserve(keys=keys, args=[day, cost, campaign.daily_budget_micros, record_id]):
                return False
            record |= {"campaign_id": campaign.id, "creative_id": creative.id, "advertiser_id": campaign.advertiser_id}
        elif bid is not None:
            record |= {"campaign_id": bid.cid, "creative_id": bid.crid, "advertiser_id": bid.adomain[0]}
        await market.redis.set(registry_key(record_id), json.dumps(record), ex=TTL_S)
        return True

    def response(
        self, request: BidRequest, imp: Imp, price: int, creative: Creative | None, bid: Bid | None, raw_id: bytes
    ) -> dict[str, Any]:
        now_s = int(time.time())
        urls = {e: self.tracker(raw_id, e, 0, now_s) for e in EVENTS}
        progress = {p: self.tracker(raw_id, "progress", p, now_s) for p in range(10, 101, 10)}
        tracking = "".join(f'<Tracking event="{e}"><![CDATA[{u}]]></Tracking>' for e, u in urls.items())
        tracking += "".join(
            f'<Tracking event="progress" offset="{p}%"><![CDATA[{u}]]></Tracking>' for p, u in progress.items()
        )
        if creative is not None:
            adm = (
                f'<VAST version="4.2"><Ad id="{creative.id}"><InLine><AdSystem>beside</AdSystem>'
                f"<Impression><![CDATA[{urls['impression']}]]></Impression><Creatives><Creative><Linear>"
                f"<Duration>00:00:{creative.duration_s:02d}</Duration><TrackingEvents>{tracking}</TrackingEvents>"
                f'<MediaFiles><MediaFile delivery="progressive" type="{creative.mime}" width="{creative.width}" '
                f'height="{creative.height}"><![CDATA[{creative.media_url}]]></MediaFile></MediaFiles>'
                "</Linear></Creative></Creatives></InLine></Ad></VAST>"
            )
            crid = creative.id
        else:
            assert bid is not None
            adm = bid.adm.replace(
                "<Creatives>", f"<Impression><![CDATA[{urls['impression']}]]></Impression><Creatives>", 1
            )
            adm = adm.replace("</Duration>", f"</Duration><TrackingEvents>{tracking}</TrackingEvents>", 1)
            crid = bid.crid
        made = {"id": encode_id(raw_id), "impid": imp.id, "price": price / 1_000_000, "adm": adm, "crid": crid}
        return {"id": request.id, "cur": self.market.currency, "seatbid": [{"bid": [made]}]}

    def tracker(self, raw_id: bytes, event: str, ordinal: int, now_s: int) -> str:
        token = self.minter.mint(raw_id, BY_NAME[event].code, ordinal, now_s, TTL_S)
        return f"{self.collector_url}/t/{token}"


def make_app(folder: Path) -> FastAPI:
    """The application. What it needs is made when it starts."""
    state: dict[str, Auctioneer] = {}

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        client = redis.from_url(endpoints().valkey_url)
        market = Market(folder, client)
        await market.refresh()

        async def keep_fresh() -> None:
            while True:
                await asyncio.sleep(REFRESH_S)
                await market.refresh()

        refreshing = asyncio.create_task(keep_fresh())
        limits = httpx.Limits(max_connections=2000, max_keepalive_connections=2000)
        async with httpx.AsyncClient(limits=limits, timeout=1.0) as http:
            state["auctioneer"] = Auctioneer(market, KeyRing.load(endpoints().secrets), http)
            yield
        refreshing.cancel()
        await client.aclose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/openrtb2/auction", response_model=None)
    async def auction(request: BidRequest) -> Response | dict[str, Any]:
        if request.cur and "USD" not in request.cur:
            raise HTTPException(400, "currency")
        answer = await state["auctioneer"].answer(request)
        return Response(status_code=204) if answer is None else answer

    @app.get("/status")
    async def status() -> dict[str, str]:
        return {"status": "ready"}

    return app


if __name__ == "__main__":
    uvicorn.run(
        make_app(Path(sys.argv[1])),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
