"""Whatever comes in through the doors, the answer is 200, 204 or 400, and what DSPs answer never makes it another.

Valid requests are mutated: values swapped for others of every type, fields lost, doubled, cut, bytes broken.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.http_messages import Request
from schemas.decisions import Outcome
from serving.adserver.auction import bids as bids_module
from serving.adserver.decision import Decision
from serving.adserver.doors.app import Doors
from serving.adserver.dsps import notifier
from serving.adserver.dsps.notifier import Notifier
from serving.adserver.markup import vast
from serving.adserver.openrtb.messages import decode_request, decode_response
from serving.adserver.overload import Overload
from tests.samples.adserver import NATIVE_MARKUP, VAST_MARKUP, PlannedBidders, bid_request, decider
from tests.samples.consent import gpp_string, tc_string, us_section

_GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "adserver"
_ADS = [
    {"id": "v", "pricing": "cpm", "bid_micros": 2_000_000},
    {"id": "b", "pricing": "cpc", "bid_micros": 500_000, "format": "banner"},
    {"id": "n", "pricing": "cpv", "bid_micros": 90_000, "format": "native", "creative": {"assets": {"title": "T"}}},
    {"id": "s", "pricing": "guaranteed", "bid_micros": 3_000_000, "format": "audio", "line": {"goal_impressions": 9}},
    {"id": "h", "pricing": "house", "bid_micros": 0},
]
BAD_URLS = ("http://[oops/win", f"http://{'a' * 70}.test/", "http://a:99999/", "http://a..b/", "https://[::1")
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, 1e308, -0.5, 300.0, "", "x", "1", "\x00", "\ud83d\ude00" * 40),
    *([], {}, [[]], [None], {"id": "1"}, [{"id": "1"}], ["USD"], "a" * 3000, "${AUCTION_PRICE}", "]]>", "<VAST/>"),
    *BAD_URLS,
    *(tc_string(vendors=[1]), gpp_string({8: us_section([1] * 20)}), "DBAA", "http://[", "::1", "10.0.0.1"),
)
_PARAMETERS = (
    *("placement", "user", "device", "platform", "country", "region", "ip", "ua", "lang", "session", "content", "live"),
    *("w", "h", "tmax", "opt_out", "lmt", "gpc", "us_privacy", "gpp", "gpp_sid", "coppa", "gdpr", "consent", "test"),
    *("vast", "pod_duration_s", "max_ads"),
)
_ROUNDS = 4000


def _requests() -> list[dict[str, Any]]:
    """Valid requests of every kind: those of the cases."""
    cases = [json.loads(p.read_text()).get("request", {}) for p in sorted(_GOLDEN.glob("exemplary/*.json"))]
    return [bid_request(**case) for case in cases]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _mutated(data: Any, rng: random.Random) -> bytes:
    data = json.loads(json.dumps(data))
    for _ in range(rng.randint(1, 3)):
        places = list(_places(data))
        if not places:
            break
        container, key = rng.choice(places)
        what = rng.random()
        if what < 0.15:
            del container[key]
        elif what < 0.3 and isinstance(container, list):
            container.append(json.loads(json.dumps(container[key])))
        else:
            container[key] = json.loads(json.dumps(rng.choice(_VALUES)))
    body = json.dumps(data).encode()
    if rng.random() < 0.1:
        at = rng.randrange(len(body))
        body = body[:at] if rng.random() < 0.5 else body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
    return body


def _answers(bodies: list[bytes], doors: Doors) -> list[int]:
    async def run() -> list[int]:
        found = []
        for body in bodies:
            answer = doors.handle(Request("POST", "/openrtb2/auction", b"", {}, body, ""))
            found.append((answer if not hasattr(answer, "__await__") else await answer).status)
        while notices := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.gather(*notices, return_exceptions=True)
        return found

    return asyncio.run(run())


@pytest.fixture
def notify(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A notifier for which no name leads anywhere."""

    async def nowhere(host: str, _port: int) -> str:
        raise OSError(f"{host}: no such name")

    monkeypatch.setattr(notifier, "public_address", nowhere)
    return Notifier(allow_private=False).send


