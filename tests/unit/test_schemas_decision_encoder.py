"""The encoder of decisions against the plain one: the same bytes, or a refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Encoder, schema_text
from schemas.decision_encoder import DecisionEncoder, candidate, who
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
    return candidate(who(*(values.pop(name) for name in WHO)), **values)


@settings(deadline=None)
@given(record=RECORDS, candidates=CANDIDATES)
def test_the_bytes_are_those_of_the_plain_encoder(record: dict[str, Any], candidates: list[dict[str, Any]]) -> None:
    made = DecisionEncoder(7)(record, [_item(**c) for c in candidates])
    assert made == Encoder("ad_decision", 7)({**record, "candidates": candidates})


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
