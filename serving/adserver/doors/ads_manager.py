"""The Ads Manager door: the VAST answer of any outside ad server in, the same with our tokens for trackers out.

| request to `/ads-manager/vast` | answers |
| --- | --- |
| `POST ?placement=…`, the body is a VAST document | 200 VAST · 400 for what is no VAST, or no placement |
| `GET ?placement=…&url=…`, an address that a setting allows | 200 VAST, without an Ad if there is none · 400 |

Query: that of `GET /vast` (player_tag.py), and advertiser, campaign, line_item, creative: ids that go before those of
the document. Each Ad becomes a record of the registry whose trackers are the document's own (markup/adopt.py); what it
costs is its `Pricing`, 0 without one. Without the registry the document is answered as it came: its own trackers still
work, and the reason says that we count nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lxml import etree

from connectors.http_messages import Request, Response
from connectors.http_server import refusal
from connectors.keys import KeyRing
from schemas.decisions import Degraded
from schemas.errors import ConnectorError
from schemas.ids import encode_id
from schemas.registry_record import AdRecord
from serving.adserver import metrics
from serving.adserver.auction.rules import Candidate
from serving.adserver.decision import ad_record, identity
from serving.adserver.doors.player_tag import asked_by
from serving.adserver.inventory import Inventory
from serving.adserver.markup import vast
from serving.adserver.markup.adopt import OutsideAd, outside_ads
from serving.adserver.markup.fetch import VastFetcher
from serving.adserver.markup.trackers import TrackerMaker, Trackers
from serving.adserver.openrtb.context import Opportunity, RequestContext, opportunities, resolve
from serving.adserver.settings import Settings
from serving.adserver.store import Commit, Store

logger = logging.getLogger(__name__)

PATH = "/ads-manager/vast"
_XML = "application/xml; charset=utf-8"
_HEADERS = (("Cache-Control", "no-store"), ("Access-Control-Allow-Origin", "*"))
_REASON_HEADER = "X-Headwater-Reason"
_MOST_ADS = 32
_OUTSIDE = "m-"  # ids of outside documents, beside our own and DSPs' (`x-`)


@dataclass(frozen=True, slots=True)
class _Adopted:
    ad: OutsideAd
    raw_id: bytes
    record: AdRecord
    trackers: Trackers


class AdsManager:
    """The door. `clock` gives epoch seconds."""

    def __init__(
        self,
        store: Store,
        trackers: TrackerMaker,
        keys: KeyRing,
        inventory: Callable[[], Inventory],
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._trackers = trackers
        self._keys = keys
        self._inventory = inventory
        self._settings = settings
        self._clock = clock
        self._fetcher = VastFetcher(settings.outside_vast_bytes, settings.outside_allow_private)

    async def __call__(self, request: Request) -> Response:
        """The answer. A document that is broken is the sender's error; behind an address it is an empty answer."""
        asked = asked_by(request, self._inventory())
        if isinstance(asked, Response):
            return asked
        params = request.params
        context = resolve(asked, self._keys, int(self._clock() * 1000), self._settings.tcf_vendor_id)
        (place,) = opportunities(asked, self._inventory())
        if request.method == "POST":
            return await self._adopt(request.body, params, place, context)
        url = params.get("url", "")
        if not self._may_fetch(url):
            return refusal(400, "not an address that may be asked", path="url")
        timeout_s = min(asked.tmax or self._settings.max_tmax_ms, self._settings.max_tmax_ms) / 1000
        device = asked.device
        headers = {}
        if device is not None and not context.opted_out:
            headers = {"User-Agent": device.ua, "Accept-Language": device.language}
        try:
            document = await self._fetcher.fetch(url, timeout_s, headers, self._may_fetch)
        except ConnectorError as e:
            metrics.ADOPTED.labels("not_fetched").inc()
            logger.info("outside ad server gave nothing", extra={"detail": str(e)[:200]})
            return _answer(vast.EMPTY, Degraded.NO_CANDIDATE)
        answer = await self._adopt(document, params, place, context)
        return answer if answer.status == 200 else _answer(vast.EMPTY, Degraded.NO_CANDIDATE)

    def _may_fetch(self, url: str) -> bool:
        """Whether an address begins with one of the setting's prefixes, each with its whole host."""
        allowed = [prefix.rstrip("/") for prefix in self._settings.outside_addresses]
        return any(url == prefix or url.startswith((f"{prefix}/", f"{prefix}?")) for prefix in allowed)

    async def _adopt(
        self, document: bytes, params: Mapping[str, str], place: Opportunity, context: RequestContext
    ) -> Response:
        """The document with our trackers, once all its ads are in the registry."""
        try:
            root, ads = outside_ads(document, self._settings.outside_vast_bytes)
        except vast.NotVast as e:
            metrics.ADOPTED.labels("not_vast").inc()
            return refusal(400, str(e), path="body")
        if not ads:
            metrics.ADOPTED.labels("no_ad").inc()
            return _answer_bytes(document, Degraded.NO_CANDIDATE)
        if len(ads) > _MOST_ADS:
            return refusal(400, f"more than {_MOST_ADS} ads", path="body")
        adopted = [self._adopted(ad, params, place, context) for ad in ads]
        try:
            for found in adopted:
                self._rewrite(found, context)
        except vast.NotVast as e:
            metrics.ADOPTED.labels("not_vast").inc()
            return refusal(400, str(e), path="body")
        committed = await asyncio.gather(*(self._store.commit(found.record, None) for found in adopted))
        if not all(c is Commit.DONE for c in committed):
            metrics.ADOPTED.labels("not_registered").inc()
            return _answer_bytes(document, Degraded.REGISTRY_UNAVAILABLE)
        metrics.ADOPTED.labels("adopted").inc(len(adopted))
        return _answer_bytes(etree.tostring(root, encoding="UTF-8", xml_declaration=True))

    def _adopted(
        self, ad: OutsideAd, params: Mapping[str, str], place: Opportunity, context: RequestContext
    ) -> _Adopted:
        raw_id = os.urandom(16)
        currency = ad.currency or self._inventory().currency
        record = ad_record(
            _as_candidate(ad, params), encode_id(raw_id), place, context, currency, "video", model_version=None
        )
        record = replace(record, trackers=ad.trackers, creative_length_s=ad.duration_s)
        return _Adopted(ad, raw_id, record, self._trackers.video(raw_id, context.now_s))

    def _rewrite(self, found: _Adopted, context: RequestContext) -> None:
        """Puts our trackers into an ad's elements. Errors: NotVast."""
        ad, raw_id = found.ad, found.raw_id
        ad.fill(lambda event, ordinal: self._trackers.one(raw_id, event, ordinal, context.now_s))
        named = identity(_of_record(found.record), found.record.record_id, found.record.currency)
        vast.insert(ad.body, ad.version, named, found.trackers)


