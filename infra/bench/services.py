"""Services for a benchmark: real ones, on ports of their own, gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from connectors.endpoints import Endpoints, endpoints
from infra.bench.report import RESULTS
from infra.local import control
from infra.local.stack import COMPONENTS
from infra.local.state import StackState

#: First port of the services of benchmarks, so that they stand beside a running stack.
PORT_BASE = int(os.environ.get("HEADWATER_BENCH_PORT_BASE", "18500"))


@contextmanager
def services(names: Iterable[str]) -> Iterator[Endpoints]:
    """The named components and what they need, empty at first, which this process's `endpoints()` then names.

    They have a supervisor of their own, so a benchmark that is ended (SIGTERM) takes them down before it goes.
    Errors: control.PortTaken, control.StartFailed.
    """
    home = RESULTS / f"services-{PORT_BASE}"
    os.environ.update(HEADWATER_PORT_BASE=str(PORT_BASE), HEADWATER_HOME=str(home))
    endpoints.cache_clear()
    where = endpoints()
    control.down(where)
    shutil.rmtree(home, ignore_errors=True)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        control.up(where, COMPONENTS, tuple(names))
        yield where
    finally:
        control.down(where)
        shutil.rmtree(home, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def pid_of(where: Endpoints, name: str) -> int:
    """Process id of a running component. Errors: RuntimeError when it does not run."""
    state: StackState | None = control.running(where)
    row = state.components.get(name) if state is not None else None
    if row is None or row.pid is None:
        raise RuntimeError(f"{name} does not run")
    return row.pid
