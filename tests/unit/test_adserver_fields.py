"""Every field of the specification, one at a time, with a value of every kind: the door says which one is wrong.

The requests are made from the structs themselves, so a field that is added is tested with the others.
"""

from __future__ import annotations

import asyncio
import copy
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.http_messages import Request, Response
from serving.adserver.doors.app import Doors
from serving.adserver.openrtb.messages import Bid, BidRequest, BidResponse, decode_request, decode_response
from serving.adserver.openrtb.native_request import NativeRequest, checked
from serving.adserver.openrtb.parts import Part
from serving.adserver.overload import Overload
from tests.samples.adserver import VAST_MARKUP, PlannedBidders, decider

#: As JSON text, since some of it is nothing that Python would write.
VALUES = (
    *("null", "true", "0", "-1", "1.5", "1e308", "-1e308", "1e999", "9223372036854775808", "1" + "0" * 400, "NaN"),
    *(
        '""',
        '"x"',
        '"1e5"',
        '"\\ud800"',
        '"\\u0000"',
        '"${AUCTION_PRICE}]]>"',
        "[]",
        "[null]",
        "[[]]",
        "{}",
        '[{"id":1}]',
    ),
    *("[" * 3000, '{"a":' * 900 + "1" + "}" * 900),
)
_MARK = '"@@here@@"'
_AT_MOST_ONE = (("site", "app", "dooh"), ("wseat", "bseat"), ("wlang", "wlangb"))
_ADS = [{"id": "v", "pricing": "cpm", "bid_micros": 2_000_000}, {"id": "h", "pricing": "house", "bid_micros": 0}]


def _every_field(kind: Any) -> Any:
    """JSON data with a valid value for each field of a struct, lists with one of their kind."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _every_field(inside[0])
    if origin in (typing.Union, types.UnionType):
        return _every_field(next(k for k in inside if k is not type(None)))
    if origin is list:
        return [_every_field(inside[0])]
    if isinstance(kind, type) and issubclass(kind, Part):
        hints = typing.get_type_hints(kind, include_extras=True)
        return {f.encode_name: _every_field(hints[f.name]) for f in msgspec.structs.fields(kind)}
    return {str: "1", int: 1, float: 1.0}.get(kind, {"a": 1})


def _request() -> dict[str, Any]:
    data = _every_field(BidRequest) | {"test": 0, "cur": ["USD"], "acat": [], "bcat": [], "badv": [], "wlang": ["de"]}
    for names in _AT_MOST_ONE:
        for name in names[1:]:
            del data[name]
    data["wseat"] = ["1"]
    (imp,) = data["imp"]
    imp |= {"tagid": "", "bidfloorcur": "USD"}
    imp["native"]["request"] = json.dumps(_native_request())
    imp["pmp"]["private_auction"] = 0
    imp["video"]["protocol"] = 2  # a player of VAST 1 gets no ad
    for timed in (imp["video"], imp["audio"]):
        timed |= {"mimes": ["video/mp4"], "minduration": 0, "maxduration": 60, "protocols": [], "battr": [], "api": []}
        timed["delivery"] = [2]
        for name in ("rqddurs", "podid", "poddur", "durfloors"):
            del timed[name]
    return data


def _native_request() -> dict[str, Any]:
    data = _every_field(NativeRequest)
    (asset,) = data["assets"]
    kinds = ("title", "img", "video", "data")
    data["assets"] = [{"id": i, "required": 0, kind: asset[kind]} for i, kind in enumerate(kinds)]
    return data


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from _places(inner, (*path, key))


def _with_mark(data: Any, path: tuple[Any, ...]) -> str:
    data = inner = copy.deepcopy(data)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = json.loads(_MARK)
    return json.dumps(data)


def _named(path: tuple[Any, ...]) -> str:
    return "$" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def test_a_wrong_value_is_refused_with_its_own_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bid = {"id": "b", "impid": "1", "price": 3.0, "crid": "c", "adm": VAST_MARKUP, "mtype": 2, "adomain": ["1"]}
    said = {"response": {"id": "1", "seatbid": [{"bid": [bid], "seat": "1"}]}, "row": {"currency": "EUR"}}
    made, serving = decider(
        tmp_path, _ADS, bidders=PlannedBidders({"dsp": said}), changes={"rates": {"EUR": 1_090_000}}
    )
    doors = Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100))
    request, wrong = _request(), []

    async def answer(body: str) -> Response:
        found = doors.handle(Request("POST", "/openrtb2/auction", b"", {}, body.encode("utf-8", "surrogatepass"), ""))
        return found if isinstance(found, Response) else await found

    async def run() -> None:
        assert (await answer(json.dumps(request))).status == 200
        for path in _places(request):
            marked, here = _with_mark(request, path), _named(path)
            for value in VALUES:
                found = await answer(marked.replace(_MARK, value))
                if found.status in (200, 204):
                    continue
                said = json.loads(found.body) if found.status == 400 else {"path": "", "error": ""}
                if not said["error"] or not (here.startswith(said["path"]) or said["path"].startswith(here)):
                    wrong.append((here, value[:30], found.status, said))

    asyncio.run(run())
    assert not wrong, wrong[:5]
    assert not [r.message for r in caplog.records if r.exc_info], "nothing failed that somebody had to catch"


def test_a_native_request_is_taken_or_refused() -> None:
    request = _native_request()
    assert checked(json.dumps(request)) == json.dumps(request)
    for path in _places(request):
        marked = _with_mark(request, path)
        for value in VALUES:
            try:
                checked(marked.replace(_MARK, value))
            except ValueError as e:
                assert str(e)


def test_a_bid_with_a_wrong_value_costs_nobody_else_the_auction(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bid = _every_field(Bid) | {"price": 3.0, "adm": VAST_MARKUP, "mtype": 2, "adomain": ["a.example"], "dealid": ""}
    bid |= {"apis": [], "attr": [], "exp": 0, "protocol": 0, "lurl": "https://d.example/?${AUCTION_MIN_TO_WIN}"}
    request = json.dumps({"id": "1", "imp": [{"id": "1", "video": {"mimes": ["video/mp4"]}}]}).encode()
    lost = []

    async def shown(plan: dict[str, Any]) -> bool:
        made, _ = decider(tmp_path, _ADS[:1], bidders=PlannedBidders(plan))
        decisions = await made.decide(decode_request(request), asyncio.get_running_loop().time(), request)
        return decisions[0].winner is not None

    async def run() -> None:
        for path in _places(bid):
            marked = _with_mark(bid, path)
            for value in VALUES:
                response = f'{{"id":"1","seatbid":[{{"bid":[{marked.replace(_MARK, value)}]}}]}}'
                try:
                    decode_response(response.encode())
                    plan = {"dsp": {"response": json.loads(response)}}
                    msgspec.json.encode(plan)
                except ValueError:
                    continue
                if not await shown(plan):
                    lost.append((path, value[:30]))

    asyncio.run(run())
    assert not lost, lost[:5]
    assert not [r.message for r in caplog.records if r.exc_info]


def test_a_response_is_taken_or_is_none() -> None:
    response = _every_field(BidResponse)
    assert decode_response(json.dumps(response).encode()).seatbid[0].bid[0].crid == "1"
    for path in _places(response):
        marked = _with_mark(response, path)
        for value in VALUES:
            try:
                decode_response(marked.replace(_MARK, value).encode())
            except ValueError as e:
                assert str(e)
