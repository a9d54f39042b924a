"""The publisher's rules against tests/golden/publisher: one file, one case, with the arithmetic in its `why`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.tokens import TokenClaims
from jobs.transforms.enrich import conversion_event, post_view_event, repeated_fields, token_event, upstream_event
from schemas.codec import Encoder, decode, parsed_schema, split_header
from schemas.errors import Reject
from schemas.events import BY_NAME, EVENT_TYPES
from schemas.registry_record import AdRecord

GOLDEN = Path(__file__).parents[1] / "golden" / "publisher"
CASES = sorted(GOLDEN.rglob("*.json"))
encode = Encoder("ad_event", 1)


def apply(case: dict[str, Any]) -> dict[str, Any] | Reject:
    record = AdRecord(**case["record"]) if case["record"] else None
    if case["rule"] == "conversion":
        return conversion_event(case["sent"], record, case["published_ms"])
    if case["rule"] == "upstream":
        found = upstream_event(case["sent"], record, case["published_ms"])
        return found if isinstance(found, Reject) else found[0]
    if case["rule"] == "post_view":
        event = post_view_event(case["sent"], record, case["published_ms"])
        assert event is not None
        return event
    assert record is not None
    claims = TokenClaims(**{**case["claims"], "record_id": bytes.fromhex(case["claims"]["record_id"])})
    own = token_event(case["sent"], claims, record, case["published_ms"])
    return own if isinstance(own, Reject) else repeated_fields(record) | own


def told(event: dict[str, Any]) -> dict[str, Any]:
    """The event as a reader of the topic gets it, less what equals the contract's defaults; bytes as hex."""
    read = decode(split_header(encode(event))[1], parsed_schema("ad_event"))
    defaults = {f["name"]: f["default"] for f in parsed_schema("ad_event")["fields"] if "default" in f}
    plain = {name: value.hex() if isinstance(value, bytes) else value for name, value in read.items()}
    return {name: value for name, value in plain.items() if name not in defaults or value != defaults[name]}


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_golden(path: Path) -> None:
    case = json.loads(path.read_text())
    assert case.keys() == {"why", "input", "expected"}, "unknown or missing keys"
    found = apply(case["input"])
    if path.parent.name == "rejects":
        assert isinstance(found, Reject)
        assert {"reason": str(found.reason)} == case["expected"]
    else:
        assert not isinstance(found, Reject), found
        assert told(found) == case["expected"]


def test_every_rule_and_outcome_has_a_case() -> None:
    rules = {(p.parent.name, json.loads(p.read_text())["input"]["rule"]) for p in CASES}
    assert rules == {
        (kind, rule) for kind in ("exemplary", "rejects") for rule in ("token", "upstream", "conversion", "post_view")
    }


@pytest.mark.parametrize(("outcome", "touch_type"), [("unattributed", None), ("attributed", "click")])
def test_only_a_credited_view_becomes_an_event(outcome: str, touch_type: str | None) -> None:
    """A click's conversion is an event already, and a conversion without a touch is nobody's."""
    assert post_view_event({"outcome": outcome, "touch_type": touch_type}, None, 0) is None


RECORD = AdRecord(
    *("AAAAAAAAAAAAAAAAAAAAAA", "r", "i", "a", "c", "cr", 0),
    impression_cost_micros=7,
    click_cost_micros=11,
    view_cost_micros=13,
    deal_id="d",
    deal_type="preferred",
)
INT64 = st.integers(-(2**63), 2**63 - 1)


@given(
    client_ms=st.none() | INT64,
    received_ms=st.integers(0, 2**52),
    code=st.sampled_from([t.code for t in EVENT_TYPES]),
    ordinal=st.integers(0, 255),
    attributes=st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5),
)
def test_any_telemetry_is_an_event_that_fits_the_contract_or_a_reject(
    client_ms: int | None, received_ms: int, code: int, ordinal: int, attributes: dict[str, str]
) -> None:
    sent = {
        "source": "ssai",
        "client_time_ms": client_ms,
        "received_time_ms": received_ms,
        "attributes": attributes,
    }
    claims = TokenClaims(bytes(16), code, ordinal, 0, 2**32 - 1)
    found = token_event(sent, claims, RECORD, received_ms)
    if isinstance(found, Reject):
        return
    assert found["event_time_ms"] <= found["received_time_ms"]
    assert found["cost_micros"] == {1: 7, 9: 11, BY_NAME["complete"].code: 13}.get(code, 0)
    assert repeated_fields(RECORD)["deal_type"] == "preferred"
    encode(repeated_fields(RECORD) | found)
