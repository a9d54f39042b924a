"""`headwater demo`: the whole river once, on its own data, and every count against the truth.

Starts a stack of its own (data in `<home>/demo`, removed first) and stops it at the end, unless `--keep`. If a stack
already runs on these ports, that one is used, left running, and only what the demo did on it is counted.
Exit codes: 0 every count agrees · 1 one does not, or a step failed · 3 the stack could not be started.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console

from connectors.endpoints import Endpoints, endpoints
from infra.cli.stack import progress
from infra.demo import learning, report
from infra.demo.caps import busiest_user_caps
from infra.demo.drain import reconcile, wait_published
from infra.demo.freshness import together
from infra.demo.hops import Snapshot, take_snapshot
from infra.demo.partners import calls_taken, partner_checks
from infra.demo.reconcile import Report, print_report
from infra.demo.stretch import Stretch, run_stretch
from infra.local import control
from infra.local.stack import COMPONENTS, DEFAULT
from infra.simulator.ledger import read_truths
from infra.simulator.progress import TrafficProgress, describe
from infra.simulator.traffic import TrafficSettings
from infra.simulator.world import DEFAULT_SEED, World, build_world

#: Long enough for an ad that plays ten times faster than life, short enough for a demo to see tokens expire.
_TOKEN_LIFE_S = 20
#: A demo does not wait as long as a living platform for stragglers of a session (jobs/streaming/settings.py).
_SHORT_LIVES = {
    "HEADWATER_ADSERVER_TOKEN_TTL_S": str(_TOKEN_LIFE_S),
    "HEADWATER_STREAMING_SESSION_GAP_S": "8",
    "HEADWATER_STREAMING_SOURCE_IDLE_S": "5",
    "HEADWATER_STREAMING_CLOCK_DELAY_S": "12",
}
#: Lines of commands that are logs, not progress.
_LOG_LINES = ("{", "Setting default log level", "To adjust logging level")
_SECOND_SHARE = 0.1  # of the first stretch's requests
#: Before the load: the first ads pass every hop once, so that the JVMs' cold code is not taken for the stream's pace.
_FIRST_ADS, _FIRST_ADS_RPS = 40, 10.0


class Demo:
    """One run. Each step says what it does and how long it took."""

    def __init__(self, console: Console, requests: int, rps: float, seed: int) -> None:
        self._console = console
        self._requests = requests
        self._rps = rps
        self._world: World = build_world(seed)
        self._token_life_s: float | None = None  # a stack that was not started for the demo has long ones
        self._began_s = time.monotonic()
        self._name = time.strftime("demo-%Y%m%dT%H%M%S", time.gmtime())
        self._training: learning.Training | None = None
        self.stretches: list[Stretch] = []

    @contextmanager
    def _step(self, text: str) -> Iterator[None]:
        began_s = time.monotonic()
        self._console.print(f"[bold]▸ {text}[/bold]")
        yield
        total_s = time.monotonic() - self._began_s
        self._console.print(f"  done in {time.monotonic() - began_s:.0f} s (demo: {total_s:.0f} s)", style="dim")

    def start(self, ends: Endpoints) -> None:
        """Brings a stack up."""
        with self._step(f"starting the stack ({len(DEFAULT)} parts) in {ends.home}"), progress() as show:
            control.up(ends, COMPONENTS, DEFAULT, show.update)
        self._token_life_s = float(os.environ["HEADWATER_ADSERVER_TOKEN_TTL_S"])

    def run(self, ends: Endpoints, fresh: bool) -> Report:
        """Traffic, lake, training, traffic on the new model, and the comparison. Errors: HeadwaterError."""
        before = Snapshot() if fresh else replace(take_snapshot(ends), told=calls_taken(ends))
        first_model = learning.model_version(ends)
        self._traffic(ends, "first ads through every hop", _FIRST_ADS, 0, min(self._rps, _FIRST_ADS_RPS))
        self._traffic(ends, "traffic, first stretch", self._requests, _FIRST_ADS, self._rps)
        self._learn(ends, first_model)
        second, done = max(1, int(self._requests * _SECOND_SHARE)), _FIRST_ADS + self._requests
        self._traffic(ends, "traffic, second stretch, after training", second, done, self._rps)
        with self._step("draining and counting every hop"):
            ledgers = [stretch.ledger for stretch in self.stretches]
            truth = read_truths(ledgers)
            # while the last sessions are still open, the rest of the report is made
            top = report.top_campaigns(ends)
            user, caps = busiest_user_caps(ends, ledgers)
            with self._console.status("draining") as status:
                found = reconcile(ends, truth, before, status.update)
            found = replace(found, checks=found.checks + partner_checks(ends, ledgers, before.told))
        first, *loaded = [stretch.freshness for stretch in self.stretches]
        report.print_freshness(self._console, together(loaded), first)
        report.print_top_campaigns(self._console, top)
        report.print_caps(self._console, user, caps)
        if self._training is not None:
            report.print_entropy(self._console, self._training)
        print_report(self._console, found, "every hop against the ledger of what truly happened")
        return found

    def _traffic(self, ends: Endpoints, label: str, requests: int, first_request: int, rps: float) -> None:
        settings = TrafficSettings(requests, rps, first_request=first_request, token_life_s=self._token_life_s)
        name = f"{self._name}-{len(self.stretches) + 1}"
        with self._step(f"{label}: {requests:,} ad requests at {rps:.0f} a second"):
            with TrafficProgress(self._console, requests) as show:
                stretch = run_stretch(ends, self._world, settings, name, show)
            self._console.print(f"  {describe(stretch.counts)}")
        self.stretches.append(stretch)

    def _learn(self, ends: Endpoints, first_model: str | None) -> None:
        def say(line: str) -> None:
            if line.startswith(_LOG_LINES):
                return
            self._console.print(f"  {line}", style="dim", markup=False, highlight=False)

        with self._step("lake, features, training"):
            wait_published()
            self._training = learning.train(ends, say)
            if self._training.promoted:
                version = learning.await_model(ends, first_model)
                self._console.print(
                    f"  the ad server scores with {version} (before: {first_model or 'smoothed rates'})"
                )
            else:
                self._console.print(f"  no new champion: {self._training.words}", style="yellow")


def own_stack() -> Endpoints:
    """Endpoints of a stack for the demo alone, which this process and its children then use."""
    home = endpoints().home / "demo"
    os.environ["HEADWATER_HOME"] = str(home)
    for name, value in _SHORT_LIVES.items():
        os.environ.setdefault(name, value)
    endpoints.cache_clear()
    return endpoints()


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running at the end.")] = False,
    requests: Annotated[int, typer.Option(min=100, help="Ad requests of the first stretch.")] = 3_010,
    rps: Annotated[float, typer.Option(min=1.0, help="Ad requests a second.")] = 55.0,
    seed: Annotated[int, typer.Option(help="World: the same seed, the same world.")] = DEFAULT_SEED,
) -> None:
    """Everything once: traffic, stream, reports, lake, training, and every count against the truth."""
    console = report.console()
    run = Demo(console, requests, rps, seed)
    ends = endpoints()
    started = control.running(ends) is None
    if started:
        ends = own_stack()
        control.down(ends)  # what a killed demo left
        control.wipe(ends)
        run.start(ends)
    try:
        found = run.run(ends, fresh=started)
    finally:
        if started and not keep:
            console.print("stopping the stack (--keep leaves it running)", style="dim")
            control.down(ends)
    report.print_where_to_look(console, ends, running=keep or not started)
    if started and keep:
        console.print(f"stop it: HEADWATER_HOME={ends.home} headwater down", soft_wrap=True)
    verdict = "every count agrees with the truth" if found.exact else "counts differ from the truth"
    console.print(verdict, style="bold green" if found.exact else "bold red")
    raise typer.Exit(0 if found.exact else 1)


if __name__ == "__main__":
    typer.run(demo)
