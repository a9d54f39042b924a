"""The doors: what they say besides the answer, and what they take besides plain JSON."""

from __future__ import annotations

import asyncio
import gc
import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from connectors.http_messages import Request, Response
from serving.adserver import decider as decider_module
from serving.adserver.decider import Decider
from serving.adserver.doors.app import Doors
from serving.adserver.overload import Overload
from tests.samples.adserver import VAST_MARKUP, KeptLog, PlannedBidders, PlannedStore, bid_request, decider

_ADS = [{"id": "a", "pricing": "cpm", "bid_micros": 2_000_000}]


def _answer(
    secrets: Path,
    body: bytes,
    headers: dict[bytes, bytes] | None = None,
    door: str = "/openrtb2/auction",
    **market: Any,
) -> Response:
    """The answer to a body, or to a tag of the placement that it is for."""
    made, serving = decider(secrets, market.pop("ads", _ADS), **market)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100))

    async def run() -> Response:
        tag = Request("GET", door, b"placement=pl-video", {}, b"", "")
        answer = doors.handle(tag if door == "/vast" else Request("POST", door, b"", headers or {}, body, ""))
        return answer if isinstance(answer, Response) else await answer

    return asyncio.run(run())


_BODY = msgspec.json.encode(bid_request())
_ZIPPED = {b"content-encoding": b"gzip"}


def test_a_compressed_request_is_answered_alike(tmp_path: Path) -> None:
    plain, zipped = _answer(tmp_path, _BODY), _answer(tmp_path, gzip.compress(_BODY), _ZIPPED)
    assert plain.status == zipped.status == 200


@pytest.mark.parametrize("body", [b"", b"plain", gzip.compress(_BODY)[:-20], gzip.compress(b" " * 2_000_000 + _BODY)])
def test_a_compressed_body_that_is_none_or_a_bomb_is_refused(body: bytes, tmp_path: Path) -> None:
    assert _answer(tmp_path, body, _ZIPPED).status == 400


def test_no_bid_says_why(tmp_path: Path) -> None:
    answer = _answer(tmp_path, _BODY, ads=[])
    headers = dict(answer.headers)
    assert (answer.status, headers["X-Headwater-Reason"], headers["X-Openrtb-Nbr"]) == (204, "2008", "0")
    assert headers["x-openrtb-version"] == "2.6"


def test_every_door_that_decides_is_shed(tmp_path: Path) -> None:
    async def outside(_: Request) -> Response:
        raise AssertionError("not even read")

    made, serving = decider(tmp_path, _ADS)
    overload = Overload(1e6, 0)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), overload, outside=outside)
    asked = [
        ("POST", "/openrtb2/auction"),
        ("GET", "/vast"),
        ("GET", "/ads-manager/vast"),
        ("POST", "/ads-manager/vast"),
    ]

    async def run() -> list[Any]:
        return [doors.handle(Request(method, path, b"placement=pl-video", {}, _BODY, "")) for method, path in asked]

    answers = asyncio.run(run())
    assert [a.status for a in answers] == [204, 200, 200, 200]
    assert all(dict(a.headers)["X-Headwater-Reason"] == "2030" for a in answers)
    assert all(b"<Ad" not in a.body for a in answers)


def test_what_nobody_foresaw_of_an_outside_ad_is_an_empty_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: Request) -> Response:
        raise RuntimeError("nobody foresaw this")

    made, serving = decider(tmp_path, _ADS)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100), outside=broken)

    async def run() -> Response:
        answer = doors.handle(Request("POST", "/ads-manager/vast", b"", {}, b"<VAST/>", ""))
        return answer if isinstance(answer, Response) else await answer

    answer = asyncio.run(run())
    assert (answer.status, dict(answer.headers)["X-Headwater-Reason"]) == (200, "2031") and b"<Ad" not in answer.body
    assert "nobody foresaw this" in caplog.text


class Broken(PlannedStore):
    async def commit(self, *_: object, **__: object) -> Any:
        raise RuntimeError("nobody foresaw this")


_HOUSE = {"id": "h", "pricing": "house", "bid_micros": 0}


def _counted(reason: str) -> float:
    return REGISTRY.get_sample_value("adserver_degraded_total", {"reason": reason}) or 0.0


@pytest.mark.parametrize("door", ["/openrtb2/auction", "/vast"])
def test_after_what_nobody_foresaw_the_house_is_shown(
    door: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log, before = KeptLog(), _counted("failed")
    answer = _answer(tmp_path, _BODY, door=door, store=Broken(), ads=[*_ADS, _HOUSE], log=log)
    assert (answer.status, dict(answer.headers)["X-Headwater-Reason"]) == (200, "2009,2031")
    assert b"cr-h" in answer.body and b"http://collector.test" not in answer.body, "without trackers"
    assert "nobody foresaw this" in caplog.text and _counted("failed") == before + 1
    (logged,) = log.decisions
    assert (logged["winner_creative_id"], logged["reasons"]) == ("cr-h", [2009, 2031])


def test_without_a_house_what_nobody_foresaw_is_no_bid(tmp_path: Path) -> None:
    log = KeptLog()
    answer = _answer(tmp_path, _BODY, store=Broken(), log=log)
    assert (answer.status, dict(answer.headers)["X-Openrtb-Nbr"]) == (204, "1")
    assert [d["reasons"] for d in log.decisions] == [[2008, 2031]]


@pytest.mark.parametrize("door", ["/openrtb2/auction", "/vast"])
def test_a_request_that_breaks_the_fallback_too_is_answered(
    door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(decider_module, "resolve", broken)
    before = _counted("failed")
    answer = _answer(tmp_path, _BODY, door=door)
    assert answer.status == (204 if door != "/vast" else 200) and b"<Ad" not in answer.body
    assert dict(answer.headers)["X-Headwater-Reason"] == "2031" and _counted("failed") == before + 1


def test_a_currency_without_a_rate_is_a_reason_in_log_and_metric(tmp_path: Path) -> None:
    log, before = KeptLog(), _counted("no_currency")
    answer = _answer(tmp_path, msgspec.json.encode(bid_request(cur=["JPY"])), log=log)
    assert (answer.status, dict(answer.headers)["X-Headwater-Reason"]) == (204, "2032")
    assert [d["reasons"] for d in log.decisions] == [[2032]] and _counted("no_currency") == before + 1


def test_refused_requests_are_counted_and_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made, serving = decider(tmp_path, _ADS)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 0))

    async def run() -> None:
        for _ in range(3):
            assert doors.handle(Request("POST", "/openrtb2/auction", b"", {}, _BODY, "")).status == 204  # type: ignore[union-attr]

    before = _counted("overloaded")
    asyncio.run(run())
    assert _counted("overloaded") == before + 3 and caplog.text.count("requests refused") == 1


