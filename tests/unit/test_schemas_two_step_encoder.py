"""The two-step encoder against the plain one: the same bytes, or a refusal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Encoder, parsed_schema
from schemas.errors import ContractError
from schemas.two_step_encoder import TwoStepEncoder
from tests.samples.avro import values_of

FIELDS = parsed_schema("ad_event")["fields"]
RECORDS = st.fixed_dictionaries(
    {f["name"]: values_of(f["type"]) for f in FIELDS if "default" not in f},
    optional={f["name"]: values_of(f["type"]) for f in FIELDS if "default" in f},
)


@settings(deadline=None)  # each example compiles an encoder
@given(record=RECORDS, early=st.sets(st.sampled_from([f["name"] for f in FIELDS])))
def test_any_split_gives_the_bytes_of_the_plain_encoder(record: dict[str, Any], early: set[str]) -> None:
    encode = TwoStepEncoder("ad_event", 7, early)
    first = {name: value for name, value in record.items() if name in early}
    rest = {name: value for name, value in record.items() if name not in early}
    assert encode(encode.early_part(first), rest) == Encoder("ad_event", 7)(record)


@given(value=st.integers(-(2**64), 2**64))
def test_only_what_fits_64_bits(value: int) -> None:
    encode = TwoStepEncoder("campaign_spend", 7, ())
    record = {"campaign_id": "c", "day": "d", "spend_micros": value}
    if -(2**63) <= value < 2**63:
        assert encode((), record) == Encoder("campaign_spend", 7)(record)
    else:
        with pytest.raises(ContractError):
            encode((), record)


@pytest.mark.parametrize(
    "wrong", [{"ordinal": 2**31}, {"record_id": None}, {"record_id": 5}, {"attributes": {"a": 1}}, {"event_id": "text"}]
)
def test_what_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    good = {f["name"]: "" for f in FIELDS if "default" not in f and f["type"] == "string"}
    good |= {"event_id": b"", "event_time_ms": 1, "received_time_ms": 1, "published_time_ms": 1}
    encode = TwoStepEncoder("ad_event", 7, ())
    encode((), good)
    with pytest.raises(ContractError):
        encode((), {**good, **wrong})
    del good["record_id"]
    with pytest.raises(ContractError, match="record_id"):
        encode((), good)
