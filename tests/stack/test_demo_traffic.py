"""Traffic through everything real, every hop against the ledger: undisturbed, and with processes killed under it.

Each test counts only what it added (a snapshot before, differences after), so that they can share one stack.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import httpx
import pytest

from connectors.endpoints import Endpoints
from connectors.valkey import Valkey
from infra.demo import hops
from infra.demo.drain import drain_hops, reconcile, wait_published
from infra.demo.hops import take_snapshot
from infra.demo.reconcile import Report, compare
from infra.demo.stretch import run_stretch
from infra.demo.tally import KafkaTally
from infra.simulator.cli import run_traffic
from infra.simulator.ledger import Truth, read_truth
from infra.simulator.traffic import TrafficSettings
from infra.simulator.world import build_world
from tests.samples.faults import ROUNDS, during, kill, rng_of
from tests.samples.ingest import now_ms, wait_until

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
    assert truth.late > 0 and truth.ahead > 0 and truth.rejects.total() > 0
    assert stretch.freshness.valkey_ms and stretch.freshness.druid_ms
    assert stretch.counts.failed == 0 and stretch.counts.unreadable == 0


def _beacons_around(ledger: Path, time_ms: int) -> tuple[int, int]:
    """Beacons that were fired in the seconds before and after a time."""
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as database:
        asked = "SELECT COALESCE(SUM(fired_ms <= ?1), 0), COALESCE(SUM(fired_ms > ?1), 0) FROM beacons "
        found: tuple[int, int] = database.execute(
            asked + "WHERE fired_ms BETWEEN ?1 - 3000 AND ?1 + 3000", (time_ms,)
        ).fetchone()
    return found


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
    """The traffic goes on until the last of them has come back: how long that takes is the supervisor's affair."""
    before = take_snapshot(stack)
    settings = TrafficSettings(requests=500, rps=25, first_request=first_request)
    draw = rng_of(f"kills from {first_request}")
    struck_ms: list[int] = []
    over = threading.Event()

    def kill_all() -> None:
        try:
            for name in victims * ROUNDS:
                time.sleep(draw.uniform(1.0, 5.0))
                struck_ms.append(now_ms())
                kill(stack, name)
        finally:
            over.set()

    with during(kill_all):
        _counts, ledger = run_traffic(stack, build_world(), settings, f"test-kills-{first_request}", until=over.is_set)
    assert len(struck_ms) == len(victims) * ROUNDS
    assert all(min(_beacons_around(ledger, time_ms)) > 0 for time_ms in struck_ms), "a kill struck silence"
    truth = read_truth(ledger)
    _assert_exact(reconcile(stack, truth, before, quiet_s=QUIET_S, with_sessions=with_sessions), truth)


def _without_budgets(where: Endpoints) -> float:
    """Decisions made so far while the campaigns' spend was not known (reason 2003)."""
    shown = httpx.get(f"{where.adserver_url}/metrics", timeout=10).text.splitlines()
    name = 'adserver_degraded_total{reason="budget_unavailable"} '
    return next((float(line.removeprefix(name)) for line in shown if line.startswith(name)), 0.0)


def test_an_emptied_valkey_degrades_answers_and_is_filled_again(stack: Endpoints) -> None:
    """Emptied under traffic. What an ad was that no publisher had looked up before, nobody knows any more: its beacons
    are dead letters. Every beacon is an event or a dead letter, and every event is counted everywhere."""
    before = take_snapshot(stack)
    settings = TrafficSettings(requests=100, rps=10, first_request=400_000)
    draw = rng_of("emptied")
    over = threading.Event()

    def empty() -> None:
        try:
            for _ in range(ROUNDS):
                time.sleep(draw.uniform(3.0, 6.0))
                degraded = _without_budgets(stack)
                with Valkey(stack.valkey_url) as valkey:
                    valkey.call("FLUSHALL")
                wait_until("campaigns with a budget stay out", lambda d=degraded: _without_budgets(stack) > d)  # type: ignore[misc]
                wait_until("they are back", lambda: _stays_at(_without_budgets(stack)), 240)
        finally:
            over.set()

    def _stays_at(degraded: float) -> bool:
        time.sleep(3.0)
        return _without_budgets(stack) == degraded

    with during(empty):
        counts, ledger = run_traffic(stack, build_world(), settings, "test-emptied", until=over.is_set)
    assert (counts.failed, counts.unreadable) == (0, 0), "only 200 and 204, and every answer can be read"
    truth = read_truth(ledger)
    wait_published()
    with KafkaTally(stack, before.offsets, before.event_ids) as tally:
        tally.read_to_end()
        counted = hops.kafka_counts(tally)[hops.KAFKA]
        sent = truth.events + truth.duplicates + truth.rejects.total() + truth.conversions
        assert tally.events + tally.dead_letters.total() == sent
        assert set(tally.dead_letters) <= {*truth.rejects, "registry_miss"}
    drained = drain_hops(stack, counted, before, with_sessions=False, quiet_s=QUIET_S)
    wrong = [line for line in compare(counted, drained.hops) if line.measure != "sessions_completed" and not line.exact]
    assert not wrong
