"""The Ads Manager door: the VAST answer of any outside ad server in, the same with our tokens for trackers out.

| request to `/ads-manager/vast` | answers |
| --- | --- |
| `POST ?placement=…`, the body is a VAST document | 200 VAST · 400 for what is no VAST, or no placement |
| `GET ?placement=…&url=…`, an address that a setting allows | 200 VAST, without an Ad if there is none · 400 |

Query: that of `GET /vast` (player_tag.py), and advertiser, campaign, line_item, creative: ids that go before those of
the document. Each Ad becomes a record of the registry whose trackers are the document's own (markup/adopt.py), and a
decision in the log; what it costs is its `Pricing`, 0 without one. The viewer is in the catalogue's experiments: an Ad
of a campaign that is held back from them is taken out of the document, and logged as a ghost. Without the registry the
document is answered as it came: its own trackers still work, and the reason says that we count nothing. So is a test's.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lxml import etree

from connectors.http_messages import Request, Response, refusal
from connectors.keys import KeyRing
from schemas.decisions import Degraded, Outcome
from schemas.errors import ConnectorError
from schemas.ids import encode_id, foreign_id
from schemas.registry_record import AdRecord
from serving.adserver import metrics
from serving.adserver.auction.rules import Candidate
from serving.adserver.decision import Decision, ad_record, identity
from serving.adserver.decision_log import DecisionLog, keep
from serving.adserver.doors.player_tag import asked_by
from serving.adserver.inventory import Inventory
from serving.adserver.markup import vast
from serving.adserver.markup.adopt import OutsideAd, outside_ads
from serving.adserver.markup.fetch import VastFetcher
from serving.adserver.markup.trackers import TrackerMaker, Trackers
from serving.adserver.openrtb.context import Opportunity, RequestContext, in_cells, opportunities, resolve
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
    candidate: Candidate
    raw_id: bytes
    record: AdRecord
    trackers: Trackers


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request: where, for whom, with which parameters, since when (the loop's time)."""

    place: Opportunity
    context: RequestContext
    params: Mapping[str, str]
    arrived_s: float


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
        log: DecisionLog,
    ) -> None:
        self._store = store
        self._trackers = trackers
        self._keys = keys
        self._inventory = inventory
        self._settings = settings
        self._clock = clock
        self._log = log
        self._fetcher = VastFetcher(settings.outside_vast_bytes, settings.outside_allow_private)

    async def __call__(self, request: Request) -> Response:
        """The answer. A document that is broken is the sender's error; behind an address it is an empty answer."""
        arrived_s = asyncio.get_running_loop().time()
        asked = asked_by(request, self._inventory(), self._settings.tag_rules)
        if isinstance(asked, Response):
            return asked
        context = resolve(asked, self._keys, int(self._clock() * 1000), self._settings.tcf_vendor_id)
        context = in_cells(context, self._inventory())
        (place,) = opportunities(asked, self._inventory())
        this = _Asked(place, context, request.params, arrived_s)
        if request.method == "POST":
            return await self._adopt(request.body, this)
        url = this.params.get("url", "")
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
            return self._nothing(this, vast.EMPTY.encode())
        answer = await self._adopt(document, this)
        return answer if answer.status == 200 else self._nothing(this, vast.EMPTY.encode())

    def _may_fetch(self, url: str) -> bool:
        """Whether an address begins with one of the setting's prefixes, each with its whole host."""
        allowed = [prefix.rstrip("/") for prefix in self._settings.outside_addresses]
        return any(url == prefix or url.startswith((f"{prefix}/", f"{prefix}?")) for prefix in allowed)

    async def _adopt(self, document: bytes, this: _Asked) -> Response:
        """The document with our trackers, once all its ads are in the registry."""
        try:
            root, ads = outside_ads(document, self._settings.outside_vast_bytes)
        except vast.NotVast as e:
            metrics.ADOPTED.labels("not_vast").inc()
            return refusal(400, str(e), path="body")
        if not ads:
            metrics.ADOPTED.labels("no_ad").inc()
            return self._nothing(this, document)
        if len(ads) > _MOST_ADS:
            return refusal(400, f"more than {_MOST_ADS} ads", path="body")
        if this.context.request.test:
            return _answer(document)
        found = [self._adopted(ad, this) for ad in ads]
        ghosts, adopted = [], []
        for one in found:
            if one.candidate.campaign_id in this.context.assignment.held:
                one.candidate.outcome = Outcome.GHOST
                root.remove(one.ad.ad)
                ghosts.append(one.candidate)
            else:
                adopted.append(one)
        if ghosts:
            document = _text(root)
        if not adopted:
            return self._nothing(this, document, ghosts)
        try:
            for one in adopted:
                self._rewrite(one, this.context)
        except vast.NotVast as e:
            metrics.ADOPTED.labels("not_vast").inc()
            return refusal(400, str(e), path="body")
        committed = await asyncio.gather(*(self._store.commit(one.record, None) for one in adopted))
        registered = all(c is Commit.DONE for c in committed)
        reasons = set() if registered else {Degraded.REGISTRY_UNAVAILABLE}
        metrics.ADOPTED.labels("adopted" if registered else "not_registered").inc(len(adopted) if registered else 1)
        for one in adopted:
            one.candidate.outcome = Outcome.WON
            decision = Decision(this.place, [one.candidate, *ghosts], one.candidate, one.record if registered else None)
            self._keep(this, decision, reasons)
            ghosts = []  # in the log once
        return _answer(_text(root) if registered else document, *reasons)

    def _nothing(self, this: _Asked, body: bytes, ghosts: Sequence[Candidate] = ()) -> Response:
        """An answer without an ad, logged as such."""
        self._keep(this, Decision(this.place, list(ghosts)), {Degraded.NO_CANDIDATE})
        return _answer(body, Degraded.NO_CANDIDATE)

    def _keep(self, this: _Asked, decision: Decision, reasons: set[Degraded]) -> None:
        decision.reasons |= reasons
        currency = decision.record.currency if decision.record is not None else self._inventory().currency
        latency_ms = (asyncio.get_running_loop().time() - this.arrived_s) * 1000
        keep(self._log, decision, this.context, currency, latency_ms)

    def _adopted(self, ad: OutsideAd, this: _Asked) -> _Adopted:
        raw_id = os.urandom(16)
        currency = ad.currency or self._inventory().currency
        candidate = _as_candidate(ad, this.params)
        record = ad_record(
            candidate, encode_id(raw_id), this.place, this.context, currency, "video", model_version=None
        )
        record = replace(record, trackers=ad.trackers, creative_length_s=ad.duration_s)
        return _Adopted(ad, candidate, raw_id, record, self._trackers.video(raw_id, this.context.now_s))

    def _rewrite(self, found: _Adopted, context: RequestContext) -> None:
        """Puts our trackers into an ad's elements. Errors: NotVast."""
        ad, raw_id = found.ad, found.raw_id
        ad.fill(lambda event, ordinal: self._trackers.one(raw_id, event, ordinal, context.now_s))
        named = identity(_of_record(found.record), found.record.record_id, found.record.currency)
        vast.insert(ad.body, ad.version, named, found.trackers)


def _as_candidate(ad: OutsideAd, params: Mapping[str, str]) -> Candidate:
    """An outside ad as the registry's record names it: ids of the query, else of the document."""
    advertiser = params.get("advertiser") or (f"{_OUTSIDE}{ad.advertiser}" if ad.advertiser else "")
    campaign = params.get("campaign") or f"{_OUTSIDE}{ad.system}-{ad.ad_id or ad.title[:64]}"
    return Candidate(
        kind="outside",
        pricing=ad.pricing,
        advertiser_id=foreign_id(advertiser),
        campaign_id=foreign_id(campaign),
        creative_id=foreign_id(params.get("creative") or f"{_OUTSIDE}{ad.system}-{ad.creative_id or ad.ad_id}"),
        line_item_id=foreign_id(params.get("line_item", "")),
        bid_micros=ad.price_micros,
        bid_cpm_micros=ad.price_micros if ad.pricing == "cpm" else 0,
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


def _text(root: etree._Element) -> bytes:
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True)


def _answer(body: bytes, *reasons: Degraded) -> Response:
    said: Sequence[tuple[str, str]] = [(_REASON_HEADER, ",".join(str(int(r)) for r in reasons))] if reasons else []
    return Response(200, body, _XML, (*_HEADERS, *said))
