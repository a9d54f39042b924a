"""The doors: what they say besides the answer, and what they take besides plain JSON."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.http_messages import Request, Response
from serving.adserver.doors.app import Doors
from serving.adserver.overload import Overload
from tests.samples.adserver import PlannedStore, bid_request, decider

_ADS = [{"id": "a", "pricing": "cpm", "bid_micros": 2_000_000}]


def _answer(secrets: Path, body: bytes, headers: dict[bytes, bytes] | None = None, **market: Any) -> Response:
    made, serving = decider(secrets, market.pop("ads", _ADS), **market)
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100))

    async def run() -> Response:
        answer = doors.handle(Request("POST", "/openrtb2/auction", b"", headers or {}, body, ""))
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
    assert (answer.status, dict(answer.headers)["X-Headwater-Reason"]) == (200, "1") and b"<Ad" not in answer.body
    assert "nobody foresaw this" in caplog.text


def test_what_nobody_foresaw_is_no_bid(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(PlannedStore):
        async def commit(self, *_: object, **__: object) -> Any:
            raise RuntimeError("nobody foresaw this")

    answer = _answer(tmp_path, _BODY, store=Broken())
    assert (answer.status, dict(answer.headers)["X-Openrtb-Nbr"]) == (204, "1")
    assert "nobody foresaw this" in caplog.text


def test_a_play_that_many_see_reserves_and_costs_what_they_all_do(tmp_path: Path) -> None:
    store = PlannedStore()
    imp = bid_request()["imp"][0] | {"qty": {"multiplier": 30.3}}
    answer = _answer(tmp_path, msgspec.json.encode(bid_request(imp=[imp])), store=store)
    (record,), (reserved,) = store.records, store.reservations
    assert reserved is not None and reserved.price_micros == record.impression_cost_micros == 60_600
    bid = msgspec.json.decode(answer.body)["seatbid"][0]["bid"][0]
    assert (bid["price"], bid["ext"]["headwater"]["impression_cost_micros"]) == (2.0, 60_600)
