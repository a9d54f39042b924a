"""What the collector takes and leaves out, door by door, without a broker: items in, records or rejects out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.http_messages import MAX_PARAMS, Request
from connectors.keys import KeyRing
from connectors.tokens import TokenMinter
from schemas.codec import Encoder, decode, parsed_schema, split_header
from schemas.errors import Reject, RejectReason
from schemas.ids import encode_id
from serving.collector.attributes import clean_attributes
from serving.collector.beacons import epoch_ms
from serving.collector.buffer import Record
from serving.collector.contracts import Contracts, telemetry_of
from serving.collector.conversions import ConversionReader
from serving.collector.telemetry import read_telemetry

NOW_MS = 1_800_000_000_000
CONTRACTS = Contracts(telemetry_of(1), Encoder("ad_conversion", 2), Encoder("dead_letter", 3))


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    return KeyRing.load(tmp_path_factory.mktemp("home") / "secrets")


def content(record: Record | Reject, schema: str) -> dict[str, Any]:
    assert isinstance(record, Record), record
    return decode(split_header(record.value)[1], parsed_schema(schema))


def test_identifiers_are_left_out_of_attributes() -> None:
    sent = {
        "Email": "x",
        "note": "me@home.example",
        "addr": "203.0.113.9",
        "v6": "2001:db8::1",
        "ok": "1",
        "at": "12:30",
        "flag": True,
        "n": 3,
        "nested": {"a": 1},
        "long": "x" * 513,
        "y" * 65: "1",
    }
    assert clean_attributes(sent) == ({"ok": "1", "at": "12:30", "flag": "true", "n": "3"}, 7)


@given(
    pairs=st.lists(
        st.tuples(st.text(st.characters(codec="ascii")), st.text(st.characters(codec="ascii"))), max_size=MAX_PARAMS + 3
    ),
    plain=st.booleans(),
)
def test_the_quick_way_through_a_query_is_the_standard_one(pairs: list[tuple[str, str]], plain: bool) -> None:
    query = "&".join(f"{k}={v}" for k, v in pairs)
    for sign in "%+;#" if plain else "":
        query = query.replace(sign, "")
    request = Request("GET", "/", query.encode(), {}, b"", "")
    try:
        expected = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMS, errors="replace"))
    except ValueError:
        with pytest.raises(ValueError, match=r".*"):
            _ = request.params
    else:
        assert request.params == expected


def test_there_is_an_end_to_attributes() -> None:
    kept, dropped = clean_attributes({f"a{i}": "x" for i in range(50)})
    assert (len(kept), dropped) == (32, 18)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5),
        ("-5", -5),
        (None, None),
        ("", None),
        ("1.5", None),
        ("[TS]", None),
        ("9" * 39, 2**63 - 1),
        ("9" * 50, None),
    ],
)
def test_client_clocks(text: str | None, expected: int | None) -> None:
    assert epoch_ms(text) == expected


def test_a_telemetry_item() -> None:
    item = {"token": "t", "event": "start", "ts": 5, "source": "ssai", "pod": 2}
    found = content(read_telemetry(CONTRACTS, lambda: NOW_MS, ["ivt_data_center"], item), "ad_telemetry")
    assert (found["token"], found["client_event"], found["client_time_ms"], found["source"]) == (
        "t",
        "start",
        5,
        "ssai",
    )
    assert (found["received_time_ms"], found["attributes"]) == (NOW_MS, {"pod": "2"})
    assert found["quality_reasons"] == ["ivt_data_center"]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"event": "start"}, RejectReason.MISSING_FIELD),
        ({"token": None}, RejectReason.MISSING_FIELD),
        ({"token": 7}, RejectReason.BAD_VALUE),
        ({"token": "x" * 600}, RejectReason.BAD_VALUE),
        ({"token": "t", "ts": "yesterday"}, RejectReason.BAD_VALUE),
        ({"token": "t", "ts": 2**63}, RejectReason.BAD_VALUE),
        ({"token": "t", "ts": True}, RejectReason.BAD_VALUE),
        ({"token": "t", "source": "toaster"}, RejectReason.BAD_VALUE),
    ],
)
def test_refused_telemetry_items(item: dict[str, Any], reason: RejectReason) -> None:
    found = read_telemetry(CONTRACTS, lambda: NOW_MS, [], item)
    assert isinstance(found, Reject)
    assert found.reason is reason


def conversion(**changes: Any) -> dict[str, Any]:
    return {"order_id": "o", "advertiser_id": "a", "user_id": "someone", **changes}


def test_match_keys_become_pseudonyms_and_ads(ring: KeyRing) -> None:
    read = ConversionReader(CONTRACTS, ring, lambda: NOW_MS)
    found = content(read(conversion(value_micros=5, currency="EUR", ts=7, basket="12")), "ad_conversion")
    assert found["user_pseudonym"] == ring.pseudonym("someone")
    assert "someone" not in str(found)
    assert (found["value_micros"], found["currency"], found["event_time_ms"]) == (5, "EUR", 7)
    assert found["attributes"] == {"basket": "12"}
    by_email = content(read({"order_id": "o", "advertiser_id": "a", "email": " Some.One@x.example "}), "ad_conversion")
    assert by_email["user_pseudonym"] == ring.pseudonym("some.one@x.example")
    opted_out = content(read(conversion(opt_out=True)), "ad_conversion")
    assert (opted_out["user_pseudonym"], opted_out["attributes"]) == (None, {"opt_out": "true"})
    token = TokenMinter(ring).mint(bytes(16), 9, 0, 0, 60)
    by_click = content(read({"order_id": "o", "advertiser_id": "a", "click_token": token}), "ad_conversion")
    assert (by_click["record_id"], by_click["user_pseudonym"]) == (encode_id(bytes(16)), None)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ({"advertiser_id": "a", "user_id": "u"}, RejectReason.MISSING_FIELD),
        ({"order_id": "o", "user_id": "u"}, RejectReason.MISSING_FIELD),
        ({"order_id": "o", "advertiser_id": "a"}, RejectReason.MISSING_FIELD),
        (conversion(value_micros=1.5), RejectReason.BAD_VALUE),
        (conversion(currency="euro"), RejectReason.BAD_VALUE),
        (conversion(source="rumour"), RejectReason.BAD_VALUE),
        (conversion(click_token="nonsense"), RejectReason.TOKEN_MALFORMED),
    ],
)
def test_refused_conversions(ring: KeyRing, item: dict[str, Any], reason: RejectReason) -> None:
    found = ConversionReader(CONTRACTS, ring, lambda: NOW_MS)(item)
    assert isinstance(found, Reject)
    assert found.reason is reason


def test_a_forged_click_token_is_refused(ring: KeyRing, tmp_path: Path) -> None:
    forged = TokenMinter(KeyRing.load(tmp_path / "elsewhere")).mint(bytes(16), 9, 0, 0, 60)
    found = ConversionReader(CONTRACTS, ring, lambda: NOW_MS)(conversion(click_token=forged))
    assert isinstance(found, Reject)
    assert found.reason is RejectReason.TOKEN_FORGED
