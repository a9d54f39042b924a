"""AdDecision records, in the Confluent wire format: who a candidate is is encoded once, what became of it each time.

An auction has a hundred candidates and more, and fastavro takes most of a millisecond for them. Same bytes as
`codec.Encoder` (a property test compares them).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
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
    raise ContractError(f"candidates of {_NAME} have changed: `candidates` writes them field by field")

_write_some = struct.Struct("<Bd").pack  # the branch of a union, and a double
_write_four_and_some = struct.Struct("<IBd").pack  # and a long of four bytes before them
#: From a CPM of 1.05 until 134 a bid's micros are a long of four bytes.
_FOUR_FROM, _FOUR_UNTIL = 1 << 20, 1 << 27
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


#: By the reason's number: a list, because an enum's hash is a call in Python.
_REASONS = [_write_reason({"reason": n}, ()) for n in range(2048)]


def candidates(took_part: Iterable[tuple[bytes, int, float | None, int]]) -> list[bytes]:
    """The items of `candidates`, of (what `who` made, bid, CPM micros, pCTR, reason) each.

    Errors: ContractError when a value does not fit.
    """
    found: list[bytes] = []
    try:
        for named, bid_cpm_micros, p_ctr, reason in took_part:
            why = _REASONS[reason] if 0 <= reason < len(_REASONS) else _write_reason({"reason": reason}, ())
            if p_ctr is None:
                found.append(named + write_long(bid_cpm_micros) + b"\x00" + why)
            elif _FOUR_FROM <= bid_cpm_micros < _FOUR_UNTIL:
                n = bid_cpm_micros << 1  # zig-zag; seven bits to a byte, and a bit that says that another follows
                four = n & 0x7F | (n & 0x3F80) << 1 | (n & 0x1FC000) << 2 | (n & 0xFE00000) << 3 | 0x808080
                found.append(named + _write_four_and_some(four, 2, p_ctr) + why)
            else:
                found.append(named + write_long(bid_cpm_micros) + _write_some(2, p_ctr) + why)
    except PROBLEMS as e:
        raise ContractError(f"a candidate does not fit: {e}") from e
    return found


class DecisionEncoder:
    """Encodes decisions under the id that the registry gave their schema."""

    def __init__(self, schema_id: int) -> None:
        self._header = header(schema_id)

    def __call__(self, decision: Mapping[str, Any], candidates: Sequence[bytes]) -> bytes:
        """A whole record; `candidates` makes its items. Errors: ContractError when a value does not fit."""
        try:
            return _write_decision(decision, (self._header, write_array(candidates)))
        except PROBLEMS as e:
            raise ContractError(f"does not fit {_NAME}: {type(e).__name__}: {e}") from e
