"""Catalogue and bidders files: read at the start and again whenever they change. A broken file changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from schemas.errors import ConfigError

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


class FileWatch:
    """Calls `apply` with a file's text when it has changed. `apply` raises ConfigError for a text that it refuses."""

    def __init__(self, path: Path, apply: Callable[[str], None]) -> None:
        self._path = path
        self._apply = apply
        self._stamp: Stamp | None = None
        self.problem: str | None = f"{path} was not read yet"

    def look(self) -> None:
        """Reads the file if it is another than the last one. Never raises: what is wrong is in `problem`."""
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            text = self._path.read_text()
            self._stamp = stamp
            self._apply(text)
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
            self.look()
