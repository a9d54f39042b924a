"""Live numbers of a stretch of traffic: a progress bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from infra.simulator.traffic import TrafficCounts

_LINE_EVERY_S = 5.0


class TrafficProgress:
    """Shows the counts that it is called with. Use it as a context."""

    def __init__(self, console: Console, requests: int, label: str = "traffic") -> None:
        self._console = console
        self._requests = requests
        self._label = label
        self._next_line_s = time.monotonic() + _LINE_EVERY_S
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(24),
                TaskProgressColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, TextColumn("{task.fields[numbers]}"), console=console, transient=True)
            self._task = self._bar.add_task(label, total=requests, numbers="")

    def __enter__(self) -> TrafficProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, counts: TrafficCounts) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=counts.asked, numbers=describe(counts))
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + _LINE_EVERY_S
            self._console.print(f"  {self._label}: {counts.asked}/{self._requests} requests, {describe(counts)}")


def describe(counts: TrafficCounts) -> str:
    """One line of what happened so far."""
    parts = [
        f"{counts.shown:,} ads",
        f"{counts.events['impression']:,} impressions",
        f"{counts.events['click']:,} clicks",
        f"{counts.fired:,} beacons",
        f"ad answers p50 {counts.latency_ms(0.5):.0f} p99 {counts.latency_ms(0.99):.0f} ms",
    ]
    if counts.no_ad or counts.untracked:
        parts.append(f"{counts.no_ad:,} without an ad, {counts.untracked:,} with an untracked one")
    if counts.failed or counts.unreadable or counts.retried:
        parts.append(f"{counts.failed} failed, {counts.unreadable} unreadable, {counts.retried} sent again")
    return " · ".join(parts)
