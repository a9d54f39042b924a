"""Experiments: who is in which cell is a matter of the hash alone; a held-out viewer's winner is a ghost."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.catalog import Catalog, Experiment, ExperimentCell
from schemas.catalog_text import dump, load_catalog
from schemas.decisions import Outcome
from schemas.errors import ConfigError
from serving.adserver.decision import Decision
from serving.adserver.experiments import HOLD_OUT, Experiments
from serving.adserver.inventory import Inventory
from serving.adserver.openrtb.messages import decode_request
from tests.samples.adserver import DOLLAR, KeptLog, PlannedStore, bid_request, catalog, decider

ADS = [
    {"id": "a", "pricing": "cpm", "bid_micros": 9 * DOLLAR},
    {"id": "b", "pricing": "cpm", "bid_micros": 8 * DOLLAR},
    {"id": "c", "pricing": "cpm", "bid_micros": 7 * DOLLAR},
]
VIEWERS = [f"v1:{n:022d}" for n in range(20_000)]
#: Chi-square with a chance of one in a million of being exceeded, by degrees of freedom.
CHI_SQUARE = {1: 23.9, 3: 30.7}


def _with(*experiments: Experiment, floor_cpm_micros: int = 0) -> Catalog:
    return replace(catalog(ADS, floor_cpm_micros), experiments=list(experiments))


def _chi_square(found: Counter[Any], expected: dict[Any, float]) -> float:
    assert found.keys() <= expected.keys()
    return sum((found[k] - e) ** 2 / e for k, e in expected.items())


def _decide(
    secrets: Path, market: Catalog, imp: dict[str, Any] | None = None
) -> tuple[Decision, PlannedStore, KeptLog]:
    store, log = PlannedStore(), KeptLog()
    made, serving = decider(secrets, ADS, store, log=log)
    serving.inventory = Inventory(market)
    changes = {"imp": [imp]} if imp else {}
    request = decode_request(msgspec.json.encode(bid_request(**changes)))

    async def run() -> list[Decision]:
        return await made.decide(request, asyncio.get_running_loop().time())

    return asyncio.run(run())[0], store, log


def test_cells_have_their_share_of_viewers_and_hold_outs_theirs() -> None:
    cells = [ExperimentCell("x", 1), ExperimentCell("y", 2), ExperimentCell("z", 1)]
    ready = Experiments(_with(Experiment("e", "salt", cells, 2_000, ["cmp-a"])))
    found = Counter(ready.assign(v).cells["e"] for v in VIEWERS)
    n = len(VIEWERS)
    expected = {HOLD_OUT: 0.2 * n, "x": 0.2 * n, "y": 0.4 * n, "z": 0.2 * n}
    assert _chi_square(found, expected) < CHI_SQUARE[3]
    assert found == Counter(
        Experiments(_with(Experiment("e", "salt", cells, 2_000, ["cmp-a"]))).assign(v).cells["e"] for v in VIEWERS
    )


def test_experiments_are_independent_of_each_other() -> None:
    cells = [ExperimentCell("x"), ExperimentCell("y")]
    ready = Experiments(_with(Experiment("e", "one", cells), Experiment("f", "two", cells)))
    found = Counter(tuple(ready.assign(v).cells.values()) for v in VIEWERS)
    quarter = len(VIEWERS) / 4
    assert _chi_square(found, dict.fromkeys([(a, b) for a in "xy" for b in "xy"], quarter)) < CHI_SQUARE[3]


def test_who_may_not_be_known_is_in_no_experiment() -> None:
    assert not Experiments(_with(Experiment("e", "s", [ExperimentCell("x")]))).assign(None).cells


def test_a_held_out_winner_is_a_ghost_that_costs_nothing(tmp_path: Path) -> None:
    market = _with(Experiment("lift", "s", [], 10_000, ["cmp-a", "cmp-b"]))
    decision, store, log = _decide(tmp_path, market)
    assert decision.winner is not None and decision.winner.creative_id == "cr-c"
    assert {c.creative_id: c.outcome for c in decision.candidates} == {
        "cr-a": Outcome.GHOST,
        "cr-b": Outcome.HELD_OUT,
        "cr-c": Outcome.WON,
    }
    assert [r.campaign_id for r in store.reservations if r] == ["cmp-c"]
    (record,) = store.records
    assert record.experiments == {"lift": HOLD_OUT} == log.decisions[0]["experiments"]
    ghost = next(c for c in log.decisions[0]["candidates"] if c["reason"] == Outcome.GHOST)
    assert ghost["bid_cpm_micros"] == 9 * DOLLAR


def test_ghosts_of_two_experiments_are_told_apart(tmp_path: Path) -> None:
    market = _with(Experiment("e", "1", [], 10_000, ["cmp-a"]), Experiment("f", "2", [], 10_000, [], ["adv-b"]))
    decision, _, _ = _decide(tmp_path, market)
    assert [c.outcome for c in decision.candidates] == [Outcome.GHOST, Outcome.GHOST, Outcome.WON]


def test_a_ghost_leaves_its_seconds_of_a_pod_to_others(tmp_path: Path) -> None:
    imp = {"id": "1", "tagid": "pl-video", "video": {"mimes": ["video/mp4"], "poddur": 30, "maxseq": 2}}
    decision, store, _ = _decide(tmp_path, _with(Experiment("e", "1", [], 10_000, ["cmp-a"])), imp)
    assert [r.creative_id for r in store.records] == ["cr-b", "cr-c"]
    assert {c.creative_id: c.outcome for c in decision.candidates}["cr-a"] is Outcome.GHOST


def test_a_cell_switches_line_items_off_and_moves_the_floor(tmp_path: Path) -> None:
    off = _with(Experiment("e", "s", [ExperimentCell("x", off_line_items=["li-a"])]))
    decision, _, _ = _decide(tmp_path, off)
    assert [c.outcome for c in decision.candidates][:2] == [Outcome.EXPERIMENT_OFF, Outcome.WON]
    floor = _with(Experiment("e", "s", [ExperimentCell("x", floor_percent=170)]), floor_cpm_micros=5 * DOLLAR)
    decision, _, _ = _decide(tmp_path, floor)
    assert [c.outcome for c in decision.candidates] == [Outcome.WON, Outcome.BELOW_FLOOR, Outcome.BELOW_FLOOR]


@pytest.mark.parametrize(
    "broken",
    [
        Experiment("e", ""),
        Experiment("e", "s", [ExperimentCell("x", 0)]),
        Experiment("e", "s", [ExperimentCell("x"), ExperimentCell("x")]),
        Experiment("e", "s", [ExperimentCell(HOLD_OUT)]),
        Experiment("e", "s", [], 10_001, ["cmp-a"]),
        Experiment("e", "s", [], 100),
    ],
)
def test_an_experiment_that_can_not_be_run_is_refused(broken: Experiment) -> None:
    with pytest.raises(ConfigError):
        Experiments(_with(broken))


def test_two_experiments_with_one_salt_are_refused_and_so_are_unknown_ids() -> None:
    with pytest.raises(ConfigError, match="salt"):
        Experiments(_with(Experiment("e", "s"), Experiment("f", "s")))
    fine = _with(Experiment("e", "s", [ExperimentCell("x", off_line_items=["li-a"])], 1, ["cmp-a"], ["adv-a"]))
    assert load_catalog(dump(fine)) == fine
    with pytest.raises(ConfigError, match=r"experiments\[0\].*li-none"):
        load_catalog(dump(_with(Experiment("e", "s", [ExperimentCell("x", off_line_items=["li-none"])]))))
