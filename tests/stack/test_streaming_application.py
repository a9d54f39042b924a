"""The stream jobs on a real Kafka, registry and Flink: every output equals the plain-Python rules, kills included."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.endpoints import Endpoints, endpoints
from connectors.flink.rest import FlinkRest
from connectors.registry import SchemaRegistry
from jobs.streaming.application import ALL_JOBS
from jobs.streaming.progress import drain
from jobs.transforms.event_rules import accepted, is_late
from jobs.transforms.rollups import campaign_metrics, campaign_spend, counter_values, metrics_key
from jobs.transforms.sessions import sessions
from schemas.campaign_metrics import MAXIMA, SUMS
from schemas.features import FEATURE_COUNTERS, FREQUENCY_COUNTERS
from schemas.topics import (
    AD_EVENTS_DLQ,
    AD_EVENTS_LATE,
    AD_SESSIONS,
    CAMPAIGN_METRICS,
    CAMPAIGN_SPEND,
    FREQUENCY_COUNTS,
    STREAMING_FEATURES,
)
from tests.samples.ad_traffic import traffic
from tests.samples.stream_io import EventWriter, complete, read_avro, read_json

PORT_BASE = int(os.environ.get("HEADWATER_TEST_PORT_BASE", "19500")) + 50  # of its own: it owns all events
GAP_S = 3
IDLE_S = 20
CLOCK_DELAY_S = 30
ADS = 700
EVENTS_PER_S = 120.0
SETTINGS = {
    "HEADWATER_STREAMING_SESSION_GAP_S": str(GAP_S),
    "HEADWATER_STREAMING_SOURCE_IDLE_S": str(IDLE_S),
    "HEADWATER_STREAMING_CLOCK_DELAY_S": str(CLOCK_DELAY_S),
    "HEADWATER_STREAMING_CHECKPOINT_INTERVAL_MS": "1000",
}


def command(*arguments: str) -> str:
    """Output of one of the project's commands; its failure fails the test."""
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def streaming_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Kafka, registry and Flink of this module's own, with the application running."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HEADWATER_PORT_BASE", str(PORT_BASE))
    patch.setenv("HEADWATER_HOME", str(tmp_path_factory.mktemp("streaming")))
    for name, value in SETTINGS.items():
        patch.setenv(name, value)
    endpoints.cache_clear()
    command("infra.cli.app", "up", "--only", "contracts,flink-taskmanager")
    try:
        command("jobs.streaming", "submit")
        yield endpoints()
    finally:
        command("infra.cli.app", "down", "--wipe")
        patch.undo()
        endpoints.cache_clear()


def kill_taskmanager(home: Path) -> None:
    pid = json.loads((home / "state.json").read_text())["components"]["flink-taskmanager"]["pid"]
    os.kill(pid, signal.SIGKILL)


def rejects(template: dict[str, Any]) -> list[dict[str, Any]]:
    """Events that fit the schema and break a rule, one each."""
    changes: list[dict[str, Any]] = [
        {"campaign_id": "", "event_id": b"r" * 16},
        {"cost_micros": -1, "event_id": b"s" * 16},
        {"event_time_ms": template["event_time_ms"] - 8 * 86_400_000, "event_id": b"t" * 16},
    ]
    return [{**template, **change} for change in changes]


