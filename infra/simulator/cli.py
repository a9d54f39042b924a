"""`headwater simulate`: traffic on a running stack, with its ledger, until it has ended by itself."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from connectors.endpoints import Endpoints, endpoints
from infra.simulator.ledger import Ledger, read_truth
from infra.simulator.progress import TrafficProgress, describe
from infra.simulator.traffic import Traffic, TrafficCounts, TrafficSettings
from infra.simulator.world import DEFAULT_SEED, DEFAULT_USERS, World, build_world


def ledger_path(ends: Endpoints, name: str) -> Path:
    """Where a run's ledger lies."""
    return ends.home / "ledger" / f"{name}.sqlite"


def run_traffic(
    ends: Endpoints,
    world: World,
    settings: TrafficSettings,
    name: str,
    on_tick: Callable[[TrafficCounts], None] = lambda counts: None,
    until: Callable[[], bool] = lambda: True,
) -> tuple[TrafficCounts, Path]:
    """One stretch of traffic from start to end; gives back its counts and its ledger's file. Blocks.

    As `Traffic.run` it goes on past the last request until `until` is true.
    """
    path = ledger_path(ends, name)
    ledger = Ledger(path, name, world.seed)

    async def stretch() -> TrafficCounts:
        return await Traffic(world, ends, ledger, settings).run(on_tick, until)

    gc.freeze()  # the world is for ever: collections need not walk it
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(stretch()), path
    finally:
        ledger.close()


def simulate(
    requests: Annotated[int, typer.Option(min=1, help="Ad requests in all.")] = 3_300,
    rps: Annotated[float, typer.Option(min=0.1, help="Ad requests a second.")] = 55.0,
    seed: Annotated[int, typer.Option(help="World: the same seed, the same world.")] = DEFAULT_SEED,
    users: Annotated[int, typer.Option(min=1, help="Users of the world.")] = DEFAULT_USERS,
    speed_up: Annotated[float, typer.Option(min=1.0, help="Ads play this many times faster than life.")] = 10.0,
    first_request: Annotated[int, typer.Option(help="Number of the first request: go on where a run ended.")] = 0,
) -> None:
    """Send simulated traffic through the public doors of the running stack, and keep a ledger of what happened."""
    console = Console()
    settings = TrafficSettings(requests=requests, rps=rps, speed_up=speed_up, first_request=first_request)
    name = f"simulate-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    with TrafficProgress(console, requests) as progress:
        counts, path = run_traffic(endpoints(), build_world(seed, users), settings, name, progress)
    truth = read_truth(path)
    console.print(describe(counts))
    console.print(
        f"truth: {truth.total.impressions:,} impressions, {truth.total.clicks:,} clicks, "
        f"{truth.total.completes:,} completes, {truth.total.spend_micros:,} micros spent; planted: "
        f"{truth.duplicates:,} duplicates, {truth.late:,} late events, {truth.rejects.total():,} to be refused"
    )
    console.print(f"ledger: {path}")
    if counts.shown == 0:
        console.print("no ad was shown: is the stack up? (headwater status)", style="red")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(simulate)
