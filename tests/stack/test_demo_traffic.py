"""Traffic through everything real, every hop against the ledger: undisturbed, and with processes killed under it.

Each test counts only what it added (a snapshot before, differences after), so that they can share one stack.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from connectors.endpoints import Endpoints
from infra.demo.drain import reconcile
from infra.demo.hops import take_snapshot
from infra.demo.reconcile import Report
from infra.demo.stretch import run_stretch
from infra.simulator.cli import run_traffic
from infra.simulator.ledger import Truth, read_truth
from infra.simulator.traffic import TrafficSettings
from infra.simulator.world import build_world
from tests.samples.faults import ROUNDS, during, kill, rng_of

pytestmark = pytest.mark.stack

#: Longer than any restart here, and than the silence that closes the last sessions.
QUIET_S = 150.0


def _assert_exact(report: Report, truth: Truth) -> None:
    assert report.exact, "\n".join(report.differences)
    assert truth.total.impressions > 0 and truth.total.clicks > 0 and truth.total.spend_micros > 0
    assert truth.duplicates > 0, "nothing was planted: the comparison would prove too little"


def test_every_hop_agrees_with_the_ledger(stack: Endpoints) -> None:
    before = take_snapshot(stack)
    settings = TrafficSettings(requests=450, rps=25, first_request=100_000)
    stretch = run_stretch(stack, build_world(), settings, "test-undisturbed")
    truth = read_truth(stretch.ledger)
    _assert_exact(reconcile(stack, truth, before, quiet_s=QUIET_S), truth)
    assert truth.late > 0 and truth.rejects.total() > 0
    assert stretch.freshness.valkey_ms and stretch.freshness.druid_ms
    assert stretch.counts.failed == 0 and stretch.counts.unreadable == 0


@pytest.mark.parametrize(
    ("victims", "with_sessions", "first_request"),
    [
        (("publisher", "flink-taskmanager", "materializer"), True, 200_000),
        (("lake", "druid"), False, 300_000),
    ],
    ids=["stream", "stores"],
)
def test_counts_stay_exact_when_processes_are_killed(
    stack: Endpoints, victims: tuple[str, ...], with_sessions: bool, first_request: int
) -> None:
    before = take_snapshot(stack)
    settings = TrafficSettings(requests=500 * ROUNDS, rps=25, first_request=first_request)
    draw = rng_of(f"kills from {first_request}")

    def kill_all() -> None:
        for name in victims * ROUNDS:
            time.sleep(draw.uniform(1.0, 5.0))
            kill(stack, name)

    with during(kill_all):
        _counts, ledger = run_traffic(stack, build_world(), settings, f"test-kills-{first_request}")
    truth = read_truth(Path(ledger))
    _assert_exact(reconcile(stack, truth, before, quiet_s=QUIET_S, with_sessions=with_sessions), truth)
