"""Who enters an imp is remembered, and never longer than it holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from connectors.keys import KeyRing
from schemas.catalog import Bidder
from schemas.decisions import Outcome
from serving.adserver import inventory as inventory_module
from serving.adserver.auction.contest import Contest, contests_of, could_win
from serving.adserver.auction.rates import Rates
from serving.adserver.inventory import Inventory
from serving.adserver.openrtb.context import opportunities, resolve
from serving.adserver.openrtb.messages import decode_request, decode_response
from tests.samples.adserver import DOLLAR, NOW_S, VAST_MARKUP, bid_request, catalog

NOW_MS = NOW_S * 1000
HOUR_MS = 3_600_000
AD = {"pricing": "cpm", "bid_micros": DOLLAR}


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.load(tmp_path / "secrets")


@pytest.fixture
def inventory() -> Inventory:
    """Always there; from an hour ahead; until an hour ahead; paused."""
    ads = [{"id": name, **AD} for name in ("always", "soon", "ending", "paused")]
    made = catalog(ads)
    changes = {"soon": {"start_ms": NOW_MS + HOUR_MS}, "ending": {"end_ms": NOW_MS + HOUR_MS}}
    changes["paused"] = {"status": "paused"}
    campaigns = [dataclasses.replace(c, **changes.get(c.id.removeprefix("cmp-"), {})) for c in made.campaigns]
    return Inventory(dataclasses.replace(made, campaigns=campaigns))


def _contest(inventory: Inventory, ring: KeyRing, at_ms: int, **changes: object) -> Contest:
    body = json.dumps(bid_request(**changes)).encode()
    request = decode_request(body)
    context = resolve(request, ring, at_ms, body=body)
    return contests_of(opportunities(request, inventory), inventory, context)[0]


def _active(contest: Contest) -> set[str]:
    return {c.creative_id.removeprefix("cr-") for _, c in contest.internal if c.outcome is not Outcome.NOT_ACTIVE}


def test_a_campaign_enters_from_its_beginning_to_its_end(inventory: Inventory, ring: KeyRing) -> None:
    at_ms = (NOW_MS, NOW_MS + HOUR_MS - 1, NOW_MS + HOUR_MS, NOW_MS)
    found = [_active(_contest(inventory, ring, ms)) for ms in at_ms]
    before, after = {"always", "ending"}, {"always", "soon"}
    assert found == [before, before, after, before]


def test_what_one_imp_does_to_its_candidates_no_other_sees(inventory: Inventory, ring: KeyRing) -> None:
    first = _contest(inventory, ring, NOW_MS)
    for _, candidate in first.internal:
        candidate.outcome, candidate.bid_cpm_micros = Outcome.BUDGET, 1
    second = _contest(inventory, ring, NOW_MS)
    assert _active(second) == {"always", "ending"}
    assert all(c.bid_cpm_micros == 0 for _, c in second.internal)
    assert all(c.row is row for row, c in second.internal)


def test_what_is_remembered_is_bounded(ring: KeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty creatives of 400 bytes: there is room for about five shapes of imps, and they come by the hundred."""
    most_bytes = 100_000
    monkeypatch.setattr(inventory_module, "_MOST_KEPT_BYTES", most_bytes)
    large = Inventory(catalog([{"id": f"a{n}", **AD} for n in range(40)]))
    usual = _contest(large, ring, NOW_MS).internal[0][1]
    for n in range(100):
        imp = [{"id": "1", "tagid": "pl-video", "video": {"mimes": ["video/mp4"], "maxduration": 100 + n}}]
        _contest(large, ring, NOW_MS, imp=imp)
        assert _contest(large, ring, NOW_MS).internal[0][1].named is usual.named
        kept = sum(entrants.kept_bytes + len(shape) for shape, entrants in large._entrants.items())
        assert kept == large._kept_bytes <= most_bytes
    assert 2 <= len(large._entrants) <= 6


def test_imps_of_another_shape_have_their_own_field(inventory: Inventory, ring: KeyRing) -> None:
    assert all(c.runs for row, c in _contest(inventory, ring, NOW_MS).internal if row.runs_at(NOW_MS))
    short = [{"id": "1", "tagid": "pl-video", "video": {"mimes": ["video/mp4"], "maxduration": 5}}]
    other = _contest(inventory, ring, NOW_MS, imp=short)
    assert {c.outcome for row, c in other.internal if row.runs_at(NOW_MS)} == {Outcome.FORMAT}


def test_a_late_bid_could_win_if_it_is_right_and_above_the_floor(ring: KeyRing) -> None:
    inventory = Inventory(catalog([], floor_cpm_micros=2 * DOLLAR))
    contest = _contest(inventory, ring, NOW_MS, badv=["blocked.example"])
    bid = {"impid": "1", "crid": "c", "adm": VAST_MARKUP, "mtype": 2, "adomain": ["brand.example"], "price": 1.5}
    changes = [{"price": 1.0}, {"adomain": ["blocked.example"]}, {"impid": "2"}, {"price": 1.6}]
    bids = [bid | change | {"id": str(n)} for n, change in enumerate(changes)]
    response = decode_response(json.dumps({"id": "req-1", "cur": "EUR", "seatbid": [{"bid": bids}]}).encode())
    found = could_win([contest], response, Bidder("dsp", "http://dsp.test/"), Rates("USD", {"EUR": 1_250_000}), 100_000)
    assert [(imp_id, c.bid_cpm_micros) for imp_id, c in found] == [("1", 2 * DOLLAR)], "1.60 EUR are 2.00 USD"