def _bid(rng: random.Random, imp_id: str, markup: str, mtype: int) -> dict[str, Any]:
    return {"id": "b", "impid": imp_id, "price": rng.random() * 9, "crid": "c", "adm": markup, "mtype": mtype}


@pytest.mark.parametrize("seed", [1, 2])
def test_no_request_gets_another_answer_than_the_doors_promise(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, notify: Callable[[str], None]
) -> None:
    rng, valid = random.Random(seed), _requests()
    bodies = [_mutated(rng.choice(valid), rng) for _ in range(_ROUNDS)]
    bids = [_bid(rng, "1", markup, m) for m, markup in ((1, "<a>"), (2, VAST_MARKUP), (4, NATIVE_MARKUP))]
    for bid, url in zip(bids, BAD_URLS, strict=False):
        bid |= {"nurl": url, "lurl": url, "burl": url}
    said = {"response": {"id": "req-1", "seatbid": [{"bid": bids, "seat": "s"}]}}
    made, serving = decider(tmp_path, _ADS, bidders=PlannedBidders({"dsp": said}), notify=notify)
    statuses = _answers(bodies, Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100)))
    assert set(statuses) == {200, 204, 400}, "all three are met"
    assert not [r.message for r in caplog.records if r.exc_info], "nothing failed that somebody had to catch"


@pytest.mark.parametrize("url", BAD_URLS)
def test_no_notice_costs_the_answer(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, notify: Callable[[str], None]
) -> None:
    urls = {"nurl": url, "lurl": url, "burl": url}
    bids = [_bid(random.Random(1), "1", VAST_MARKUP, 2) | {"id": str(i), "price": 20.0 + i} | urls for i in range(2)]
    said = {"response": {"id": "req-1", "seatbid": [{"bid": bids, "seat": "s"}]}}
    made, serving = decider(tmp_path, _ADS, bidders=PlannedBidders({"dsp": said}), notify=notify)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100))
    assert _answers([msgspec.json.encode(bid_request())], doors) == [200]
    assert not [r.message for r in caplog.records if r.exc_info]


def test_a_notifier_that_fails_costs_nothing_but_the_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fails(_url: str) -> None:
        raise RuntimeError("nobody foresaw this")

    bid = _bid(random.Random(1), "1", VAST_MARKUP, 2) | {"price": 20.0, "nurl": "https://dsp.test/win"}
    said = {"response": {"id": "req-1", "seatbid": [{"bid": [bid], "seat": "s"}]}}
    made, serving = decider(tmp_path, _ADS, bidders=PlannedBidders({"dsp": said}), notify=fails)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100))
    assert _answers([msgspec.json.encode(bid_request())], doors) == [200]
    assert [r.message for r in caplog.records if r.exc_info] == ["notices failed"]


def test_a_candidate_that_fits_no_log_costs_nothing_but_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bids_module, "MOST_MICROS", 10**30)
    bid = _bid(random.Random(1), "1", VAST_MARKUP, 2) | {"price": 9e8}
    said = {"response": {"id": "req-1", "cur": "BTC", "seatbid": [{"bid": [bid], "seat": "s"}]}}
    made, serving = decider(
        tmp_path, _ADS, bidders=PlannedBidders({"dsp": said}), changes={"rates": {"BTC": 60_000_000_000}}
    )
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100))
    assert _answers([msgspec.json.encode(bid_request())], doors) == [200]
    assert [r.message for r in caplog.records] == ["decision not logged"]


