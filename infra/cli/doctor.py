"""`headwater doctor`: what is missing or wrong on this machine, and what to do about it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

import typer

from infra.cli.exits import Exit, guarded

if TYPE_CHECKING:
    from connectors.endpoints import Endpoints

MEMORY_NEEDED_GB = 6.0
DISK_NEEDED_GB = 5.0
JAVA_TIMEOUT_S = 20


@dataclass(frozen=True)
class Finding:
    """One check's result: `way_out` says what to do, and is empty when all is well."""

    what: str
    seen: str
    way_out: str = ""


def python_version(_: Endpoints) -> Finding:
    seen = ".".join(map(str, sys.version_info[:3]))
    way_out = "" if sys.version_info[:2] == (3, 11) else "remove .venv and run `make setup PYTHON=python3.11`"
    return Finding("Python 3.11", seen, way_out)


def memory(where: Endpoints) -> Finding:
    """Memory for the whole stack: counted only while it does not run, since it would be part of what is used."""
    import psutil

    from infra.local.control import running

    available_gb = psutil.virtual_memory().available / 1e9
    if available_gb < MEMORY_NEEDED_GB and running(where) is None:
        way_out = (
            f"the stack with its jobs wants {MEMORY_NEEDED_GB:.0f} GB: close other programs, or `headwater up --only`"
        )
    else:
        way_out = ""
    return Finding("memory", f"{available_gb:.1f} GB available", way_out)


def disk(where: Endpoints) -> Finding:
    folder = where.home
    while not folder.exists():
        folder = folder.parent
    free_gb = shutil.disk_usage(folder).free / 1e9
    way_out = ""
    if free_gb < DISK_NEEDED_GB:
        way_out = f"{DISK_NEEDED_GB:.0f} GB are wanted: free some, or put HEADWATER_HOME on another disk"
    return Finding("disk", f"{free_gb:.0f} GB free at {folder}", way_out)


def packages(_: Endpoints) -> Finding:
    """Installed packages against the lock."""
    from infra.setup.artifacts import LOCKS

    pinned = re.findall(r"^([A-Za-z0-9_.\-]+)==([^\s\\;]+)", (LOCKS / "requirements.lock").read_text(), re.M)
    drifted = []
    for name, version in pinned:
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "missing"
        if found != version:
            drifted.append(f"{name} {found} (lock: {version})")
    if drifted:
        more = f" and {len(drifted) - 3} more" if len(drifted) > 3 else ""
        return Finding("packages", ", ".join(drifted[:3]) + more, "run `rm .venv/headwater.stamp; make setup`")
    return Finding("packages", f"{len(pinned)} as locked")


def java(_: Endpoints) -> Finding:
    from connectors.jars import NotSetUp, java

    try:
        run = subprocess.run([java(), "-version"], capture_output=True, text=True, timeout=JAVA_TIMEOUT_S)
    except (OSError, NotSetUp, subprocess.TimeoutExpired) as error:
        return Finding("Java 21", str(error), "run `make setup`")
    first = run.stderr.splitlines()[0] if run.stderr else f"exit code {run.returncode}"
    return Finding("Java 21", first, "" if '"21' in first else "run `make clean setup`")


def jars(_: Endpoints) -> Finding:
    from infra.setup.artifacts import COMPONENTS
    from infra.setup.jars import is_complete

    missing = [name for name in COMPONENTS if not is_complete(name)]
    return Finding(
        "jars", "missing: " + ", ".join(missing) if missing else "complete", "run `make setup`" if missing else ""
    )


def ports(where: Endpoints) -> Finding:
    """Ports of this stack: taken by others only counts while it does not run."""
    from infra.local.control import running, taken_ports
    from infra.local.stack import COMPONENTS

    state = running(where)
    ours = state.components if state else {}
    names = [port for name, c in COMPONENTS.items() if name not in ours for port in c.ports]
    taken = taken_ports(where, names)
    if taken:
        return Finding(
            "ports",
            "; ".join(f"{t.port} ({t.name}) held by {t.holder}" for t in taken),
            f"stop what holds them, or set HEADWATER_PORT_BASE={where.port_base + 1000} and another HEADWATER_HOME",
        )
    return Finding("ports", f"{where.port_base} to {where.port_base + 99} are " + ("ours" if state else "free"))


def leftovers(where: Endpoints) -> Finding:
    """Processes of a supervisor that is gone."""
    from infra.local.control import running
    from infra.local.state import is_alive, load

    state = load(where.home)
    if state is None or running(where):
        return Finding("leftovers", "none")
    left = [f"{n} (pid {r.pid})" for n, r in state.components.items() if is_alive(r.pid, r.created_s)]
    return Finding("leftovers", ", ".join(left) or "none", "run `headwater down`" if left else "")


def components(where: Endpoints) -> Finding:
    """Components that do not do what they should, in a stack that runs."""
    from infra.local.control import running
    from infra.local.state import SETTLED

    state = running(where)
    if state is None:
        return Finding("stack", "not running")
    bad = [f"{n} {r.state}: {r.error}" for n, r in state.components.items() if r.state not in SETTLED]
    return Finding("stack", "; ".join(bad) or "all ready", "see `headwater logs NAME`" if bad else "")


CHECKS: tuple[Callable[[Endpoints], Finding], ...] = (
    *(python_version, memory, disk, packages, java, jars, ports, leftovers, components),
)


@guarded
def doctor() -> None:
    """Check this machine for what the local stack needs. Each failure says what to do; exit code 1 if there is one."""
    from rich.console import Console

    from connectors.endpoints import endpoints

    console = Console(highlight=False)
    findings = [check(endpoints()) for check in CHECKS]
    for finding in findings:
        mark = "[red]✗[/]" if finding.way_out else "[green]✓[/]"
        console.print(f"{mark} {finding.what:<12} {finding.seen}")
        if finding.way_out:
            console.print(f"  [yellow]→ {finding.way_out}[/]")
    if any(finding.way_out for finding in findings):
        raise typer.Exit(Exit.CHECK_FAILED)
