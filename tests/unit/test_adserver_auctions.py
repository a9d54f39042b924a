"""One JSON file is one auction: tests/golden/adserver. `exemplary` ends with an ad sold, `rejects` without."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.decisions import Degraded
from serving.adserver.decision import Decision
from serving.adserver.openrtb.messages import decode_request
from tests.samples.adserver import KeptLog, PlannedBidders, PlannedStore, bid_request, decider, user_blob

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "adserver"
CASES = sorted(GOLDEN.glob("*/*.json"))
KEYS = {
    "why",
    "ads",
    "floor_cpm_micros",
    "request",
    "user_counters",
    "household_counters",
    "store",
    "dsps",
    "log",
    "expected",
}
STORE_KEYS = {"spend_micros", "reads", "writes", "refused_budgets"}
EXPECTED_KEYS = {"winner", "price_cpm_micros", "outcomes", "reasons", "costs", "propensity"}


def _run(case: dict[str, Any], secrets: Path) -> tuple[list[Decision], PlannedStore, KeptLog]:
    seen = [user_blob(case.get(name, ())) for name in ("user_counters", "household_counters")]
    store = PlannedStore(*seen, **case.get("store", {}))
    log = KeptLog(case.get("log", True))
    made, _ = decider(
        secrets,
        case["ads"],
        store,
        PlannedBidders(case.get("dsps", {})),
        log,
        case.get("floor_cpm_micros", 0),
    )
    request = decode_request(msgspec.json.encode(bid_request(**case.get("request", {}))))

    async def run() -> list[Decision]:
        return await made.decide(request, asyncio.get_running_loop().time())

    return asyncio.run(run()), store, log


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_auction_ends_as_its_case_says(path: Path, tmp_path: Path) -> None:
    case = json.loads(path.read_text())
    expected = case["expected"]
    assert case.keys() <= KEYS and case.get("store", {}).keys() <= STORE_KEYS, "unknown key in the case"
    assert expected.keys() <= EXPECTED_KEYS and len(case["why"]) > 20
    (decision,), store, log = _run(case, tmp_path)
    winner = decision.winner
    assert (winner.creative_id if winner else None) == expected["winner"]
    assert sorted(r.name for r in decision.reasons) == sorted(expected["reasons"])
    found = {(c.creative_id or c.bidder_id): c.outcome.name for c in decision.candidates}
    assert found == expected["outcomes"]
    if winner is not None:
        assert winner.bid_cpm_micros == expected["price_cpm_micros"]
        assert decision.propensity == pytest.approx(expected.get("propensity", 1.0))
        recorded = Degraded.REGISTRY_UNAVAILABLE not in decision.reasons
        assert (decision.record is not None) == recorded == bool(decision.trackers)
        if decision.record is not None:
            assert store.records == [decision.record]
            costs = [decision.record.impression_cost_micros, decision.record.click_cost_micros]
            assert costs == expected["costs"]
    if path.parent.name == "exemplary":
        assert winner is not None and winner.pricing != "house"
    assert len(log.decisions) == (1 if case.get("log", True) else 0)


def test_both_folders_have_cases() -> None:
    assert {p.parent.name for p in CASES} == {"exemplary", "rejects"}
    assert not [p for p in GOLDEN.rglob("*") if p.is_file() and p not in CASES], "files that are no case"
