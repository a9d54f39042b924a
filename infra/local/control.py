"""Up, down and what holds them back: what the `headwater` command and the tests do with the supervisor."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from connectors.endpoints import Endpoints
from connectors.jars import project_root
from infra.local.component import Component, with_needs
from infra.local.state import (
    SETTLED,
    StackState,
    is_alive,
    load,
    state_path,
    wanted,
    wanted_path,
    write_json,
)
from schemas.errors import ConfigError

POLL_INTERVAL_S = 0.2
STOP_TIMEOUT_S = 180.0


class PortTaken(RuntimeError):
    """A port that the stack needs is in use by something else."""


class StartFailed(RuntimeError):
    """The stack did not become ready; `component` names the first part that gave up, if one did."""

    def __init__(self, message: str, component: str | None = None) -> None:
        super().__init__(message)
        self.component = component


@dataclass(frozen=True)
class TakenPort:
    """A port in use: its name in `PORT_OFFSETS`, and who holds it where the system tells."""

    name: str
    port: int
    holder: str


def running(where: Endpoints) -> StackState | None:
    """The state of this home's supervisor if it is alive."""
    state = load(where.home)
    return state if state and is_alive(state.pid, state.created_s) else None


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                process = psutil.Process(connection.pid)
                return f"{process.name()}, pid {connection.pid}"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass
    return "a process of another user"


def taken_ports(where: Endpoints, names: Iterable[str]) -> list[TakenPort]:
    """Those of the named ports that can't be bound now."""
    taken = []
    for name in names:
        port = where.port(name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((where.host, port))
            except OSError:
                taken.append(TakenPort(name, port, _holder(port)))
    return taken


def end_leftovers(where: Endpoints) -> list[str]:
    """Ends processes that a killed supervisor left behind, found by pid and time of creation; names what it ended."""
    state = load(where.home)
    if state is None or is_alive(state.pid, state.created_s):
        return []
    left = {n: row.pid for n, row in state.components.items() if row.pid and is_alive(row.pid, row.created_s)}
    for number, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        for pid in left.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and any(
            is_alive(row.pid, row.created_s) for row in state.components.values()
        ):
            time.sleep(POLL_INTERVAL_S)
    return list(left)


def up(
    where: Endpoints,
    components: Mapping[str, Component],
    names: Iterable[str],
    on_change: Callable[[StackState, list[str]], None] = lambda state, names: None,
    timeout_s: float = 600.0,
) -> StackState:
    """Starts the named components and what they need, and waits until all are ready.

    Idempotent: what runs already is left alone. If it is interrupted or fails, what this call started is stopped
    again. `on_change(state, names)` is called about five times a second.
    Errors: PortTaken before anything is started; StartFailed; UnknownComponent.
    """
    ordered = with_needs(components, names)
    state = running(where)
    before = wanted(where.home) if state else []
    if state is None:
        end_leftovers(where)
    fresh = [name for name in ordered if name not in before]
    taken = taken_ports(where, [port for name in fresh for port in components[name].ports])
    if taken:
        lines = "\n".join(f"  port {t.port} ({t.name}) is held by {t.holder}" for t in taken)
        raise PortTaken(
            f"these ports are taken:\n{lines}\nStop what holds them, or use others: "
            f"HEADWATER_PORT_BASE={where.port_base + 1000} HEADWATER_HOME=<another folder> headwater up"
        )
    where.home.mkdir(parents=True, exist_ok=True)
    write_json(wanted_path(where.home), [*before, *fresh])
    called_ms = int(time.time() * 1000)
    if state:
        os.kill(state.pid, signal.SIGHUP)
    else:
        _start_supervisor(where)
    try:
        return _wait_ready(where, ordered, on_change, called_ms, timeout_s)
    except BaseException:
        if state is None:
            down(where)
        else:
            write_json(wanted_path(where.home), before)
            os.kill(state.pid, signal.SIGHUP)
        raise


def _start_supervisor(where: Endpoints) -> None:
    logs = where.home / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    state_path(where.home).unlink(missing_ok=True)
    environment = {
        **os.environ,
        "HEADWATER_HOME": str(where.home),
        "HEADWATER_PORT_BASE": str(where.port_base),
    }
    with (logs / "supervisor.log").open("ab") as output:
        subprocess.Popen(
            [sys.executable, "-m", "infra.local.supervisor"],
            cwd=project_root(),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_ready(
    where: Endpoints,
    names: list[str],
    on_change: Callable[[StackState, list[str]], None],
    called_ms: int,
    timeout_s: float,
) -> StackState:
    deadline = time.monotonic() + timeout_s
    seen_alive = False
    while True:
        state = running(where)
        if state:
            seen_alive = True
            on_change(state, names)
            rows = {name: state.components.get(name) for name in names}
            if all(row and row.state in SETTLED for row in rows.values()):
                return state
            for name, row in rows.items():
                if row and row.state == "failed" and (row.started_ms or 0) >= called_ms:
                    raise StartFailed(f"{name} did not start: {row.error}", name)
        elif seen_alive or time.monotonic() > deadline - timeout_s + 15:
            raise StartFailed(f"the supervisor ended; see {where.home / 'logs' / 'supervisor.log'}", "supervisor")
        if time.monotonic() > deadline:
            late = [name for name, row in rows.items() if not row or row.state not in SETTLED] if state else names
            raise StartFailed(f"not ready after {timeout_s:.0f} s: {', '.join(late)}", late[0])
        time.sleep(POLL_INTERVAL_S)


def down(where: Endpoints, names: Iterable[str] | None = None) -> None:
    """Stops everything, or only the named components; waits until that is done. Idempotent.

    A component stopped by name stays down while what needs it runs on: that is how an outage is rehearsed.
    Errors: RuntimeError when something can't be ended.
    """
    state = running(where)
    if state is None:
        end_leftovers(where)
        return
    if names is not None:
        gone = set(names)
        write_json(wanted_path(where.home), [name for name in wanted(where.home) if name not in gone])
        os.kill(state.pid, signal.SIGHUP)
    else:
        os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        now = running(where)
        if now is None:
            break
        if names is not None and all(
            now.components[name].state == "stopped" for name in gone if name in now.components
        ):
            return
        time.sleep(POLL_INTERVAL_S)
    else:
        os.kill(state.pid, signal.SIGKILL)
        time.sleep(1.0)
    end_leftovers(where)


def wipe(where: Endpoints) -> None:
    """Removes all data of a stopped stack. Errors: ConfigError while it runs, or for a folder that is not ours."""
    if running(where):
        raise ConfigError("the stack runs: stop it first")
    home = where.home
    if not home.exists():
        return
    if any(home.iterdir()) and not (home / "logs").is_dir():
        raise ConfigError(f"{home} does not look like a Headwater home: not removed")
    shutil.rmtree(home)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a text file, [] if there is none. Reads at most 256 KiB."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - (256 << 10)))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
