"""Catalogue and bidders files: read at the start and again whenever they change. A broken file changes nothing.

A catalogue of thousands of creatives takes a few hundred milliseconds to build. While requests come it is built in
slices of one, and the old one serves until the new one is whole.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from schemas.errors import ConfigError

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]

_SLICE_S = 0.001
_PAUSE_S = 0.001


class FileWatch:
    """Calls `apply` with a file's text when it has changed. `apply` raises ConfigError for a text that it refuses; what
    would take long it does in steps, which it gives back.
    """

    def __init__(self, path: Path, apply: Callable[[str], Iterator[None] | None]) -> None:
        self._path = path
        self._apply = apply
        self._stamp: Stamp | None = None
        self._looking = asyncio.Lock()
        self.problem: str | None = f"{path} was not read yet"

    def look(self) -> None:
        """Reads the file if it is another than the last one. Never raises: what is wrong is in `problem`."""
        for _ in self._steps():
            pass

    async def look_in_slices(self) -> None:
        """`look` between requests."""
        async with self._looking:  # an older text must not come into service behind a newer one
            ends_s = time.monotonic() + _SLICE_S
            for _ in self._steps():
                if time.monotonic() >= ends_s:
                    await asyncio.sleep(_PAUSE_S)
                    ends_s = time.monotonic() + _SLICE_S

    def _steps(self) -> Iterator[None]:
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            text = self._path.read_text()
            self._stamp = stamp
            yield from self._apply(text) or ()
        except (OSError, UnicodeError, ConfigError) as e:
            problem = str(e)
            if problem != self.problem:
                logger.error("file not used", extra={"path": str(self._path), "detail": problem[:2000]})
            self.problem = problem
        else:
            self.problem = None
            logger.info("file in service", extra={"path": str(self._path)})

    async def run(self, poll_s: float) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(poll_s)
            await self.look_in_slices()