def test_a_play_that_many_see_reserves_and_costs_what_they_all_do(tmp_path: Path) -> None:
    store = PlannedStore()
    imp = bid_request()["imp"][0] | {"qty": {"multiplier": 30.3}}
    answer = _answer(tmp_path, msgspec.json.encode(bid_request(imp=[imp])), store=store)
    (record,), (reserved,) = store.records, store.reservations
    assert reserved is not None and reserved.price_micros == record.impression_cost_micros == 60_600
    bid = msgspec.json.decode(answer.body)["seatbid"][0]["bid"][0]
    assert (bid["price"], bid["ext"]["headwater"]["impression_cost_micros"]) == (2.0, 60_600)


def _with_notices() -> dict[str, Any]:
    """A DSP's bid with a win notice above another's with a loss notice."""
    bid = {"id": "b", "impid": "1", "crid": "c", "mtype": 2, "adm": VAST_MARKUP, "adomain": ["x.example"]}
    said = {
        "win": {"price": 9.0, "nurl": "https://d.example/won"},
        "lose": {"price": 8.0, "lurl": "https://d.example/no"},
    }
    return {n: {"response": {"id": "req-1", "cur": "USD", "seatbid": [{"bid": [bid | s]}]}} for n, s in said.items()}


@pytest.mark.parametrize(
    ("connected", "takes_s", "told"),
    [
        (True, 0.0, ["https://d.example/won", "https://d.example/no"]),
        (False, 0.0, ["https://d.example/no"]),
        (True, 0.03, ["https://d.example/no"]),
    ],
    ids=["answered", "the client is gone", "too late"],
)
def test_a_bidder_has_won_when_somebody_got_the_answer_in_time(
    tmp_path: Path, connected: bool, takes_s: float, told: list[str]
) -> None:
    class Slow(PlannedStore):
        async def commit(self, *given: Any, **named: Any) -> Any:
            await asyncio.sleep(takes_s)
            return await super().commit(*given, **named)

    notices: list[str] = []
    made, serving = decider(tmp_path, _ADS, Slow(), PlannedBidders(_with_notices()), notify=notices.append)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100))
    body = msgspec.json.encode(bid_request(tmax=20 if takes_s else 10_000))

    async def run() -> Any:
        return await doors.handle(Request("POST", "/openrtb2/auction", b"", {}, body, "", lambda: connected))

    assert asyncio.run(run()).status == 200
    assert sorted(notices) == sorted(told)


def test_the_answer_leaves_before_its_decision_is_written_down(tmp_path: Path) -> None:
    log = KeptLog()
    made, serving = decider(tmp_path, _ADS, log=log)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100))

    async def run() -> tuple[int, int]:
        await doors.handle(Request("POST", "/openrtb2/auction", b"", {}, _BODY, ""))
        at_once = len(log.decisions)
        await asyncio.sleep(0)
        return at_once, len(log.decisions)

    assert asyncio.run(run()) == (0, 1)


def test_a_loop_that_is_late_counts_as_time_that_the_request_waited(tmp_path: Path) -> None:
    arrived_s: list[float] = []

    class Seen(Decider):
        async def decide(self, request: Any, at_s: float, *given: Any, **named: Any) -> Any:
            arrived_s.append(at_s)
            return await super().decide(request, at_s, *given, **named)

    made, serving = decider(tmp_path, _ADS, kind=Seen)
    overload = Overload(1e6, 100)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), overload)

    async def run() -> float:
        overload.observe(0.25)
        began_s = asyncio.get_running_loop().time()
        await doors.handle(Request("POST", "/openrtb2/auction", b"", {}, _BODY, ""))
        return began_s

    assert asyncio.run(run()) - arrived_s[0] == pytest.approx(0.25, abs=0.1)


def test_an_auction_leaves_nothing_for_the_collector(tmp_path: Path) -> None:
    made, serving = decider(tmp_path, _ADS)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100))

    async def auctions(count: int) -> None:
        for _ in range(count):
            await doors.handle(Request("POST", "/openrtb2/auction", b"", {}, _BODY, ""))
        await asyncio.sleep(0.01)

    async def run() -> int:
        await auctions(5)
        gc.collect()
        gc.disable()
        try:
            await auctions(50)
            return gc.collect()
        finally:
            gc.enable()

    assert asyncio.run(run()) < 50, "cycles would be frozen with the next catalogue, and stay"
