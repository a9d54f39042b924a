"""One JSON file is one auction, from the request's bytes to the answer: tests/golden/adserver.

`exemplary` ends with an ad sold, `supplemental` with every other way an auction can go. Keys of a case:

| key | what |
| --- | --- |
| why | the arithmetic or the rule, in words |
| request | changes to `samples.adserver.bid_request`; null takes a field away |
| ads, floor_cpm_micros, catalog | the market: one campaign per ad; deals and rates |
| dsps | answers by id: `response`, or `bids` (what differs from a valid bid), or `outcome`; `row` of its file |
| user_counters, household_counters, store, log, settings | what is known, what fails, how the server is set |
| expected | of one imp: winner, price_cpm_micros, outcomes, reasons, costs, propensity; of all: see `EXPECTED_KEYS` |
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.http_messages import Request
from schemas.catalog import Catalog, Deal
from schemas.decisions import Degraded
from serving.adserver.decider import Decider
from serving.adserver.decision import Decision
from serving.adserver.doors.app import Doors
from serving.adserver.overload import Overload
from tests.samples.adserver import (
    NATIVE_MARKUP,
    VAST_MARKUP,
    KeptLog,
    PlannedBidders,
    PlannedStore,
    bid_request,
    decider,
    user_blob,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "adserver"
CASES = sorted(GOLDEN.glob("*/*.json"))
KEYS = {
    *("why", "ads", "floor_cpm_micros", "catalog", "request", "user_counters", "household_counters"),
    *("store", "dsps", "log", "settings", "expected"),
}
STORE_KEYS = {"spend_micros", "reads", "writes", "refused_budgets"}
OF_IMP_KEYS = {"winner", "price_cpm_micros", "outcomes", "reasons", "costs", "propensity"}
#: status and path of the HTTP answer; `response` (a part of) its JSON; `imps` what is expected by imp; `outbound` a
#: part of what a DSP was sent, null when it was not asked, and a field that is null must not be in it; `notices` URLs
#: that were called; `pod` all that is shown, in playing order: [imp, creative, place in its pod]; `lost` outcomes of
#: those who are not, in whichever imp, by creative; `record` fields of the registry's record; `markup` texts that the
#: first imp's markup has; `taken_back` how many wins were written down and not answered.
EXPECTED_KEYS = OF_IMP_KEYS | {
    "status",
    "path",
    "response",
    "imps",
    "outbound",
    "notices",
    "record",
    "markup",
    "pod",
    "lost",
    "taken_back",
}
MARKUPS = {"banner": "<a>ad</a>", "video": VAST_MARKUP, "audio": VAST_MARKUP, "native": NATIVE_MARKUP}
MTYPES = {"banner": 1, "video": 2, "audio": 3, "native": 4}


class Watched(Decider):
    """A decider that keeps its decisions."""

    decisions: tuple[Decision, ...] = ()

    async def decide(self, *asked: Any, **named: Any) -> list[Decision]:
        decided = await super().decide(*asked, **named)
        self.decisions = tuple(decided)
        return decided

    def refuse(self, request: Any, reason: Degraded, arrived_s: float, body: bytes = b"") -> list[Decision]:
        refused = super().refuse(request, reason, arrived_s, body)
        self.decisions = tuple(refused)
        return refused


def _dsp(said: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """A planned answer; `bids` says only how each differs from a bid that is valid for its imp."""
    planned = {name: value for name, value in said.items() if name != "bids"}
    if "bids" not in said:
        return planned
    formats = {imp["id"]: next(f for f in MTYPES if f in imp) for imp in request["imp"]}
    bids = []
    for i, differs in enumerate(said["bids"]):
        ad_format = formats.get(differs.get("impid", request["imp"][0]["id"]), "video")
        ad_format = next((f for f, mtype in MTYPES.items() if mtype == differs.get("mtype")), ad_format)
        bid = {
            "id": f"b{i}",
            "impid": request["imp"][0]["id"],
            "price": 5.0,
            "crid": f"c{i}",
            "adomain": ["brand.example"],
            "mtype": MTYPES[ad_format],
            "adm": MARKUPS[ad_format],
        } | differs
        bids.append({name: value for name, value in bid.items() if value is not None})
    seat = {"seat": said.get("seat", "s1"), "bid": bids} | ({"group": said["group"]} if "group" in said else {})
    answer = {"id": said.get("id", request["id"]), "cur": said.get("cur", "USD"), "bidid": "bid-1", "seatbid": [seat]}
    return planned | {"response": answer}


def _run(case: Mapping[str, Any], secrets: Path) -> tuple[Watched, Any, PlannedStore, PlannedBidders, KeptLog, list]:
    seen = [user_blob(case.get(name, ())) for name in ("user_counters", "household_counters")]
    store, log, notices = PlannedStore(*seen, **case.get("store", {})), KeptLog(case.get("log", True)), []
    asked = {"tmax": 1000} | case.get("request", {})  # no case is about a machine that stands still for 150 ms
    data = {name: value for name, value in bid_request(**asked).items() if value is not None}
    bidders = PlannedBidders({name: _dsp(said, data) for name, said in case.get("dsps", {}).items()})
    changes: dict[str, Any] = dict(case.get("catalog", {}))
    if "deals" in changes:
        changes["deals"] = [Deal(**deal) for deal in changes["deals"]]
    made, serving = decider(
        secrets,
        case.get("ads", ()),
        store,
        bidders,
        log,
        case.get("floor_cpm_micros", 0),
        changes=changes,
        settings=case.get("settings", {}),
        notify=notices.append,
        kind=Watched,
    )
    assert isinstance(made, Watched)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(40.0, 100))

    async def run() -> Any:
        return await doors.handle(Request("POST", "/openrtb2/auction", b"", {}, msgspec.json.encode(data), ""))

    return made, asyncio.run(run()), store, bidders, log, notices


def _part_of(expected: Any, found: Any, path: str = "$") -> None:
    """Whether what is expected is in what was found; null means that it must not be there."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), f"{path}: {found!r}"
        for name, value in expected.items():
            if value is None:
                assert found.get(name) is None, f"{path}.{name}: {found[name]!r}"
            else:
                assert name in found, f"{path}.{name} is not there"
                _part_of(value, found[name], f"{path}.{name}")
    elif isinstance(expected, list) and isinstance(found, list):
        assert len(expected) == len(found), f"{path}: {found!r}"
        for i, (e, f) in enumerate(zip(expected, found, strict=True)):
            _part_of(e, f, f"{path}[{i}]")
    else:
        assert found == expected, path


