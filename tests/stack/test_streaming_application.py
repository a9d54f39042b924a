"""The stream jobs on a real Kafka, registry and Flink: every output equals the plain-Python rules, kills included."""

from __future__ import annotations

import pytest

from connectors.flink.rest import FlinkRest
from tests.samples.faults import ROUNDS, StreamUnderTest, kill, rng_of

pytestmark = pytest.mark.stack

ADS = 250
EVENTS_PER_S = 120.0


def test_outputs_equal_the_rules_though_the_taskmanager_is_killed(stream: StreamUnderTest) -> None:
    draw = rng_of("taskmanager")
    for number in range(ROUNDS):
        with FlinkRest(stream.where.flink_rest_url) as rest:
            job_id = stream.settle()
            restarts = rest.restarts(job_id)
            events = stream.events(ADS)
            for value in stream.poison(events[0]):
                stream.writer.write_raw(value)
            mixed = [*events, *stream.refused(events)]
            fault_at = draw.randrange(40, len(events) // 2)
            print(f"round {number + 1} of {ROUNDS}: killed after {fault_at} of {len(mixed)} events")
            stream.run(mixed, EVENTS_PER_S, lambda: kill(stream.where, "flink-taskmanager"), after=fault_at)
            assert stream.settle() == job_id, "the application was submitted again"
            assert rest.restarts(job_id) > restarts, "it was not disturbed"
        stream.assert_exact()
    stream.assert_exact_when_closed()
