"""The stream jobs on a Kafka, a registry and a Flink of their own, for the tests that know every event there is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors.endpoints import endpoints
from tests.samples.faults import PAUSE_S, StreamUnderTest

PORT_BASE = int(os.environ.get("HEADWATER_TEST_PORT_BASE", "19500")) + 50
GAP_S = 3
#: Of patterns of invalid traffic: their verdicts may come as late.
WINDOW_S = 30
#: Longer than any outage of these tests: sessions that the clock closed meanwhile would stay closed.
QUIET_S = min(99, int(PAUSE_S) + 60)
SETTINGS = {
    "HEADWATER_STREAMING_SESSION_GAP_S": str(GAP_S),
    "HEADWATER_STREAMING_SOURCE_IDLE_S": str(QUIET_S),
    "HEADWATER_STREAMING_CLOCK_DELAY_S": str(QUIET_S),
    "HEADWATER_STREAMING_CHECKPOINT_INTERVAL_MS": "1000",
    "HEADWATER_STREAMING_IVT_PATTERN_WINDOW_S": str(WINDOW_S),
    # Below what is planted, above what chance makes of the rest (StreamUnderTest.events).
    "HEADWATER_STREAMING_IVT_CLICK_FLOOD_CLICKS": "8",
    "HEADWATER_STREAMING_HEALTH_WINDOW_S": "10",
    "HEADWATER_STREAMING_HEALTH_MIN_IMPRESSIONS": "4",
    "HEADWATER_STREAMING_HEALTH_MIN_EVENTS": "4",
}


def command(*arguments: str) -> str:
    """Output of one of the project's commands; its failure fails the test."""
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


@contextmanager
def _addressed(home: Path) -> Iterator[None]:
    """Whatever asks for endpoints in the block, processes it starts included, gets those of the streaming stack."""
    patch = pytest.MonkeyPatch()
    for name, value in {"HEADWATER_PORT_BASE": str(PORT_BASE), "HEADWATER_HOME": str(home), **SETTINGS}.items():
        patch.setenv(name, value)
    endpoints.cache_clear()
    yield
    patch.undo()
    endpoints.cache_clear()


@pytest.fixture(scope="session")
def _streaming_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StreamUnderTest]:
    home = tmp_path_factory.mktemp("streaming")
    try:
        with _addressed(home):
            command("infra.cli.app", "up", "--only", "jobs")
            made = StreamUnderTest(endpoints(), GAP_S, WINDOW_S, closing_s=WINDOW_S + QUIET_S + 90.0)
        yield made
    finally:
        with _addressed(home):
            command("infra.cli.app", "down", "--wipe")


@pytest.fixture(scope="module")
def stream(_streaming_stack: StreamUnderTest) -> Iterator[StreamUnderTest]:
    """Kafka, registry and Flink with the application running; one for all modules, which therefore share its events."""
    with _addressed(_streaming_stack.where.home):
        yield _streaming_stack