def test_markup_that_fails_costs_that_winner_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made_markup = vast.with_trackers

    def fails_for_one(markup: str, *others: Any) -> str:
        if "bad one" in markup:
            raise ZeroDivisionError
        return made_markup(markup, *others)

    monkeypatch.setattr(vast, "with_trackers", fails_for_one)
    bids = [
        _bid(random.Random(1), "1", VAST_MARKUP, 2) | {"id": "next", "price": 20.0, "crid": "next"},
        _bid(random.Random(1), "1", VAST_MARKUP + "<!-- bad one -->", 2) | {"price": 30.0, "crid": "bad"},
    ]
    said = {"response": {"id": "req-1", "seatbid": [{"bid": bids, "seat": "s"}]}}
    made, _ = decider(tmp_path, _ADS, bidders=PlannedBidders({"dsp": said}))
    request = decode_request(msgspec.json.encode(bid_request()))

    async def run() -> list[Decision]:
        return await made.decide(request, asyncio.get_running_loop().time())

    (decision,) = asyncio.run(run())
    outcomes = {c.creative_id: c.outcome for c in decision.candidates if c.kind == "dsp"}
    assert outcomes == {"x-dsp-next": Outcome.WON, "x-dsp-bad": Outcome.INTERNAL_ERROR}
    assert [r.message for r in caplog.records if r.exc_info] == ["markup failed"]


def test_a_house_ad_that_fails_leaves_the_other_imps_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(vast, "inline", fails)
    made, serving = decider(tmp_path, _ADS)
    banner = {"id": "2", "tagid": "pl-banner", "banner": {"w": 300, "h": 250}}
    request = bid_request()
    request["imp"].append(banner)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100))

    async def run() -> dict[str, Any]:
        answer = doors.handle(Request("POST", "/openrtb2/auction", b"", {}, msgspec.json.encode(request), ""))
        return msgspec.json.decode((await answer).body)  # type: ignore[misc, no-any-return]

    assert [bid["impid"] for seat in asyncio.run(run())["seatbid"] for bid in seat["bid"]] == ["2"]


def test_no_answer_of_a_dsp_makes_an_auction_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, notify: Callable[[str], None]
) -> None:
    rng = random.Random(3)
    full = {"id": "req-1", "cur": "USD", "bidid": "x", "seatbid": [{"seat": "s", "group": 0, "bid": []}]}
    full["seatbid"][0]["bid"] = [
        _bid(rng, "1", VAST_MARKUP, 2)
        | {"adomain": ["a.example"], "cat": ["IAB1"], "attr": [1], "dealid": "d", "w": 1, "h": 1, "dur": 15, "exp": 9}
        | {"nurl": "https://d.example/?${AUCTION_PRICE}", "lurl": "https://d.example/l", "burl": "https://d.example/b"}
    ]
    body = msgspec.json.encode(bid_request())
    statuses = []
    for _ in range(400):
        try:
            json_answer = json.loads(_mutated(full, rng))
            decode_response(json.dumps(json_answer).encode())
        except ValueError:
            continue  # the fan-out's own turn: no response at all
        made, serving = decider(
            tmp_path, _ADS, bidders=PlannedBidders({"dsp": {"response": json_answer}}), notify=notify
        )
        statuses += _answers(
            [body], Doors(made, lambda serving=serving: serving.inventory, lambda: (True, {}), Overload(1e6, 100))
        )
    assert set(statuses) == {200} and len(statuses) > 200
    assert not [r.message for r in caplog.records if r.exc_info]


@pytest.mark.parametrize("seed", [1])
def test_no_tag_makes_the_vast_door_fail(seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    names = _PARAMETERS
    made, serving = decider(tmp_path, _ADS)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100))

    async def run() -> set[int]:
        found = set()
        for _ in range(600):
            chosen = {n: rng.choice([str(v)[:200] for v in _VALUES] + ["15", "2"]) for n in rng.sample(names, 5)}
            chosen.setdefault("placement", "pl-video")
            query = "&".join(f"{n}={v}" for n, v in chosen.items()).encode("utf-8", "surrogatepass")
            answer = doors.handle(Request("GET", "/vast", query, {}, b"", ""))
            found.add((answer if not hasattr(answer, "__await__") else await answer).status)
        return found

    assert asyncio.run(run()) == {200, 400}
    assert not [r.message for r in caplog.records if r.exc_info]
