"""What of a device gets into the registry for third parties' calls, and that no event repeats it."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.transforms.enrich import REPEATED
from schemas.registry_record import AdRecord
from serving.adserver.doors.player_tag import to_request
from serving.adserver.inventory import Inventory
from serving.adserver.openrtb.device import truncated
from serving.adserver.openrtb.messages import decode_request
from tests.samples.adserver import PlannedStore, bid_request, catalog, decider

DEVICE = {"devicetype": 3, "os": "tvos", "ip": "198.51.100.77", "ua": "TV/1", "language": "de"}
TRACKERS = {"impression": ["https://verifier.example/i"], "click": ["https://measurer.example/c"]}


def record_of(secrets: Path, **changes: Any) -> AdRecord:
    """The registry record of the one ad that a request gets."""
    store = PlannedStore()
    ad = {"id": "a", "pricing": "cpm", "bid_micros": 5_000_000, "creative": {"trackers": TRACKERS}}
    made, _ = decider(secrets, [ad], store)
    request = decode_request(msgspec.json.encode(bid_request(**{"device": DEVICE} | changes)))

    async def decide() -> None:
        await made.decide(request, asyncio.get_running_loop().time())

    asyncio.run(decide())
    (record,) = store.records
    return record


def test_a_known_users_device_is_kept_cut_short(tmp_path: Path) -> None:
    record = record_of(tmp_path, site={"id": "site-1", "domain": "watch.example", "page": "https://watch.example/?u=1"})
    assert (record.device_ip, record.device_user_agent, record.device_language) == ("198.51.100.0", "TV/1", "de")
    assert record.device_referer == "https://watch.example/", "the origin, and no path that may name a user"
    assert record.trackers == TRACKERS
    assert AdRecord.from_bytes(record.to_bytes()) == record


@pytest.mark.parametrize(
    "changes",
    [
        {"device": DEVICE | {"lmt": 1}},
        {"regs": {"gdpr": 1}},
        {"regs": {"coppa": 1}},
        {"user": {"id": "someone", "ext": {"opt_out": True}}},
    ],
    ids=("lmt", "gdpr without consent", "coppa", "opt-out"),
)
def test_of_a_user_who_must_stay_unknown_nothing_is_kept(tmp_path: Path, changes: dict[str, Any]) -> None:
    record = record_of(tmp_path, **changes)
    assert not any(v for name, v in record.as_dict().items() if name.startswith("device_") and name != "device_type")
    assert b"198.51" not in record.to_bytes()
    assert record.trackers == TRACKERS, "the partner may be told of the event all the same"


@given(
    st.from_regex(r"([0-9]{1,3}\.){3}[0-9]{1,3}\n?", fullmatch=True) | st.ip_addresses().map(str) | st.text(max_size=20)
)
def test_an_address_is_cut_as_the_library_reads_it(text: str) -> None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        assert truncated(text) == ""
        return
    found = getattr(found, "ipv4_mapped", None) or found
    network = ipaddress.ip_network((found, 24 if found.version == 4 else 48), strict=False)
    assert truncated(text) == str(network.network_address)


@given(
    st.text(max_size=9), st.none() | st.text(max_size=9), st.integers(-(2**63), 2**63 - 1), st.booleans(),
    st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=5), max_size=2), max_size=2),
)  # fmt: skip
def test_a_record_is_compact_json(
    name: str, deal: str | None, micros: int, live: bool, trackers: dict[str, list[str]]
) -> None:
    record = AdRecord("r", name, "1", "a", "c", "k", micros, deal_id=deal, live=live, trackers=trackers)
    kept = {n: v for n, v in record.as_dict().items() if v not in (None, "", {})}
    assert record.to_bytes()[1:] == json.dumps(kept, separators=(",", ":")).encode()


def test_no_event_repeats_what_is_of_the_device() -> None:
    assert not {name for name in REPEATED if name.startswith("device_")} - {"device_type"}
    assert "trackers" not in REPEATED


def test_a_tag_says_for_whom_it_asks() -> None:
    inventory = Inventory(catalog([]))
    own = to_request({"placement": "pl-video"}, "r", inventory, "Player/1", "fr")
    asked_for = to_request({"placement": "pl-video", "ua": "TV/2", "lang": "de"}, "r", inventory, "Server/1", "fr")
    assert own.device is not None and (own.device.ua, own.device.language) == ("Player/1", "fr")
    assert asked_for.device is not None and (asked_for.device.ua, asked_for.device.language) == ("TV/2", "de")