def undecodable(valid: bytes) -> list[bytes]:
    """Values that no reader can decode: the lake writes their dead letters, Flink must go on."""
    return [
        b"",
        b"no header",
        valid[:1] + (2**31 - 1).to_bytes(4, "big") + valid[5:],  # a schema id that nobody registered
        valid[: len(valid) // 2],
        valid + b"\x02",  # a decoder that reads ahead takes it for the beginning of the next record
        valid[:5] + b"\xff" * 40,
    ]


def test_outputs_equal_the_rules_though_the_taskmanager_is_killed(streaming_stack: Endpoints) -> None:
    registry = SchemaRegistry(streaming_stack.registry_url)
    writer = EventWriter(registry, "test-publisher")
    made = traffic(seed=7, ads=ADS, span_ms=60_000)
    middle = len(made.events) // 2
    before = [complete(event) for event in [*made.events[:middle], *rejects(made.events[middle])]]
    after = [complete(event) for event in made.events[middle:]]
    kills = [len(made.events) // 3, 2 * len(made.events) // 3]

    def kill_at_a_third(written: int) -> None:
        if kills and written >= kills[0]:
            kills.pop(0)
            kill_taskmanager(streaming_stack.home)

    writer.write(before, per_second=EVENTS_PER_S, then=kill_at_a_third)
    for value in undecodable(writer.encode(before[0])):
        writer.write_raw(value)
    writer.write(after, per_second=EVENTS_PER_S, then=kill_at_a_third)
    assert not kills

    with FlinkRest(streaming_stack.flink_rest_url) as rest:
        job_id = next(d.job_id for d in rest.live() if d.name == ALL_JOBS)
        rest.wait_until_running(job_id, 120)
        assert rest.restarts(job_id) >= 2
        drain(rest, job_id, ALL_JOBS, GAP_S, timeout_s=GAP_S + CLOCK_DELAY_S + 90)
    kept = list(accepted(writer.written))
    expected_sessions = sessions(kept, GAP_S * 1000)

    assert sorted(read_avro(AD_SESSIONS, registry), key=_session_order) == expected_sessions
    assert _by_id(read_avro(AD_EVENTS_LATE, registry)) == _by_id([e for e in kept if is_late(e)])
    assert sorted(row["reason"] for row in read_avro(AD_EVENTS_DLQ, registry)) == [
        "absurd_time",
        "bad_value",
        "missing_field",
    ]
    for topic, counters in ((FREQUENCY_COUNTS, FREQUENCY_COUNTERS), (STREAMING_FEATURES, FEATURE_COUNTERS)):
        assert _greatest_values(read_avro(topic, registry)) == counter_values(kept, counters)
    assert _greatest_spend(read_avro(CAMPAIGN_SPEND, registry)) == campaign_spend(kept)
    assert _added_up(read_json(CAMPAIGN_METRICS)) == _expected_metrics(kept, expected_sessions)


def _session_order(row: dict[str, Any]) -> tuple[str, int]:
    return row["record_id"], row["closed_time_ms"]


def _by_id(events: list[dict[str, Any]]) -> dict[bytes, dict[str, Any]]:
    found = {event["event_id"]: event for event in events}
    assert len(found) == len(events), "an event twice"
    return found


def _greatest_values(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], int]:
    """The last value of each counter: values only grow, also when a restart sends some of them again."""
    values: dict[tuple[Any, ...], int] = {}
    for row in rows:
        key = tuple(row[name] for name in ("entity_type", "entity_id", "counter", "scope_id", "bucket_start_ms"))
        values[key] = max(values.get(key, 0), row["value"])
    return values


def _greatest_spend(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, int]]:
    spend: dict[tuple[str, str], dict[str, int]] = {}
    for row in rows:
        now = {"spend_micros": row["spend_micros"], "impressions": row["impressions"]}
        before = spend.get((row["campaign_id"], row["day"]), now)
        spend[row["campaign_id"], row["day"]] = max(now, before, key=lambda r: r["impressions"])
    return spend


def _added_up(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Deltas added up as Druid does; columns that are 0 are left out."""
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        total = sums.setdefault(metrics_key(row, row["minute_ms"]), {"reach_users": set()})
        for name in SUMS:
            if row[name]:
                total[name] = total.get(name, 0) + row[name]
        for name in MAXIMA:
            total[name] = max(total.get(name, 0), row[name])
        total["reach_users"] |= set(row.get("reach_users", ()))
    return sums


def _expected_metrics(
    kept: list[dict[str, Any]], closed: list[dict[str, Any]]
) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Metrics of the events, with the ads' sessions in the minute of their first event."""
    expected = campaign_metrics(kept)
    of_record = {event["record_id"]: event for event in kept}
    for session in closed:
        row = {**of_record[session["record_id"]], **session}
        total = expected.setdefault(metrics_key(row, session["first_event_time_ms"]), {"reach_users": set()})
        for name, counts in (
            ("sessions", session["impressions"] > 0),
            ("sessions_completed", session["state"] == "completed"),
        ):
            if counts:
                total[name] = total.get(name, 0) + 1
    return expected
