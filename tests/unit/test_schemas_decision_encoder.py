"""The encoder of decisions against the plain one: the same bytes, or a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Encoder, schema_text
from schemas.decision_encoder import DecisionEncoder, candidates, who
from schemas.errors import ContractError
from tests.samples.avro import values_of

FIELDS = {field["name"]: field for field in json.loads(schema_text("ad_decision"))["fields"]}
CANDIDATES = st.lists(
    st.fixed_dictionaries({f["name"]: values_of(f["type"]) for f in FIELDS["candidates"]["type"]["items"]["fields"]}),
    max_size=5,
)
WHO = ("kind", "campaign_id", "line_item_id", "creative_id", "bidder_id")
REST = {name: values_of(field["type"]) for name, field in FIELDS.items() if name != "candidates"}
RECORDS = st.fixed_dictionaries(
    {name: values for name, values in REST.items() if "default" not in FIELDS[name]},
    optional={name: values for name, values in REST.items() if "default" in FIELDS[name]},
)


def _item(**values: Any) -> bytes:
    named = who(*(values.pop(name) for name in WHO))
    return candidates([(named, values["bid_cpm_micros"], values["p_ctr"], values["reason"])])[0]


@settings(deadline=None)
@given(record=RECORDS, took_part=CANDIDATES)
def test_the_bytes_are_those_of_the_plain_encoder(record: dict[str, Any], took_part: list[dict[str, Any]]) -> None:
    made = DecisionEncoder(7)(record, [_item(**c) for c in took_part])
    assert made == Encoder("ad_decision", 7)({**record, "candidates": took_part})


@pytest.mark.parametrize("bid_cpm_micros", [0, 63, 64, 2**20 - 1, 2**20, 2**20 + 2**7, 5_123_457, 2**27 - 1, 2**27, -1])
@pytest.mark.parametrize("p_ctr", [None, 0.0125])
@pytest.mark.parametrize("reason", [0, 102, 2047, 2048])
def test_bids_of_every_length_are_those_of_the_plain_encoder(
    bid_cpm_micros: int, p_ctr: float | None, reason: int
) -> None:
    took_part = dict.fromkeys(WHO, "x") | {"bid_cpm_micros": bid_cpm_micros, "p_ctr": p_ctr, "reason": reason}
    record = {"request_id": "r", "imp_id": "1", "decision_time_ms": 1}
    made = DecisionEncoder(7)(record, [_item(**took_part)])
    assert made == Encoder("ad_decision", 7)({**record, "candidates": [took_part]})


@pytest.mark.parametrize(
    "wrong",
    [{"bid_cpm_micros": 1.5}, {"bid_cpm_micros": 2**63}, {"p_ctr": "much"}, {"campaign_id": None}, {"reason": 2**31}],
)
def test_a_candidate_that_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = dict.fromkeys(("kind", "campaign_id", "line_item_id", "creative_id"), "x")
    good |= {"bidder_id": None, "bid_cpm_micros": 1, "p_ctr": None, "reason": 0}
    assert _item(**good)
    with pytest.raises(ContractError):
        _item(**{**good, **wrong})


@pytest.mark.parametrize("wrong", [{"price_cpm_micros": 0.5}, {"features": {"ctr": "high"}}, {"reasons": ["none"]}])
def test_a_decision_that_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    good = {"request_id": "r", "imp_id": "1", "decision_time_ms": 1}
    assert DecisionEncoder(7)(good, [])
    with pytest.raises(ContractError):
        DecisionEncoder(7)({**good, **wrong}, [])
