"""How fresh the numbers are: the last event in Druid, and whether Druid has read all that was published.

A thread looks every few seconds, so that a report costs no more for saying it. After a restart Druid answers with
totals that went backwards until it has read Kafka again: `is_behind` is true for just that time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from connectors.druid import DruidClient
from connectors.druid_progress import ProgressProbe
from schemas.campaign_metrics import DATASOURCE
from schemas.errors import ConnectorError
from schemas.topics import CAMPAIGN_METRICS

log = logging.getLogger(__name__)

#: Over every row and not only the newest minutes: an old minute's row may be the last that was published.
_LAST_SEEN = (
    'SELECT MAX("last_event_time_ms") AS last_event_time_ms, MAX("last_published_ms") AS last_published_ms '
    f'FROM "{DATASOURCE}"'
)
#: A look that took place this many intervals ago says nothing about now.
_STALE_INTERVALS = 5


@dataclass(frozen=True, slots=True)
class Freshness:
    """What one look saw. `lag_ms`: age of the oldest published row that Druid has not read, 0 if there is none."""

    checked_ms: int = 0
    last_event_time_ms: int | None = None
    last_published_ms: int | None = None
    reading: bool = False
    behind_offsets: int | None = None
    lag_ms: int | None = None
    problem: str | None = "not looked at yet"


class FreshnessWatch:
    """Keeps the latest `Freshness`. `start` and `stop` it once; reading it never blocks."""

    def __init__(self, druid: DruidClient, interval_s: float, behind_ms: int) -> None:
        self._druid = druid
        self._interval_s = interval_s
        self._behind_ms = behind_ms
        self._latest = Freshness()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="freshness", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=5)

    def as_json(self, now_ms: int | None = None) -> dict[str, Any]:
        """The latest look as the API shows it, with a verdict: `is_behind`, and if so why."""
        now_ms = int(time.time() * 1000) if now_ms is None else now_ms
        seen = self._latest
        reason = self._reason(seen, now_ms)
        return {
            "last_event_time": _iso(seen.last_event_time_ms),
            "last_published_time": _iso(seen.last_published_ms),
            "ingestion_lag_ms": seen.lag_ms,
            "ingestion_behind_offsets": seen.behind_offsets,
            "is_behind": reason is not None,
            "behind_reason": reason,
            "checked_time": _iso(seen.checked_ms or None),
        }

    def _reason(self, seen: Freshness, now_ms: int) -> str | None:
        if seen.problem is not None:
            return f"progress unknown: {seen.problem}"
        if now_ms - seen.checked_ms > _STALE_INTERVALS * self._interval_s * 1000:
            return "progress unknown: the last look is too long ago"
        if not seen.reading:
            return "no ingestion task is reading: totals may be lower than they were"
        if seen.lag_ms is not None and seen.lag_ms > self._behind_ms:
            return f"rows published {seen.lag_ms / 1000:.0f} s ago are not in yet"
        return None

    def _run(self) -> None:
        probe: ProgressProbe | None = None
        while not self._stopping.is_set():
            try:
                probe = probe or ProgressProbe(self._druid, DATASOURCE, CAMPAIGN_METRICS.name)
                self._latest = self._look(probe)
            except ConnectorError as error:
                if self._latest.problem is None:
                    log.warning("freshness_unknown", extra={"error": str(error)})
                self._latest = Freshness(checked_ms=int(time.time() * 1000), problem=str(error))
            self._stopping.wait(self._interval_s)
        if probe is not None:
            probe.close()

    def _look(self, probe: ProgressProbe) -> Freshness:
        progress = probe.progress()
        rows = self._druid.sql(_LAST_SEEN)
        last: Mapping[str, Any] = rows[0] if rows else {}
        return Freshness(
            checked_ms=int(time.time() * 1000),
            last_event_time_ms=last.get("last_event_time_ms"),
            last_published_ms=last.get("last_published_ms"),
            reading=progress.reading,
            behind_offsets=progress.behind_offsets,
            lag_ms=progress.lag_ms,
            problem=None,
        )


def _iso(moment_ms: int | None) -> str | None:
    if moment_ms is None:
        return None
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds")
