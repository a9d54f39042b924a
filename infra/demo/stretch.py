"""A stretch of traffic with freshness probes beside it, in one event loop and one ledger."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from connectors.endpoints import Endpoints
from infra.demo.freshness import Freshness, FreshnessProbe
from infra.simulator.cli import ledger_path
from infra.simulator.ledger import Ledger
from infra.simulator.traffic import Traffic, TrafficCounts, TrafficSettings
from infra.simulator.world import World


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a stretch left behind."""

    counts: TrafficCounts
    freshness: Freshness
    ledger: Path


def run_stretch(
    ends: Endpoints,
    world: World,
    settings: TrafficSettings,
    name: str,
    on_tick: Callable[[TrafficCounts], None] = lambda counts: None,
) -> Stretch:
    """Traffic and probes from start to end. Blocks; ends by itself."""
    path = ledger_path(ends, name)
    ledger = Ledger(path, name, world.seed)

    async def stretch() -> Stretch:
        probe = FreshnessProbe(world, ends, ledger)
        stop = asyncio.Event()
        probing = asyncio.create_task(probe.run(stop))
        try:
            counts = await Traffic(world, ends, ledger, settings).run(on_tick)
        finally:
            stop.set()
        return Stretch(counts, await probing, path)

    gc.freeze()  # the world is for ever: collections need not walk it
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(stretch())
    finally:
        ledger.close()
