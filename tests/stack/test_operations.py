"""What an operator does with the stream jobs: stop and go on from a savepoint, deploy one alone, replay, scrape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from connectors.flink.rest import FlinkRest
from connectors.jars import jars_root
from infra.local.flink import environment, flink_home
from infra.monitoring import prometheus
from jobs.streaming.application import ALL_JOBS
from jobs.streaming.progress import unread
from jobs.transforms.event_rules import accepted
from schemas.errors import RejectReason
from schemas.topics import AD_EVENTS
from tests.samples.faults import StreamUnderTest, during, kill
from tests.samples.ingest import ROOT, wait_until
from tests.samples.stream_outputs import spend_is
from tests.stack.conftest import command

pytestmark = pytest.mark.stack

ADS = 40
EVENTS_PER_S = 400.0
TIMEOUT_S = 300


def stop() -> str:
    """Path of the savepoint that the application ended with."""
    return command("jobs.streaming", "savepoint", "--stop").strip().splitlines()[-1]


def submit(savepoint: str, *arguments: str) -> None:
    command("jobs.streaming", "submit", "--from", savepoint, *arguments)


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv(f"HEADWATER_STREAMING_{name}", value)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as what goes with `flink run -pyfs`; built from a copy, so that nothing is left in the checkout."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    files = ["pyproject.toml", "README.md", "LICENSE", "schemas", "connectors", "jobs", "serving", "infra"]
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in files), str(source)], check=True)
    uv = Path(sys.executable).with_name("uv")
    done = subprocess.run([uv, "build", "--wheel", "-o", built], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (found,) = built.glob("headwater-*.whl")
    return found


def flink_run(stream: StreamUnderTest, wheel: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`flink run` with the wheel alone, from a folder without the project."""
    found = environment(stream.where)
    del found["PYTHONPATH"]  # the code must come out of the wheel
    return subprocess.run(
        [flink_home() / "bin" / "flink", "run", "-d", "-pyfs", wheel, "-pym", "jobs.streaming", "run", *arguments],
        cwd=wheel.parent,
        env={
            **os.environ,
            **found,
            "HEADWATER_JARS": str(jars_root()),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def test_a_job_is_deployed_alone_and_only_once_and_the_application_goes_on_from_its_savepoint(
    stream: StreamUnderTest, wheel: Path
) -> None:
    """Stop with a savepoint; meanwhile one job alone, by `flink run` from the wheel; then on with all of them, on two
    subtasks and RocksDB; and back again. Events repeated across every change, and a kill, are still known."""
    first = stream.events(ADS)
    stream.writer.write(first, per_second=EVENTS_PER_S)
    stream.settle()
    refused = flink_run(stream, wheel, "--jobs", "campaign_spend")
    assert refused.returncode != 0 and "runs one of these jobs" in refused.stdout + refused.stderr

    savepoint = stop()
    missed = stream.events(ADS)
    stream.writer.write(missed, per_second=EVENTS_PER_S)
    alone = flink_run(stream, wheel, "--jobs", "campaign_spend", "--start", "earliest-offset")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    kept = list(accepted(stream.writer.written))
    wait_until("the job alone has counted everything", lambda: spend_is(kept, stream.registry), TIMEOUT_S)
    with during(lambda: kill(stream.where, "flink-taskmanager")):  # what it has seen is in its checkpoint
        stream.writer.write([*first, *missed], per_second=EVENTS_PER_S)
    wait_until("the job alone has read the copies", lambda: unread("campaign_spend") == 0, TIMEOUT_S)
    wait_until("copies are not counted", lambda: spend_is(kept, stream.registry), 1)
    command("jobs.streaming", "cancel", "--jobs", "campaign_spend")

    with setting("STATE_BACKEND", "rocksdb"):
        submit(savepoint, "--parallelism", "2")
        stream.writer.write(first, per_second=EVENTS_PER_S)
        stream.assert_exact()
        with FlinkRest(stream.where.flink_rest_url) as rest:
            (deployment,) = (d for d in rest.live() if d.name == ALL_JOBS)
            assert max(v["parallelism"] for v in rest.get(f"/jobs/{deployment.job_id}")["vertices"]) == 2
        savepoint = stop()
    submit(savepoint)
    stream.writer.write([*first, *missed], per_second=EVENTS_PER_S)
    stream.assert_exact()


def test_a_backfill_gives_what_the_live_run_gave(stream: StreamUnderTest) -> None:
    """Though lives are cut elsewhere: here some turn out, after they were closed, to have begun minutes earlier."""
    first = stream.events(ADS)
    stream.writer.write(first, per_second=EVENTS_PER_S)
    stream.assert_exact_when_closed()
    shown = [event for event in first if event["event_type"] == "impression"][:5]
    muted = {"event_type": "mute", "cost_micros": 0}
    earlier = [
        {**event, **muted, "event_id": os.urandom(16), "event_time_ms": event["event_time_ms"] - 300_000}
        for event in shown
    ]
    stream.writer.write(earlier, per_second=EVENTS_PER_S)
    stream.assert_exact_when_closed()
    topics = command("jobs.streaming", "backfill", "--into", "again").split()
    assert "campaign-metrics-v1-again" in topics and "ad-sessions-v1-again" in topics
    stream.assert_outputs("-again")


def test_dead_letters_of_the_stream_are_replayed_once_each(stream: StreamUnderTest) -> None:
    """Nothing was fixed, so each comes back as another dead letter: the replay's records are told from all others."""
    reason = RejectReason.ABSURD_TIME
    of_it = ("--topic", AD_EVENTS.name, "--reason", reason)
    events = stream.events(4)
    stream.writer.write([*events, *stream.refused(events)], per_second=EVENTS_PER_S)
    stream.assert_exact()

    def waiting() -> int:
        rows = json.loads(command("infra.cli.app", "dlq", "list", *of_it, "--json"))
        assert {row["job"] for row in rows} == {"event_quality"}
        return sum(row["waiting"] for row in rows)

    before = waiting()
    assert before > 0
    command("infra.cli.app", "dlq", "replay", *of_it)
    stream.replayed(reason, before)
    stream.assert_exact()
    assert waiting() == before, "the new ones"


def test_flinks_metrics_are_there_for_prometheus(stream: StreamUnderTest) -> None:
    command("infra.cli.app", "up", "--only", "flink-metrics")
    events = stream.events(ADS)
    stream.writer.write_raw(b"no header")
    stream.writer.write([*events, *stream.refused(events)], per_second=EVENTS_PER_S)
    stream.settle()
    shown = httpx.get(f"http://{prometheus.addresses(stream.where)['flink']}/metrics", timeout=30).text
    lines = [line for line in shown.splitlines() if not line.startswith("#")]
    assert "flink_up 1.0" in lines
    assert f'flink_job_running{{job="{ALL_JOBS}"}} 1.0' in lines
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}
    assert values[f'flink_job_checkpoints_completed_total{{job="{ALL_JOBS}"}}'] > 0
    assert sum(v for name, v in values.items() if name.startswith("flink_task_records_in_total")) > 0
    assert sum(name.startswith("flink_jvm_heap_used_bytes") for name in values) == 2

    def counted(name: str) -> float:
        return sum(value for found, value in values.items() if found.startswith(name + "{"))

    assert counted("flink_task_undecodable_total") >= 1
    assert counted("flink_task_dead_letters_total") >= 4
    assert any(name.startswith("flink_task_late_records_dropped_total{") for name in values)
