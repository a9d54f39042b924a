"""The Ads Manager door: outside VAST in, one token of ours per event out, its trackers in the registry's record."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from connectors.http_messages import Request, Response
from connectors.keys import KeyRing
from connectors.tokens import TokenMinter, TokenOpener
from schemas.catalog import Experiment
from schemas.decisions import Degraded, Outcome
from schemas.events import BY_CODE
from schemas.ids import decode_id
from serving.adserver.doors.ads_manager import AdsManager
from serving.adserver.inventory import Inventory
from serving.adserver.markup.adopt import outside_ads
from serving.adserver.markup.trackers import TrackerMaker
from serving.adserver.settings import Settings
from tests.samples.adserver import COLLECTOR_URL, NOW_S, KeptLog, PlannedStore, catalog
from tests.samples.outside_vast import document

HOST = "https://t.test"
ADS = [{"id": "a", "pricing": "cpm", "bid_micros": 1}]


class Door:
    """The door over a planned store."""

    def __init__(
        self,
        secrets: Path,
        store: PlannedStore | None = None,
        experiments: Sequence[Experiment] = (),
        log: KeptLog | None = None,
        **settings: Any,
    ) -> None:
        self.keys = KeyRing.load(secrets)
        self.store = store or PlannedStore()
        self.log = log or KeptLog()
        inventory = Inventory(replace(catalog(ADS), experiments=list(experiments)))
        trackers = TrackerMaker(TokenMinter(self.keys), COLLECTOR_URL, 3600)
        self._door = AdsManager(
            self.store,  # type: ignore[arg-type]
            trackers,
            self.keys,
            lambda: inventory,
            Settings(**settings),
            lambda: float(NOW_S),
            self.log,  # type: ignore[arg-type]
        )

    def post(self, body: str, query: str = "placement=pl-video&user=someone") -> Response:
        return asyncio.run(self._door(Request("POST", "/ads-manager/vast", query.encode(), {}, body.encode(), "")))

    def get(self, query: str) -> Response:
        return asyncio.run(self._door(Request("GET", "/ads-manager/vast", query.encode(), {}, b"", "")))


def _tokens(door: Door, body: bytes) -> dict[tuple[str, int, bytes], str]:
    """(event, ordinal, record) to URL of every tracker of ours; each once."""
    opener, found = TokenOpener(door.keys), {}
    for element in etree.fromstring(body).iter(etree.Element):
        text = element.text or ""
        if text.startswith(COLLECTOR_URL):
            claims = opener.open(text.rpartition("/t/")[2].partition("?")[0])
            key = (BY_CODE[claims.event_code].name, claims.ordinal, claims.record_id)
            assert key not in found, "one token per event"
            found[key] = text
    return found


def test_fifty_trackers_become_one_token_per_event(tmp_path: Path) -> None:
    door = Door(tmp_path)
    said = document(HOST, 4)
    answer = door.post(said)
    (record,) = door.store.records
    body = answer.body.decode()
    assert answer.status == 200 and HOST not in body and said.count(HOST) == 4 * 17 > 50
    assert sorted(u for urls in record.trackers.values() for u in urls) == sorted(
        e.text for e in etree.fromstring(said).iter(etree.Element) if (e.text or "").startswith(HOST)
    )
    tokens = _tokens(door, answer.body)
    assert {raw for _, _, raw in tokens} == {decode_id(record.record_id)}
    said_of = {(event, ordinal) for event, ordinal, _ in tokens}
    for key in record.trackers:
        event, _, ordinal = key.partition(":")
        assert (event, int(ordinal or 0)) in said_of, "what is in the record can happen"
    assert {"progress:25", "impression", "viewable", "click", "error", "first_quartile"} <= record.trackers.keys()
    names = sorted(url.partition("?name=")[2] for (event, _, _), url in tokens.items() if event == "custom")
    assert names == sorted(
        [
            "companion.1.click",
            "creativeView",
            "notViewable",
            "progress%2000%3A00%3A07",
            "unmute",
            "verification.1.verificationNotExecuted",
        ]
    )
    for kept in ("https://v.test/omid.js", "https://m.test/a.mp4", "https://brand.test/", "CNPA0484000H", "out-0"):
        assert kept in body


def test_what_it_costs_and_whose_it_is_comes_from_the_document_or_the_query(tmp_path: Path) -> None:
    door = Door(tmp_path)
    door.post(document(HOST, 1))
    door.post(document(HOST, 1).replace("4.5</Pricing>", "?</Pricing>"), "placement=pl-video&campaign=c&advertiser=a")
    first, second = door.store.records
    assert (first.impression_cost_micros, first.currency, first.pricing) == (4_500, "USD", "cpm")
    assert (first.advertiser_id, first.campaign_id) == ("m-Brand", "m-Other-out-0")
    assert (first.creative_id, first.creative_length_s) == ("m-Other-CNPA0484000H", 30)
    assert first.placement_id == "pl-video" and first.user_pseudonym == door.keys.pseudonym("someone")
    assert (second.impression_cost_micros, second.advertiser_id, second.campaign_id) == (0, "a", "c")


@pytest.mark.parametrize("version", ["2.0", "3.0", "4.1", "4.2"])
def test_every_ad_of_a_pod_has_a_record_of_its_own(tmp_path: Path, version: str) -> None:
    door = Door(tmp_path)
    answer = door.post(document(HOST, 1, version, (1, 2, 3)))
    assert len({r.record_id for r in door.store.records}) == 3
    assert [a.get("sequence") for a in etree.fromstring(answer.body)] == ["1", "2", "3"]
    per_ad = [urls for r in door.store.records for urls in r.trackers["impression"]]
    assert per_ad == [f"{HOST}/impression?n=0&ad={n}" for n in (1, 2, 3)]
    assert HOST not in answer.body.decode()


def test_a_wrapper_stays_one(tmp_path: Path) -> None:
    door = Door(tmp_path)
    wrapper = (
        "<VAST version='3.0'><Ad><Wrapper><AdSystem>w</AdSystem><VASTAdTagURI>https://next.test/</VASTAdTagURI>"
        f"<Impression>{HOST}/i</Impression><Creatives/></Wrapper></Ad></VAST>"
    )
    root = etree.fromstring(door.post(wrapper).body)
    assert root.findtext("Ad/Wrapper/VASTAdTagURI") == "https://next.test/"
    assert root.findtext("Ad/Wrapper/Impression").startswith(COLLECTOR_URL)
    assert len(list(root.iter("Tracking"))) == 18, "quartiles and progress of whatever is wrapped"
    assert door.store.records[0].trackers == {"impression": [f"{HOST}/i"]}


def test_without_the_registry_the_document_is_answered_as_it_came(tmp_path: Path) -> None:
    door = Door(tmp_path, PlannedStore(writes=False))
    said = document(HOST, 1)
    answer = door.post(said)
    assert answer.body.decode() == said
    assert ("X-Headwater-Reason", str(int(Degraded.REGISTRY_UNAVAILABLE))) in answer.headers


def test_every_ad_is_a_decision_in_the_log_in_the_cells_of_its_viewer(tmp_path: Path) -> None:
    door = Door(tmp_path, experiments=[Experiment("x", "salt")])
    door.post(document(HOST, 1, sequences=(1, 2)))
    assert [d["record_id"] for d in door.log.decisions] == [r.record_id for r in door.store.records]
    for decided, record in zip(door.log.decisions, door.store.records, strict=True):
        assert decided["experiments"] == record.experiments == {"x": "treated"}
        assert (decided["winner_campaign_id"], decided["price_cpm_micros"]) == (record.campaign_id, 4_500_000)
        assert [(c["kind"], c["reason"]) for c in decided["candidates"]] == [("outside", Outcome.WON)]


@pytest.mark.parametrize("writes", [True, False])
def test_a_campaign_that_is_held_back_is_taken_out_and_logged_as_a_ghost(tmp_path: Path, writes: bool) -> None:
    held = Experiment("x", "salt", hold_out_basis_points=10_000, campaign_ids=["cmp-a"])
    door = Door(tmp_path, PlannedStore(writes=writes), experiments=[held])
    answer = door.post(document(HOST, 1), "placement=pl-video&user=someone&campaign=cmp-a")
    assert answer.status == 200 and b"<Ad" not in answer.body and not door.store.records
    assert ("X-Headwater-Reason", str(int(Degraded.NO_CANDIDATE))) in answer.headers
    (decided,) = door.log.decisions
    assert decided["winner_campaign_id"] is None and decided["record_id"] is None
    assert [(c["campaign_id"], c["reason"]) for c in decided["candidates"]] == [("cmp-a", Outcome.GHOST)]
    assert door.post(document(HOST, 1)).body.count(b"<Ad ") == 1, "others are shown"


def test_what_is_not_counted_is_logged_without_a_record_and_a_test_not_at_all(tmp_path: Path) -> None:
    door = Door(tmp_path, PlannedStore(writes=False))
    door.post(document(HOST, 1))
    door.post('<VAST version="4.2"/>')
    uncounted, empty = door.log.decisions
    assert uncounted["record_id"] is None and uncounted["reasons"] == [Degraded.REGISTRY_UNAVAILABLE]
    assert empty["winner_campaign_id"] is None and empty["reasons"] == [Degraded.NO_CANDIDATE]
    other = Door(tmp_path)
    assert other.post(document(HOST, 1), "placement=pl-video&test=1").body.decode() == document(HOST, 1)
    assert not other.log.decisions and not other.store.records


def test_what_is_no_address_stays_where_it_is() -> None:
    said = document(HOST, 1).replace(f"{HOST}/start?n=0&amp;ad=0", "urn:x")
    _, (ad,) = outside_ads(said.encode(), 100_000)
    assert "start" not in ad.trackers
    assert any(e.text == "urn:x" for e in ad.body.iter(etree.Element))


def test_more_events_than_a_token_can_tell_apart_stay_in_the_document() -> None:
    many = "".join(f'<Tracking event="own{n}">{HOST}/{n}</Tracking>' for n in range(300))
    first = '<Tracking event="start"'
    said = document(HOST, 1).replace(first, many + first)
    _, (ad,) = outside_ads(said.encode(), 100_000)
    assert len(ad.custom) == 255 and max(ad.custom.values()) == 255
    left = [e.text for e in ad.body.iter(etree.Element) if (e.text or "").startswith(HOST)]
    moved = [u for urls in ad.trackers.values() for u in urls]
    assert {f"{HOST}/{n}" for n in range(300)} <= {*left, *moved}


def test_ids_of_the_query_are_fit_for_markup(tmp_path: Path) -> None:
    door = Door(tmp_path)
    answer = door.post(
        document(HOST, 1), "placement=pl-video&campaign=c%00%3C&creative=%ff&advertiser=a%0Ab&line_item=l"
    )
    (record,) = door.store.records
    assert answer.status == 200 and (record.campaign_id, record.advertiser_id) == ("c <", "a b")


def test_who_asks_wrongly_is_told(tmp_path: Path) -> None:
    door = Door(tmp_path, outside_addresses=["https://ads.test/vast"])
    assert door.post("<html/>").status == 400 and door.post(document(HOST), "user=x").status == 400
    for url in ("", "https://evil.test/", "https://ads.test.evil.test/vast", "https://ads.test/vast2", "file:///etc"):
        assert door.get(f"placement=pl-video&url={url}").status == 400
    assert not door.store.records