def _as_expected_of_imp(expected: Mapping[str, Any], decision: Decision) -> None:
    assert expected.keys() <= OF_IMP_KEYS
    winner = decision.winner
    assert (winner.creative_id if winner else None) == expected["winner"]
    assert sorted(r.name for r in decision.reasons) == sorted(expected.get("reasons", ()))
    found = {(c.creative_id or c.bidder_id): c.outcome.name for c in decision.candidates}
    assert found == expected["outcomes"]
    if winner is None:
        return
    assert winner.price_cpm_micros == expected["price_cpm_micros"]
    assert decision.propensity == pytest.approx(expected.get("propensity", 1.0))
    if decision.record is not None and "costs" in expected:
        costs = [decision.record.impression_cost_micros, decision.record.click_cost_micros]
        if decision.record.view_cost_micros or len(expected["costs"]) > 2:
            costs.append(decision.record.view_cost_micros)
        assert costs == expected["costs"]


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_auction_ends_as_its_case_says(path: Path, tmp_path: Path) -> None:
    case = json.loads(path.read_text())
    expected = case["expected"]
    assert case.keys() <= KEYS and case.get("store", {}).keys() <= STORE_KEYS, "unknown key in the case"
    assert expected.keys() <= EXPECTED_KEYS and len(case["why"]) > 20
    assert case.get("catalog", {}).keys() <= {f for f in Catalog.__dataclass_fields__}
    made, answer, store, bidders, log, notices = _run(case, tmp_path)
    decisions = made.decisions
    if "winner" in expected:
        _as_expected_of_imp({k: v for k, v in expected.items() if k in OF_IMP_KEYS}, decisions[0])
    by_imp = {d.opportunity.imp.id: d for d in decisions}
    for imp_id, of_imp in expected.get("imps", {}).items():
        _as_expected_of_imp(of_imp, by_imp[imp_id])
    is_test = bid_request(**case.get("request", {})).get("test") == 1
    for decision in decisions:
        if decision.winner is not None and not is_test:
            recorded = Degraded.REGISTRY_UNAVAILABLE not in decision.reasons
            assert (decision.record is not None) == recorded == bool(decision.trackers)
    kept = [d.record for d in decisions if d.record is not None]
    if "taken_back" in expected:
        kept = sorted(kept, key=lambda record: record.imp_id)
        assert len(store.records) - len(kept) == expected["taken_back"]
        store.records = sorted((r for r in store.records if r in kept), key=lambda record: record.imp_id)
    if "pod" in expected:  # written down by what they bring, shown in playing order
        kept.sort(key=lambda record: store.records.index(record))
        ads = [(d.opportunity.imp.id, d.winner.creative_id, d.sequence) for d in decisions if d.winner is not None]
        assert [list(ad) for ad in ads] == expected["pod"]
    if "lost" in expected:
        lost = {c.creative_id: c.outcome.name for d in decisions for c in d.candidates if c is not d.winner}
        assert {name: lost[name] for name in expected["lost"]} == expected["lost"]
    assert store.records == kept
    shown = any(d.winner is not None for d in decisions)
    assert answer.status == expected.get("status", 200 if shown else 204), answer.body
    if path.parent.name == "exemplary":
        assert any(d.winner is not None and d.winner.pricing != "house" for d in decisions)
    assert len(log.decisions) == (len(decisions) if case.get("log", True) and not is_test else 0)
    body = msgspec.json.decode(answer.body) if answer.body else {}
    if "path" in expected:
        assert body["path"] == expected["path"]
    _part_of(expected.get("response", {}), body)
    for bidder_id, sent in expected.get("outbound", {}).items():
        if sent is None:
            assert bidder_id not in bidders.bodies
        else:
            _part_of(sent, msgspec.json.decode(bidders.bodies[bidder_id]))
    if "notices" in expected:
        assert sorted(notices) == sorted(expected["notices"])
    if "record" in expected:
        _part_of(expected["record"], store.records[0].as_dict())
    for text in expected.get("markup", ()):
        assert text in decisions[0].markup


def test_both_folders_have_cases() -> None:
    assert {p.parent.name for p in CASES} == {"exemplary", "supplemental"}
    assert not [p for p in GOLDEN.rglob("*") if p.is_file() and p not in CASES], "files that are no case"
