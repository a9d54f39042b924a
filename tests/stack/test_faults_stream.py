"""The stream jobs under faults of everything they stand on: after each, every output is compared as a set.

The TaskManager's kills are in test_streaming_application.py, the workers' in tests/contract and test_demo_traffic.py.
"""

from __future__ import annotations

import time

import pytest

from connectors import kafka
from connectors.flink.rest import FlinkRest
from schemas.topics import AD_EVENTS, CAMPAIGN_METRICS
from tests.samples.faults import (
    PAUSE_S,
    ROUNDS,
    StreamUnderTest,
    full_disk,
    kill,
    open_transaction,
    pause,
    rng_of,
    without,
)
from tests.samples.ingest import wait_until

pytestmark = pytest.mark.stack

ADS = 150
EVENTS_PER_S = 120.0
#: How often the broker looks for transactions that have outlived their timeout (Kafka's default).
ABORT_CHECK_S = 10.0
#: Longer than Flink waits for a heartbeat (20 s), and less than what closes sessions meanwhile.
MISSED_S = 30.0


@pytest.mark.parametrize("component", ["flink-jobmanager", "kafka"])
def test_outputs_stay_exact_when_it_is_killed(stream: StreamUnderTest, component: str) -> None:
    draw = rng_of(component)
    for number in range(ROUNDS):
        events = stream.events(ADS)
        fault_at = draw.randrange(40, len(events) * 2 // 3)
        print(f"round {number + 1} of {ROUNDS}: {component} is killed after {fault_at} of {len(events)} events")
        stream.run(events, EVENTS_PER_S, lambda: kill(stream.where, component), after=fault_at)
        stream.assert_exact()


@pytest.mark.parametrize(
    ("component", "pause_s"),
    [("kafka", PAUSE_S), ("flink-jobmanager", PAUSE_S), ("flink-taskmanager", max(PAUSE_S, MISSED_S))],
)
def test_outputs_stay_exact_when_it_stands_still(stream: StreamUnderTest, component: str, pause_s: float) -> None:
    """A TaskManager for so long that it has been given up, and goes on as if it had not."""
    with FlinkRest(stream.where.flink_rest_url) as rest:
        restarts = rest.restarts(stream.settle())
        events = stream.events(ADS)
        fault_at = rng_of(f"pause of {component}").randrange(40, len(events) // 2)
        stream.run(events, EVENTS_PER_S, lambda: pause(stream.where, pause_s, component), after=fault_at)
        stream.assert_exact()
        if component == "flink-taskmanager":
            assert rest.restarts(stream.settle()) > restarts, "nobody missed it"


def test_a_restart_waits_for_the_registry(stream: StreamUnderTest) -> None:
    """New tasks know no schema yet: what they read meanwhile is neither skipped nor refused."""

    def restart_without_registry() -> None:
        with without(stream.where, "registry"):
            kill(stream.where, "flink-taskmanager")
            time.sleep(5)

    events = stream.events(ADS)
    fault_at = rng_of("registry").randrange(40, len(events) // 2)
    stream.run(events, EVENTS_PER_S, restart_without_registry, after=fault_at)
    stream.assert_exact()


def test_outputs_stay_exact_when_checkpoints_find_no_space(stream: StreamUnderTest) -> None:
    with FlinkRest(stream.where.flink_rest_url) as rest:
        job_id = stream.settle()

        def failed() -> int:
            return int(rest.checkpoints(job_id)["counts"]["failed"])

        def fill_disk() -> None:
            before = failed()
            with full_disk(stream.where, "flink-jobmanager", "flink-taskmanager"):
                wait_until("checkpoints fail", lambda: failed() >= before + 2)

        events = stream.events(ADS)
        stream.run(events, EVENTS_PER_S, fill_disk, after=rng_of("disk").randrange(40, len(events) // 2))
    stream.assert_exact()


def test_a_killed_writers_transaction_holds_readers_up_no_longer_than_its_timeout(stream: StreamUnderTest) -> None:
    """Readers of committed records stop at an open transaction. It ends with its timeout, and at most one more look
    of the broker later; or at once when the writer is started again."""
    stream.settle()
    timeout_ms = 5_000
    before = time.monotonic()
    left_open = open_transaction("test-hanging-alone", AD_EVENTS.name, timeout_ms)
    stream.writer.write(stream.events(20), per_second=1_000)
    behind = sum(kafka.end_offsets(AD_EVENTS.name).values())
    wait_until("readers go on", lambda: sum(kafka.end_offsets(AD_EVENTS.name).values()) > behind)
    assert time.monotonic() - before < timeout_ms / 1000 + ABORT_CHECK_S + 10, (
        "the broker's own delay, and a slow machine"
    )
    del left_open

    left_open = open_transaction("test-hanging-restarted", AD_EVENTS.name, timeout_ms=600_000)
    stream.writer.write(stream.events(20), per_second=1_000)
    behind = sum(kafka.end_offsets(AD_EVENTS.name).values())
    kafka.transactional_producer("test-hanging", "test-hanging-restarted")
    wait_until("readers go on", lambda: sum(kafka.end_offsets(AD_EVENTS.name).values()) > behind)
    del left_open
    stream.assert_exact()


def test_a_sinks_transaction_that_no_checkpoint_knows_ends_when_the_jobs_restart(stream: StreamUnderTest) -> None:
    """What a TaskManager leaves behind that never wrote its checkpoint. Readers would wait for ten minutes."""
    left_open = open_transaction(
        "campaign_metrics-campaign_metrics-0-1000000", CAMPAIGN_METRICS.name, timeout_ms=600_000
    )
    events = stream.events(ADS)
    fault_at = rng_of("lost transaction").randrange(40, len(events) // 2)
    stream.run(events, EVENTS_PER_S, lambda: kill(stream.where, "flink-taskmanager"), after=fault_at)
    stream.assert_exact()
    del left_open


def test_sessions_are_exact_after_all_of_it(stream: StreamUnderTest) -> None:
    stream.assert_exact_when_closed()
