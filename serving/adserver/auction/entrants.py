"""Who enters an imp, worked out once for all imps that are alike: of one shape, for one audience, at one time.

What does not depend on the request is remembered: which of our creatives fit (shape: `ImpRules.shape`), whom line items
want (audience), and who is active, which is so until the next campaign begins or ends. A request copies the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from schemas.decision_encoder import who
from schemas.decisions import Outcome
from serving.adserver.auction import rules
from serving.adserver.auction.deals import DealTerms
from serving.adserver.auction.imp_rules import ImpRules
from serving.adserver.auction.rules import Candidate
from serving.adserver.inventory import AdRow, Inventory
from serving.adserver.targeting import Audience

#: Audiences that are remembered of a shape.
_KEPT_AUDIENCES = 128
#: About what a candidate takes in memory, and a place in a field.
_CANDIDATE_BYTES, _PLACE_BYTES = 400, 32
_LONG_AGO_MS, _NEVER_MS = -(2**62), 2**62
#: `copy.copy` at a fifth of its cost: it looks this up each time. Not in msgspec's stub.
_copy: Callable[[Candidate], Candidate] = Candidate.__copy__  # type: ignore[attr-defined]


def silent(bidder_id: str, outcome: Outcome) -> Candidate:
    """A DSP that has no bid for an imp, and why."""
    return _copy(_silent(bidder_id, outcome))


@lru_cache(maxsize=4096)
def _silent(bidder_id: str, outcome: Outcome) -> Candidate:
    made = Candidate("dsp", "rtb", "", "", "", bidder_id=bidder_id, outcome=outcome)
    made.named = who(made.kind, "", "", "", bidder_id)
    return made


def places_of(rows: Sequence[AdRow]) -> np.ndarray:
    """The rows' places in the inventory's arrays. Shape: intp."""
    return np.array([row.row for row in rows], np.intp)


class Field(NamedTuple):
    """Who takes part from `from_ms` until `until_ms` (epoch), and the house ads that may stand in."""

    rows: tuple[AdRow, ...]
    candidates: tuple[Candidate, ...]  # of the rows; to be copied, not changed
    places: np.ndarray  # of the rows in the inventory
    house: tuple[AdRow, ...]
    from_ms: int
    until_ms: int

    def enter(self, deals: Mapping[str, DealTerms]) -> list[tuple[AdRow, Candidate]]:
        """The candidates of one imp, with its deals."""
        entered = list(zip(self.rows, map(_copy, self.candidates), strict=True))
        if deals:
            for row, candidate in entered:
                rules.enter_deal(candidate, row, deals)
        return entered


class Entrants:
    """The fields of imps of one shape in one inventory."""

    def __init__(self) -> None:
        self.kept_bytes = _CANDIDATE_BYTES  # its own
        self._field_bytes = 0
        self._fitting: dict[int, Candidate] = {}  # by the row's place: refused or not
        self._fields: dict[tuple[tuple[str, ...], Audience], Field] = {}

    def field(self, inventory: Inventory, audience: Audience, imp_rules: ImpRules, now_ms: int) -> Field:
        """The field of an imp. `audience` is one of `inventory.audience`."""
        key = imp_rules.formats, audience
        found = self._fields.get(key)
        if found is None or not found.from_ms <= now_ms < found.until_ms:
            before = self.kept_bytes
            if len(self._fields) >= _KEPT_AUDIENCES:
                self._fields.clear()
                self.kept_bytes -= self._field_bytes
                self._field_bytes = 0
            found = self._fields[key] = self._made(inventory, audience, imp_rules, now_ms)
            inventory.has_grown(self.kept_bytes - before)
        return found

    def _made(self, inventory: Inventory, audience: Audience, imp_rules: ImpRules, now_ms: int) -> Field:
        competing: list[AdRow] = []
        standing_in: list[AdRow] = []
        for ad_format in imp_rules.formats:
            rows, house = inventory.targeted(ad_format, audience)
            competing += rows
            standing_in += house
        candidates = []
        known, copied = len(self._fitting), 0
        for row in competing:
            candidate = self._candidate(row, imp_rules)
            if not row.runs_at(now_ms):
                candidate = _copy(candidate)
                candidate.outcome = Outcome.NOT_ACTIVE
                copied += 1
            candidates.append(candidate)
        field_bytes = _PLACE_BYTES * (1 + len(candidates)) + _CANDIDATE_BYTES * copied
        self._field_bytes += field_bytes
        self.kept_bytes += field_bytes + _CANDIDATE_BYTES * (len(self._fitting) - known)
        turns_ms = {at_ms for row in competing for at_ms in (row.from_ms, row.until_ms)}
        return Field(
            tuple(competing),
            tuple(candidates),
            places_of(competing),
            tuple(standing_in),
            max((at_ms for at_ms in turns_ms if at_ms <= now_ms), default=_LONG_AGO_MS),
            min((at_ms for at_ms in turns_ms if at_ms > now_ms), default=_NEVER_MS),
        )

    def _candidate(self, row: AdRow, imp_rules: ImpRules) -> Candidate:
        found = self._fitting.get(row.row)
        if found is None:
            found = self._fitting[row.row] = rules.from_row(row)
            refused = imp_rules.refuses(row)
            if refused is not None:
                found.outcome = refused
        return found
