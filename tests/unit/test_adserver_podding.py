"""Pods through the whole decision: what is sold, written down and answered for structured, dynamic and hybrid pods."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lxml import etree

from schemas.catalog import Catalog
from schemas.decisions import Degraded, Outcome
from serving.adserver import podding
from serving.adserver.auction import pods
from serving.adserver.auction.pods import MOST_STEPS
from serving.adserver.decider import Decider
from serving.adserver.decision import Decision
from serving.adserver.inventory import Inventory
from serving.adserver.markup import vast
from serving.adserver.openrtb.messages import BidRequest, decode_request
from tests.samples.adserver import DOLLAR, KeptLog, PlannedBidders, PlannedStore, bid_request, catalog, decider

VIDEO = {"mimes": ["video/mp4"]}


def _ad(name: str, cpm: int, seconds: int = 15, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "pricing": "cpm",
        "bid_micros": cpm * DOLLAR,
        "creative": {"duration_s": seconds},
    } | more


def _imp(imp_id: str, **video: Any) -> dict[str, Any]:
    return {"id": imp_id, "tagid": "pl-video", "video": VIDEO | video}


def _decide(
    secrets: Path,
    ads: list[dict[str, Any]],
    imps: list[dict[str, Any]],
    store: PlannedStore | None = None,
    dsps: dict[str, Any] | None = None,
) -> tuple[list[Decision], PlannedStore, KeptLog]:
    store, log = store or PlannedStore(), KeptLog()
    made, _ = decider(secrets, ads, store, PlannedBidders(dsps or {}), log)
    request = decode_request(msgspec.json.encode(bid_request(imp=imps)))

    async def run() -> list[Decision]:
        return await made.decide(request, asyncio.get_running_loop().time())

    return asyncio.run(run()), store, log


def _shown(decisions: list[Decision]) -> list[tuple[str, str, int]]:
    return [(d.opportunity.imp.id, d.winner.creative_id, d.sequence) for d in decisions if d.winner is not None]


def test_a_dynamic_pod_earns_more_than_its_dearest_ad(tmp_path: Path) -> None:
    ads = [_ad("long", 12, 30), _ad("a", 9), _ad("b", 8), _ad("c", 1)]
    decisions, store, log = _decide(tmp_path, ads, [_imp("1", poddur=30, maxseq=3)])
    assert _shown(decisions) == [("1", "cr-a", 1), ("1", "cr-b", 2)]
    assert [r.creative_id for r in store.records] == ["cr-a", "cr-b"]
    assert len({r.record_id for r in store.records}) == 2 == len(log.decisions)
    entries = [c["creative_id"] for d in log.decisions for c in d["candidates"]]
    assert sorted(entries) == ["cr-a", "cr-b", "cr-c", "cr-long"], "everybody is in the log once"


def test_a_pod_is_one_document_with_sequences_and_tokens_of_each_ad(tmp_path: Path) -> None:
    imp = _imp("1", poddur=60, maxseq=2)
    decisions, store, _ = _decide(tmp_path, [_ad("a", 9), _ad("b", 8)], [imp])
    document = vast.answer([d.markup for d in decisions], decisions[0].opportunity.imp, is_pod=True)
    root = etree.fromstring(document.encode())
    ads = [(a.get("sequence"), a.get("id")) for a in root]
    assert ads == [("1", store.records[0].record_id), ("2", store.records[1].record_id)]
    impressions = [e.text for e in root.iter(f"{{{vast.NAMESPACE}}}Impression")]
    assert len(set(impressions)) == 2


def test_one_advertiser_is_shown_once_in_a_pod_whoever_brings_it(tmp_path: Path) -> None:
    linear = "<Creatives><Creative><Linear><Duration>00:00:15</Duration></Linear></Creative></Creatives>"
    markup = f"<VAST version='4.0'><Ad><InLine>{linear}</InLine></Ad></VAST>"
    bid = {"id": "b", "impid": "1", "price": 20.0, "adm": markup, "crid": "c", "adomain": ["A.example"], "mtype": 2}
    dsps = {"d": {"response": {"id": "req-1", "seatbid": [{"bid": [bid]}]}}}
    decisions, _, _ = _decide(tmp_path, [_ad("a", 9), _ad("b", 8)], [_imp("1", poddur=60, maxseq=4)], dsps=dsps)
    assert [w for _, w, _ in _shown(decisions)] == ["x-d-c", "cr-b"], "its length is read from its markup"
    outcomes = {c.creative_id: c.outcome for d in decisions for c in d.candidates}
    assert outcomes["cr-a"] is Outcome.POD_SEPARATION


def _rivals(ads: list[dict[str, Any]]) -> Catalog:
    """A market whose first two advertisers have a label in common."""
    made = catalog(ads)
    advertisers = [replace(a, exclusion_labels=["cars"]) if n < 2 else a for n, a in enumerate(made.advertisers)]
    return replace(made, advertisers=advertisers)


def test_rivals_are_kept_apart_in_a_pod_and_on_a_page(tmp_path: Path) -> None:
    ads = [_ad("a", 9), _ad("b", 8), _ad("c", 7)]
    for imps in ([_imp("1", poddur=30, maxseq=2)], [_imp("1"), _imp("2")]):
        store = PlannedStore()
        made, serving = decider(tmp_path, ads, store)
        serving.inventory = Inventory(_rivals(ads))
        request = decode_request(msgspec.json.encode(bid_request(imp=imps)))

        async def run(made: Decider = made, request: BidRequest = request) -> list[Decision]:
            return await made.decide(request, asyncio.get_running_loop().time())

        decisions = asyncio.run(run())
        assert [r.creative_id for r in store.records] == ["cr-a", "cr-c"]
        assert Outcome.POD_SEPARATION in {c.outcome for d in decisions for c in d.candidates if c.creative_id == "cr-b"}


def test_a_structured_pod_gives_each_slot_another_advertiser(tmp_path: Path) -> None:
    ads = [_ad("a", 9), _ad("b", 8, 30), _ad("c", 7), _ad("d", 6, 30)]
    imps = [
        _imp("1", podid="p", maxduration=15),
        _imp("2", podid="p", maxduration=30),
        _imp("3", podid="p", minduration=30),
    ]
    decisions, _, _ = _decide(tmp_path, ads, imps)
    assert [(imp, n) for imp, _, n in _shown(decisions)] == [("1", 1), ("2", 2), ("3", 3)]
    assert len({c for _, c, _ in _shown(decisions)}) == 3
    assert sum(d.winner.bid_cpm_micros for d in decisions if d.winner) == 24 * DOLLAR


def test_a_hybrid_pod_shares_its_rivals_and_keeps_its_order(tmp_path: Path) -> None:
    ads = [_ad("a", 9), _ad("b", 8), _ad("c", 7)]
    imps = [
        _imp("dynamic", podid=7, poddur=30, maxseq=2, slotinpod=-1),
        _imp("fixed", podid=7, maxduration=15, slotinpod=1),
    ]
    decisions, _, _ = _decide(tmp_path, ads, imps)
    shown = _shown(decisions)
    assert [(imp, n) for imp, _, n in shown] == [("fixed", 1), ("dynamic", 2), ("dynamic", 3)]
    assert {c for _, c, _ in shown} == {"cr-a", "cr-b", "cr-c"}


def test_a_refused_budget_makes_room_in_the_pod(tmp_path: Path) -> None:
    store = PlannedStore(refused_budgets=["cmp-a"])
    decisions, store, _ = _decide(
        tmp_path, [_ad("a", 9), _ad("b", 8), _ad("c", 7)], [_imp("1", poddur=30, maxseq=2)], store
    )
    assert [w for _, w, _ in _shown(decisions)] == ["cr-b", "cr-c"]
    outcomes = {c.creative_id: c.outcome for d in decisions for c in d.candidates}
    assert outcomes["cr-a"] is Outcome.RESERVATION_LOST


@pytest.mark.parametrize(("per_second", "shown"), [(0.5, ["cr-a"]), (0.7, [])])
def test_seconds_have_a_floor(tmp_path: Path, per_second: float, shown: list[str]) -> None:
    imp = _imp("1", poddur=60, maxseq=4, mincpmpersec=per_second)
    decisions, _, _ = _decide(tmp_path, [_ad("a", 9), _ad("b", 7)], [imp])
    assert [w for _, w, _ in _shown(decisions)] == shown


def test_house_ads_of_a_pod_do_not_repeat_a_creative(tmp_path: Path) -> None:
    ads = [_ad("a", 9), *(_ad(f"h{n}", 0, pricing="house") for n in range(2))]
    imps = [_imp(str(n), podid="p", maxduration=15) for n in range(4)]
    decisions, _, _ = _decide(tmp_path, ads, imps)
    shown = [creative for _, creative, _ in _shown(decisions)]
    assert sorted(shown) == ["cr-a", "cr-h0", "cr-h1"], "the fourth slot stays empty"
    assert [d.sequence for d in decisions if d.winner is not None] == [1, 2, 3]


@pytest.mark.parametrize(("late_s", "searched"), [(0.0, True), (1.0, False)])
def test_a_pod_that_is_short_of_time_takes_the_dearest(
    late_s: float, searched: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[int] = []

    def fill(sections: Any, most_steps: int = MOST_STEPS) -> Any:
        allowed.append(most_steps)
        return pods.fill(sections, most_steps)

    monkeypatch.setattr(podding, "fill", fill)
    made, _ = decider(tmp_path, [_ad("a", 9), _ad("b", 8)])
    request = decode_request(msgspec.json.encode(bid_request(imp=[_imp("1", poddur=30, maxseq=2)])))

    async def run() -> list[Decision]:
        return await made.decide(request, asyncio.get_running_loop().time() - late_s)

    assert len(_shown(asyncio.run(run()))) == 2
    assert (allowed[0] > 0) == searched


def test_a_pod_of_any_length_is_given_a_bounded_number_of_ads(tmp_path: Path) -> None:
    ads = [_ad(f"a{n}", 5) for n in range(200)]
    imps = [_imp(str(n), podid="p", poddur=999_999, maxseq=1_000) for n in range(4)]
    assert len(_shown(_decide(tmp_path, ads, imps)[0])) == 64
    assert len(_shown(_decide(tmp_path, ads, imps[:1])[0])) == podding.MOST_ADS


def test_without_the_registry_a_pod_shows_the_house_and_charges_nobody(tmp_path: Path) -> None:
    ads = [_ad("a", 9), _ad("h", 0, pricing="house")]
    decisions, store, _ = _decide(tmp_path, ads, [_imp("1", poddur=60)], PlannedStore(writes=False))
    assert [w for _, w, _ in _shown(decisions)] == ["cr-h"] and not store.records
    assert decisions[0].reasons >= {Degraded.REGISTRY_UNAVAILABLE, Degraded.HOUSE_AD}
