"""Levels of the tests, and the services that they run against.

Folder → marker: tests/unit (no marker: no service, no Java, no connection), contract, engines, stack; they run in this
order. Services are started by the same supervisor that users get, on ports of their own:
  local_services  Kafka, schema registry, Valkey, topics and subjects   (HEADWATER_TEST_PORT_BASE, 19500)
  stack           everything                                            (HEADWATER_TEST_PORT_BASE + 100)
Data lies in build/tests/<port base>; it is removed before and after. With HEADWATER_TEST_KEEP=1 the services stay up
after the tests, data and all, and the next run uses them as they are: for working on a test.
With CI=true a service that can't be started fails its tests; without, they are skipped with the reason.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors.endpoints import Endpoints, endpoints
from infra.local import control
from infra.local.stack import COMPONENTS, DEFAULT

ROOT = Path(__file__).resolve().parent.parent
LEVELS = ("unit", "contract", "engines", "stack")
PORT_BASE = int(os.environ.get("HEADWATER_TEST_PORT_BASE", "19500"))
KEEP = os.environ.get("HEADWATER_TEST_KEEP") == "1"
START_TIMEOUT_S = 600.0


def _level(path: Path) -> str:
    parts = path.relative_to(ROOT / "tests").parts
    return parts[0] if parts[0] in LEVELS else "unit"


def pytest_configure(config: pytest.Config) -> None:
    # A test that polls a service would bury what a failure says under a line per request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config.addinivalue_line("markers", "contract: against real services, one at a time")
    config.addinivalue_line("markers", "engines: Flink and Spark in process, on bounded input")
    config.addinivalue_line("markers", "stack: everything real, end to end, faults included")


def pytest_unconfigure() -> None:
    """pytest's line is the last: DuckDB's binding would write about its own types when the interpreter ends."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        level = _level(item.path)
        if level != "unit":
            item.add_marker(level)
    items.sort(key=lambda item: LEVELS.index(_level(item.path)))


@pytest.fixture(autouse=True)
def _no_connections(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test fails at its first connection."""
    if _level(request.path) != "unit":
        return

    def refuse(_: socket.socket, address: object) -> None:
        pytest.fail(f"a unit test connects to {address!r}: it belongs to tests/contract")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)


@contextmanager
def _started(port_base: int, names: Iterable[str]) -> Iterator[Endpoints]:
    """Components on a port base of their own, which this process's `endpoints()` then names."""
    home = ROOT / "build" / "tests" / str(port_base)
    os.environ.update(HEADWATER_PORT_BASE=str(port_base), HEADWATER_HOME=str(home))
    endpoints.cache_clear()
    where = endpoints()
    if not KEEP:
        control.down(where)
        control.wipe(where)
    try:
        control.up(where, COMPONENTS, names, timeout_s=START_TIMEOUT_S)
    except (control.PortTaken, control.StartFailed) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"services can't be started: {error}")
    yield where
    if not KEEP:
        control.down(where)
        control.wipe(where)


@pytest.fixture(scope="session")
def local_services() -> Iterator[Endpoints]:
    """Kafka, schema registry and Valkey, with topics created and subjects registered."""
    with _started(PORT_BASE, ("contracts", "valkey")) as where:
        yield where


@pytest.fixture(scope="session")
def stack() -> Iterator[Endpoints]:
    """The whole local stack with all jobs, as `make up` starts it. Comes after all contract tests; the services of
    those are stopped first, so that memory is theirs one at a time. Reservations live for 20 s instead of 120: an ad
    server whose Valkey was emptied waits for their end."""
    if not KEEP:
        services = Endpoints(port_base=PORT_BASE, home=ROOT / "build" / "tests" / str(PORT_BASE))
        control.down(services)
    os.environ["HEADWATER_ADSERVER_RESERVATION_S"] = "20"
    with _started(PORT_BASE + 100, DEFAULT) as where:
        yield where
