"""Integrity first: what is refused or marked before anybody is asked, and what must not be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.keys import KeyRing
from jobs.transforms.valkey_writes import PendingWrites
from schemas.decisions import Degraded
from schemas.redis_layout import SUSPECT_TTL_S, SUSPECTS, household_key, user_key
from serving.adserver.decision import Decision
from serving.adserver.openrtb.context import RequestContext, resolve
from serving.adserver.openrtb.messages import decode_request
from serving.adserver.traffic.integrity import REASONS, Integrity
from serving.adserver.traffic.rates import Rates
from serving.adserver.traffic.user_agents import UserAgents
from tests.samples.adserver import DOLLAR, NOW_S, KeptLog, PlannedBidders, PlannedStore, bid_request, decider

TV = "Mozilla/5.0 (SMART-TV; Linux; Tizen 6.0) AppleWebKit/537.36 (KHTML, like Gecko) TV Safari/537.36"
PHONE = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36"
ROBOT = "Mozilla/5.0 (compatible; ExampleBot/2.1; +http://example.test/bot.html)"


def _integrity(
    refused: list[str] | None = None, address: int = 1_000, user: int = 1_000, suspect: bool = False
) -> Integrity:
    return Integrity(list(REASONS) if refused is None else refused, address, user, lambda *_: suspect)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return KeyRing.load(tmp_path_factory.mktemp("secrets"))


def _context(keys: KeyRing, **device: Any) -> RequestContext:
    request = bid_request(device={"ip": "192.0.2.7", "os": "", "devicetype": 3} | device)
    return resolve(decode_request(msgspec.json.encode(request)), keys, NOW_S * 1000)


@pytest.mark.parametrize(
    ("device", "doubt"),
    [
        ({"ua": TV, "os": "Tizen"}, None),
        ({"ua": PHONE, "os": "Android", "devicetype": 4}, None),
        ({"ua": PHONE, "os": "Fire OS", "devicetype": 3}, None),
        ({"ua": "python-httpx/0.28"}, None),
        ({"ua": ""}, None),
        ({"ua": ROBOT}, Degraded.TRAFFIC_BOT),
        ({"ua": PHONE, "os": "iOS", "devicetype": 4}, Degraded.TRAFFIC_INCONSISTENT),
        ({"ua": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X)", "os": "iOS"}, Degraded.TRAFFIC_INCONSISTENT),
        ({"ip": "203.0.113.9"}, Degraded.TRAFFIC_DATA_CENTER),
        ({"ip": "203.0.113.7"}, None),
        ({"ip": "nonsense"}, None),
    ],
)
def test_each_doubt_has_its_reason(keys: KeyRing, device: dict[str, Any], doubt: Degraded | None) -> None:
    integrity = _integrity()
    integrity.use_networks("203.0.113.0/24\n!203.0.113.7\n")
    assert integrity.doubts(_context(keys, **device)) is doubt
    assert integrity.refuses(doubt) == (doubt is not None)
    assert not _integrity([]).refuses(doubt)


def test_verdicts_and_rates_speak_of_a_viewer(keys: KeyRing) -> None:
    assert _integrity(suspect=True).doubts(_context(keys)) is Degraded.TRAFFIC_VERDICT
    often = _integrity(user=2)
    assert [often.doubts(_context(keys, ip=f"192.0.2.{n}")) for n in range(3)] == [
        None,
        None,
        Degraded.TRAFFIC_USER_RATE,
    ]
    crowd = _integrity(address=2)
    assert [crowd.doubts(_context(keys)) for _ in range(3)] == [None, None, Degraded.TRAFFIC_ADDRESS_RATE]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=200), st.integers(1, 4))
def test_a_rate_is_never_exceeded_below_its_limit_and_memory_is_bounded(
    steps: list[tuple[int, int]], limit: int
) -> None:
    rates, now_s, asked = Rates(limit, 10, most_keys=3), 0, []
    for key, later_s in steps:
        now_s += later_s
        asked.append((key, now_s))
        lately = sum(1 for k, at_s in asked if k == key and at_s > now_s - 20)
        if rates.exceeded(key, now_s):
            assert lately > limit, "two windows hold more than the limit"
    assert len(rates._now) <= 3 and len(rates._before) <= 3


def test_a_refused_request_asks_nobody_and_is_logged(tmp_path: Path) -> None:
    store, log, dsps = PlannedStore(), KeptLog(), PlannedBidders({"d": {"outcome": "NO_BID"}})
    ads = [{"id": "a", "pricing": "cpm", "bid_micros": DOLLAR}]
    made, _ = decider(tmp_path, ads, store, dsps, log)
    made._integrity = _integrity(["bot"])

    def decide(user_agent: str) -> Decision:
        device = {"ip": "192.0.2.7", "ua": user_agent, "os": "iOS", "devicetype": 4}
        request = decode_request(msgspec.json.encode(bid_request(device=device)))

        async def run() -> list[Decision]:
            return await made.decide(request, asyncio.get_running_loop().time())

        return asyncio.run(run())[0]

    refused = decide(ROBOT)
    assert refused.winner is None and refused.reasons == {Degraded.TRAFFIC_BOT}
    assert not store.records and not dsps.bodies and log.decisions[0]["reasons"] == [Degraded.TRAFFIC_BOT]
    marked = decide(PHONE)
    assert marked.winner is not None and Degraded.TRAFFIC_INCONSISTENT in marked.reasons


def test_patterns_of_a_file() -> None:
    agents = UserAgents(["# robots of ours", "probe  # ours", "!friendly probe"])
    assert agents.is_bot("A PROBE  1") and not agents.is_bot("a friendly probe  1") and not agents.is_bot("# robots")


def _verdict(rule: str, user: str | None, household: str | None, at_s: int) -> dict[str, Any]:
    return {"rule": rule, "user_pseudonym": user, "household_pseudonym": household, "verdict_time_ms": at_s * 1000}


def test_verdicts_about_viewers_are_written_and_those_about_events_are_not() -> None:
    writes = PendingWrites()
    for verdict in (
        _verdict("click_flood", "u1", "h1", 100),
        _verdict("click_flood", "u1", "h1", 90),
        _verdict("click_flood", None, "h2", 50),
        _verdict("data_center_repeat", "u3", "h3", 60),
        _verdict("quartiles_too_fast", "u4", "h4", 70),
        _verdict("many_users_one_address", "u5", "h5", 80),
    ):
        writes.add_verdict(verdict)
    (add, remove, expire) = writes.commands()
    assert add[:3] == ("ZADD", SUSPECTS, "GT")
    assert dict(zip(add[4::2], add[3::2], strict=True)) == {
        user_key("u1"): 100 + SUSPECT_TTL_S,
        household_key("h2"): 50 + SUSPECT_TTL_S,
        household_key("h3"): 60 + SUSPECT_TTL_S,
    }
    assert remove == ("ZREMRANGEBYSCORE", SUSPECTS, "-inf", 100) and expire[0] == "EXPIRE"
