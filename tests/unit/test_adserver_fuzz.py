"""Whatever comes in through the doors, the answer is 200, 204 or 400, and what DSPs answer never makes it another.

Valid requests are mutated: values swapped for others of every type, fields lost, doubled, cut, bytes broken.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.http_messages import Request
from serving.adserver.doors.app import Doors
from serving.adserver.openrtb.messages import decode_response
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
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, 1e308, -0.5, 300.0, "", "x", "1", "\x00", "\ud83d\ude00" * 40),
    *([], {}, [[]], [None], {"id": "1"}, [{"id": "1"}], ["USD"], "a" * 3000, "${AUCTION_PRICE}", "]]>", "<VAST/>"),
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
        return found

    return asyncio.run(run())


def _bid(rng: random.Random, imp_id: str, markup: str, mtype: int) -> dict[str, Any]:
    return {"id": "b", "impid": imp_id, "price": rng.random() * 9, "crid": "c", "adm": markup, "mtype": mtype}


@pytest.mark.parametrize("seed", [1, 2])
def test_no_request_gets_another_answer_than_the_doors_promise(
    seed: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng, valid = random.Random(seed), _requests()
    bodies = [_mutated(rng.choice(valid), rng) for _ in range(_ROUNDS)]
    bids = [_bid(rng, "1", markup, m) for m, markup in ((1, "<a>"), (2, VAST_MARKUP), (4, NATIVE_MARKUP))]
    said = {"response": {"id": "req-1", "seatbid": [{"bid": bids, "seat": "s"}]}}
    made, serving = decider(tmp_path, _ADS, bidders=PlannedBidders({"dsp": said}))
    statuses = _answers(bodies, Doors(made, lambda: serving.inventory, lambda: (True, {}), Overload(1e6, 100)))
    assert set(statuses) == {200, 204, 400}, "all three are met"
    assert not [r.message for r in caplog.records if r.exc_info], "nothing failed that somebody had to catch"


def test_no_answer_of_a_dsp_makes_an_auction_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
        made, serving = decider(tmp_path, _ADS, bidders=PlannedBidders({"dsp": {"response": json_answer}}))
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
