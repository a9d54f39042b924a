"""What runs beside requests for as long as the process does: it must not end, so what ends is started again.

A task that ends, whatever it raised, is a defect: it is logged, counted, shown as a problem in `/status`, and started
again after a pause, which doubles while it keeps ending. What it would have kept up to date gets old meanwhile, which
requests see by its age.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from serving.adserver import metrics

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
#: A task that has run for so long since it last ended is well again.
_WELL_AFTER_S = 300.0

Sleep = Callable[[float], Awaitable[None]]


class Background:
    """The tasks of one process. `clock` is monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._tasks: list[asyncio.Task[None]] = []
        self._ended: dict[str, tuple[float, str]] = {}

    def start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Runs what `run` makes until `cancel`. `name` is how its problems are told."""
        self._tasks.append(asyncio.create_task(self._keep_up(name, run)))

    @property
    def problems(self) -> list[str]:
        """What has ended lately, and why."""
        well_s = self._clock() - _WELL_AFTER_S
        return [f"{name} ended: {why}" for name, (at_s, why) in self._ended.items() if at_s > well_s]

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _keep_up(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            began_s = self._clock()
            why = "without a reason"
            try:
                await run()
            except Exception as e:
                why = repr(e)[:200]
                logger.critical("background task ended", extra={"task": name}, exc_info=e)
            else:
                logger.critical("background task ended", extra={"task": name})
            metrics.TASKS_ENDED.labels(name).inc()
            ended_s = self._clock()
            self._ended[name] = ended_s, why
            if ended_s - began_s > _WELL_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            await self._sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
