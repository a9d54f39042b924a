"""What the supervisor knows, in one small file that everyone may read: `<home>/state.json`, replaced atomically.

Beside it lies `<home>/wanted.json`: the components that should run. The commands write it and signal the supervisor,
which makes it so.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

#: Life of a component. A service goes waiting → starting → ready; a step ends as done.
STATES = ("waiting", "starting", "ready", "done", "backing-off", "failed", "stopping", "stopped")
SETTLED = ("ready", "done")


@dataclass
class ComponentState:
    """One component as last seen. Times are epoch ms, None until they happened."""

    state: str = "waiting"
    pid: int | None = None
    created_s: float | None = None
    port: int | None = None
    restarts: int = 0
    started_ms: int | None = None
    ready_ms: int | None = None
    error: str = ""


@dataclass
class StackState:
    """The supervisor and all its components."""

    pid: int
    created_s: float
    port_base: int
    started_ms: int
    components: dict[str, ComponentState] = field(default_factory=dict)


def state_path(home: Path) -> Path:
    return home / "state.json"


def wanted_path(home: Path) -> Path:
    return home / "wanted.json"


def write_json(path: Path, value: object) -> None:
    """Replaces a file as a whole: a reader sees the old or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    draft.write_text(json.dumps(value, indent=1))
    draft.replace(path)


def save(home: Path, state: StackState) -> None:
    write_json(state_path(home), asdict(state))


def load(home: Path) -> StackState | None:
    """The last state written, or None. It may be of a supervisor that is gone: ask `is_alive`."""
    try:
        raw = json.loads(state_path(home).read_text())
        raw["components"] = {name: ComponentState(**row) for name, row in raw["components"].items()}
        return StackState(**raw)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def wanted(home: Path) -> list[str]:
    """Names of the components that should run."""
    try:
        return list(json.loads(wanted_path(home).read_text()))
    except (FileNotFoundError, ValueError):
        return []


def created_s(pid: int) -> float | None:
    """When a process was created (epoch seconds), or None if there is none: with the pid, its identity."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def is_alive(pid: int | None, created: float | None) -> bool:
    """Whether that very process still runs: not another one that was given its number, and not a zombie."""
    if pid is None or created is None:
        return False
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
