"""AdDecision records, in the Confluent wire format: who a candidate is is encoded once, what became of it each time.

An auction has a hundred candidates and more, and fastavro takes most of a millisecond for them. Same bytes as
`codec.Encoder` (a property test compares them).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from schemas.avro_source import PROBLEMS, compiled_writer, write_array, write_long
from schemas.codec import header, schema_text
from schemas.errors import ContractError

_NAME = "ad_decision"
_FIELDS = json.loads(schema_text(_NAME))["fields"]
_CANDIDATES = next(i for i, field in enumerate(_FIELDS) if field["name"] == "candidates")
_OF_CANDIDATES = _FIELDS[_CANDIDATES]["type"]["items"]["fields"]
#: What a candidate is, whatever the auction: the first fields of its record.
_WHO = ("kind", "campaign_id", "line_item_id", "creative_id", "bidder_id")

if [field["name"] for field in _OF_CANDIDATES[len(_WHO) :]] != ["bid_cpm_micros", "p_ctr", "reason"]:
    raise ContractError(f"candidates of {_NAME} have changed: `candidate` writes them field by field")

_write_some = struct.Struct("<Bd").pack  # the branch of a union, and a double
_write_reason = compiled_writer(_OF_CANDIDATES[-1:])
_write_who = compiled_writer(_OF_CANDIDATES[: len(_WHO)])
_write_decision = compiled_writer([0, *_FIELDS[:_CANDIDATES], 1, *_FIELDS[_CANDIDATES + 1 :]])


@lru_cache(maxsize=65_536)
def who(kind: str, campaign_id: str, line_item_id: str, creative_id: str, bidder_id: str | None) -> bytes:
    """What a candidate is, whatever the auction. Errors: ContractError when a value does not fit."""
    values = (kind, campaign_id, line_item_id, creative_id, bidder_id)
    try:
        return _write_who(dict(zip(_WHO, values, strict=True)), ())
    except PROBLEMS as e:
        raise ContractError(f"candidate {creative_id!r} does not fit: {e}") from e


@lru_cache(maxsize=4_096)
def _reason(reason: int) -> bytes:
    return _write_reason({"reason": reason}, ())


def candidate(named: bytes, bid_cpm_micros: int, p_ctr: float | None, reason: int) -> bytes:
    """One item of `candidates`; `named` is what `who` made. Errors: ContractError when a value does not fit."""
    try:
        if p_ctr is None:
            return named + write_long(bid_cpm_micros) + b"\x00" + _reason(reason)
        return named + write_long(bid_cpm_micros) + _write_some(2, p_ctr) + _reason(reason)
    except PROBLEMS as e:
        raise ContractError(f"a candidate does not fit: {e}") from e


class DecisionEncoder:
    """Encodes decisions under the id that the registry gave their schema."""

    def __init__(self, schema_id: int) -> None:
        self._header = header(schema_id)

    def __call__(self, decision: Mapping[str, Any], candidates: Sequence[bytes]) -> bytes:
        """A whole record; its `candidates` are made by `candidate`. Errors: ContractError when a value does not fit."""
        try:
            return _write_decision(decision, (self._header, write_array(candidates)))
        except PROBLEMS as e:
            raise ContractError(f"does not fit {_NAME}: {type(e).__name__}: {e}") from e
