"""An outside ad server's answer to the end: adopted, its events enriched by the publisher, its trackers called."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from lxml import etree

from connectors.endpoints import Endpoints
from connectors.http_messages import Request, Response
from connectors.keys import KeyRing
from connectors.tokens import TokenMinter
from connectors.valkey import AsyncValkey
from schemas.catalog import Partners
from schemas.catalog_text import dump
from schemas.topics import AD_EVENTS
from serving.adserver.doors.ads_manager import AdsManager
from serving.adserver.inventory import Inventory
from serving.adserver.markup.trackers import TrackerMaker
from serving.adserver.settings import Settings
from serving.adserver.store import Store
from tests.contract.test_vendors import QUICK
from tests.samples.adserver import KeptLog, catalog
from tests.samples.ingest import Ads, service, wait_until
from tests.samples.outside_vast import document
from tests.samples.partners import Partner, partner


def _adopt(where: Endpoints, body: str) -> Response:
    """The door's answer, with a real registry behind it."""
    settings = Settings(store_timeout_ms=5_000)
    keys = KeyRing.load(where.secrets)
    inventory = Inventory(catalog([{"id": "a", "pricing": "cpm", "bid_micros": 1}]))
    trackers = TrackerMaker(TokenMinter(keys), where.collector_url, 3_600)

    async def run() -> Response:
        valkey = AsyncValkey(where.valkey_url)
        store = Store(valkey, 5.0, 3_600, settings.budget_times)
        await valkey.start()
        door = AdsManager(store, trackers, keys, lambda: inventory, settings, time.time, KeptLog())
        try:
            return await door(
                Request("POST", "/ads-manager/vast", b"placement=pl-video&user=viewer", {}, body.encode(), "")
            )
        finally:
            await store.budgets.close()
            await valkey.close()

    return asyncio.run(run())


def _called(at: Partner) -> Counter[str]:
    return Counter(h.path for h in list(at.heard))


def test_events_of_an_outside_ad_are_enriched_and_its_trackers_are_called(local_services: Endpoints) -> None:
    ads = Ads(local_services)
    with partner() as told:
        answer = _adopt(local_services, document(told.url, 2))
        assert answer.status == 200 and told.url not in answer.body.decode()
        urls = [
            e.text or ""
            for e in etree.fromstring(answer.body).iter(etree.Element)
            if (e.text or "").startswith(local_services.collector_url)
        ]
        local_services.partners_path.write_text(dump(Partners(1, [])))
        publisher = service("jobs.publisher", local_services.port("publisher_metrics"))
        vendors = service("jobs.vendors", local_services.port("vendors_metrics"), **QUICK)
        with publisher, vendors as worker:
            tokens = [url.rpartition("/t/")[2].partition("?")[0] for url in urls]
            ads.send([ads.telemetry(token) for token in tokens])
            # every event of the sample, two trackers each: nothing is left out, and nothing is told twice
            wait_until("all trackers are called", lambda: sum(_called(told).values()) >= 2 * 17)
            events = [e for e in ads.read_all(AD_EVENTS) if e["campaign_id"] == "m-Other-out-0"]
            assert worker.stop() == 0
    assert len(events) == len(tokens) == len({e["event_id"] for e in events})
    (impression,) = [e for e in events if e["event_type"] == "impression"]
    assert (impression["cost_micros"], impression["placement_id"]) == (4_500, "pl-video")
    assert impression["user_pseudonym"] == ads.ring.pseudonym("viewer")
    assert Counter(e["event_type"] for e in events)["custom"] == 6
    assert set(_called(told).values()) == {2} and len(_called(told)) == 17
