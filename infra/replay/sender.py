"""Sends a log's lines to the collector when they are due, in batches, each line with its place in its file.

Delivery: a batch without an answer is sent again; the platform's event ids make the second time a duplicate.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import httpx

from connectors.endpoints import Endpoints
from connectors.keys import KeyRing
from infra.replay.logs import LogLine
from schemas.errors import Refused, Unavailable

BATCH_LINES = 500
#: Lines that are due within this time of each other travel together.
TICK_S = 0.1
#: A silence in the log (or one absurd clock in it) is not waited out beyond this: the replay's own clock skips ahead.
LONGEST_WAIT_S = 5.0
RETRY_S = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


@dataclass(slots=True)
class SentCounts:
    """What the collector answered."""

    sent: int = 0
    accepted: int = 0
    refused: int = 0
    lag_ms: int = 0  # how far the sender is behind the chosen speed


class LogSender:
    """Replays lines at `speed_up` times the speed of life. Use it as a context.

    Errors: Refused when the collector refuses a batch; Unavailable when it stays away.
    """

    def __init__(self, ends: Endpoints, speed_up: float) -> None:
        self._speed_up = speed_up
        self._http = httpx.Client(
            base_url=ends.collector_url,
            timeout=30.0,
            headers={"X-Api-Key": KeyRing.load(ends.secrets).api_key("upstream")},
            trust_env=False,
        )
        self.counts = SentCounts()

    def __enter__(self) -> LogSender:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def replay(
        self, lines: Iterable[LogLine], on_batch: Callable[[SentCounts], None] = lambda counts: None
    ) -> SentCounts:
        """Sends lines that come in time order, each when it is due. Blocks until the last was answered."""
        start_s, first_ms = time.time(), None
        batch: list[LogLine] = []
        for line in lines:
            if first_ms is None:
                first_ms = line.time_ms
            rebase = f"{first_ms},{int(start_s * 1000)},{self._speed_up!r}"
            due_s = start_s + (line.time_ms - first_ms) / 1000 / self._speed_up
            if batch and (due_s > time.time() or len(batch) >= BATCH_LINES):
                self._flush(batch, rebase)
                on_batch(self.counts)
            self.counts.lag_ms = max(0, int((time.time() - due_s) * 1000))
            if (wait_s := due_s - time.time()) > 0:
                time.sleep(min(max(wait_s, TICK_S), LONGEST_WAIT_S))
                start_s -= max(0.0, wait_s - LONGEST_WAIT_S)
            batch.append(line)
        if batch:
            self._flush(batch, rebase)
            on_batch(self.counts)
        return self.counts

    def _flush(self, batch: list[LogLine], rebase: str) -> None:
        by_file: dict[tuple[str, str], list[LogLine]] = defaultdict(list)
        for line in batch:
            by_file[line.format, line.file].append(line)
        batch.clear()
        for (name, file), lines in by_file.items():
            headers = {
                "X-Origin": file,
                "X-Lines": ",".join(str(line.number) for line in lines),
                "X-Rebase": rebase,
                "Content-Type": "text/plain; charset=utf-8",
            }
            self._post(f"/v1/logs/{name}", headers, "\n".join(line.text for line in lines).encode())
            self.counts.sent += len(lines)

    def _post(self, path: str, headers: dict[str, str], body: bytes) -> None:
        problem = ""
        for pause_s in (*RETRY_S, None):
            try:
                answer = self._http.post(path, headers=headers, content=body)
            except httpx.TransportError as e:
                problem = str(e) or type(e).__name__
            else:
                if answer.is_success:
                    self._count(answer.json())
                    return
                problem = f"{answer.status_code} {answer.text[:200]}"
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    raise Refused(f"the collector refused a batch: {problem}")
            if pause_s is not None:
                time.sleep(pause_s)
        raise Unavailable(f"the collector took no batch: {problem}")

    def _count(self, answer: dict[str, object]) -> None:
        self.counts.accepted += int(str(answer["accepted"]))
        self.counts.refused += int(str(answer["refused"]))
