"""Which cell of each experiment a viewer is in: by a salted hash, so the same everywhere and always, without a store.

The viewer is the user's pseudonym, else the household's; who may not be known is in no experiment. Experiments with
different salts are independent of each other; a new salt draws anew, and so does a new pseudonym key.

A held-out viewer is not shown the experiment's campaigns. When one of them would have won, it is logged with the
reason `GHOST` and its price, reserves and costs nothing, and the auction goes on without that experiment's campaigns:
conversions of held-out viewers with a ghost are compared with those of treated viewers with an impression. What is
treated is then comparable but for frequency caps: a ghost fills none.
Source: Johnson, Lewis and Nubbemeyer, "Ghost Ads: Improving the Economics of Measuring Online Ad Effectiveness",
Journal of Marketing Research 54 (2017).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from schemas.catalog import Catalog, Experiment, ExperimentCell
from schemas.decisions import Outcome
from schemas.errors import ConfigError

if TYPE_CHECKING:  # the inventory holds the experiments
    from serving.adserver.auction.rules import Candidate
    from serving.adserver.inventory import AdRow

HOLD_OUT = "hold_out"
_BASIS_POINTS = 10_000
_HALF = 1 << 64


@dataclass(frozen=True, slots=True)
class Assignment:
    """A viewer's cells by experiment, and what they change. `held` maps a campaign to the experiment that holds it."""

    cells: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    off_line_items: frozenset[str] = frozenset()
    floor_percent: int = 100
    model_alias: str = ""

    def switch_off(self, internal: Iterable[tuple[AdRow, Candidate]]) -> None:
        """Takes out line items that are off in the viewer's cells."""
        if self.off_line_items:
            for row, candidate in internal:
                if candidate.runs and row.line_item.id in self.off_line_items:
                    candidate.outcome = Outcome.EXPERIMENT_OFF

    def becomes_ghost(self, winner: Candidate, internal: Iterable[tuple[AdRow, Candidate]]) -> bool:
        """Whether a winner may not be shown to this viewer; it is then a ghost, and its experiment's others are out."""
        experiment = self.held.get(winner.campaign_id) if self.held else None
        if experiment is None:
            return False
        for _, candidate in internal:
            if candidate.runs and self.held.get(candidate.campaign_id) == experiment:
                candidate.outcome = Outcome.HELD_OUT
        winner.outcome = Outcome.GHOST
        return True


NOBODY = Assignment()


@dataclass(frozen=True, slots=True)
class _Ready:
    """An experiment, ready to be asked: cumulated weights of its cells, and the campaigns that it may hold back."""

    id: str
    salt: bytes
    cells: Sequence[ExperimentCell]
    upto: Sequence[int]
    hold_out_below: int
    held: Mapping[str, str] = field(default_factory=dict)


class Experiments:
    """The experiments of a catalogue. Errors: ConfigError for one that could not be run as it says."""

    def __init__(self, catalog: Catalog) -> None:
        self._ready = [_ready(experiment, catalog) for experiment in catalog.experiments]
        if len({e.salt for e in self._ready}) < len(self._ready):
            raise ConfigError("experiments: two of them have one salt, so their cells would not be independent")

    def __bool__(self) -> bool:
        return bool(self._ready)

    def assign(self, viewer: str | None) -> Assignment:
        """The viewer's cells. Deterministic."""
        if viewer is None or not self._ready:
            return NOBODY
        cells: dict[str, str] = {}
        held: dict[str, str] = {}
        off: set[str] = set()
        floor_percent, model_alias = 100, ""
        raw = viewer.encode()
        for experiment in self._ready:
            digest = hashlib.blake2b(raw, digest_size=16, key=experiment.salt).digest()
            if int.from_bytes(digest[:8], "little") < experiment.hold_out_below:
                cells[experiment.id] = HOLD_OUT
                held.update(experiment.held)
                continue
            cell = _cell(experiment, int.from_bytes(digest[8:], "little"))
            cells[experiment.id] = cell.name
            off.update(cell.off_line_items)
            floor_percent = floor_percent * cell.floor_percent // 100
            model_alias = model_alias or cell.model_alias
        return Assignment(cells, held, frozenset(off), floor_percent, model_alias)


def _cell(experiment: _Ready, draw: int) -> ExperimentCell:
    """`draw` is uniform in [0, 2^64)."""
    at = draw * experiment.upto[-1] // _HALF
    return next(cell for cell, upto in zip(experiment.cells, experiment.upto, strict=True) if at < upto)


def _ready(experiment: Experiment, catalog: Catalog) -> _Ready:
    name = f"experiment {experiment.id}"
    cells = experiment.cells or [ExperimentCell("treated")]
    if not experiment.salt or len(experiment.salt.encode()) > hashlib.blake2b.MAX_KEY_SIZE:
        raise ConfigError(f"{name}: a salt has 1 to {hashlib.blake2b.MAX_KEY_SIZE} bytes")
    if any(c.weight <= 0 or not 0 <= c.floor_percent <= 1_000 for c in cells):
        raise ConfigError(f"{name}: a cell's weight is above 0, its floor_percent 0 to 1000")
    if len({c.name for c in cells} | {HOLD_OUT}) < len(cells) + 1:
        raise ConfigError(f"{name}: names of cells differ, and none is {HOLD_OUT!r}")
    if not 0 <= experiment.hold_out_basis_points <= _BASIS_POINTS:
        raise ConfigError(f"{name}: hold_out_basis_points is 0 to {_BASIS_POINTS}")
    campaigns = {c.id for c in catalog.campaigns if c.advertiser_id in experiment.advertiser_ids}
    campaigns.update(experiment.campaign_ids)
    if experiment.hold_out_basis_points and not campaigns:
        raise ConfigError(f"{name}: a hold-out needs campaign_ids or advertiser_ids to hold out from")
    return _Ready(
        experiment.id,
        experiment.salt.encode(),
        cells,
        list(accumulate(c.weight for c in cells)),
        experiment.hold_out_basis_points * _HALF // _BASIS_POINTS,
        dict.fromkeys(campaigns, experiment.id),
    )