def _as_candidate(ad: OutsideAd, params: Mapping[str, str]) -> Candidate:
    """An outside ad as the registry's record names it: ids of the query, else of the document."""
    campaign = params.get("campaign") or f"{_OUTSIDE}{ad.system}-{ad.ad_id or ad.title[:64]}"
    return Candidate(
        kind="outside",
        pricing=ad.pricing,
        advertiser_id=params.get("advertiser") or (f"{_OUTSIDE}{ad.advertiser}" if ad.advertiser else ""),
        campaign_id=campaign[:128],
        creative_id=(params.get("creative") or f"{_OUTSIDE}{ad.system}-{ad.creative_id or ad.ad_id}")[:128],
        line_item_id=params.get("line_item", "")[:128],
        bid_micros=ad.price_micros,
    )


def _of_record(record: AdRecord) -> Candidate:
    return Candidate(
        "outside",
        record.pricing,
        record.advertiser_id,
        record.campaign_id,
        record.creative_id,
        record.line_item_id,
    )


def _answer(text: str, *reasons: Degraded) -> Response:
    return _answer_bytes(text.encode(), *reasons)


def _answer_bytes(body: bytes, *reasons: Degraded) -> Response:
    said: Sequence[tuple[str, str]] = [(_REASON_HEADER, ",".join(str(int(r)) for r in reasons))] if reasons else []
    return Response(200, body, _XML, (*_HEADERS, *said))
