"""Waits until bronze holds everything that was in Kafka when it was asked."""

from __future__ import annotations

import time
from typing import Any

import httpx

from connectors.kafka import end_offsets
from jobs.lake.tables import BRONZE
from schemas.errors import TimedOut, Unavailable


def drain(status_url: str, timeout_s: float, poll_s: float = 0.2) -> dict[str, int]:
    """End offsets reached, summed by topic. Asks the worker to commit at once instead of at its interval.

    Errors: TimedOut with the topics that are behind; Unavailable when worker or broker can't be asked.
    """
    targets = {t.topic.name: end_offsets(t.topic.name) for t in BRONZE}
    deadline_s = time.monotonic() + timeout_s
    behind: dict[str, int] = {}
    with httpx.Client(base_url=status_url, timeout=10) as client:
        while True:
            try:
                seen = client.get("/status").json()["topics"]
                behind = _behind(targets, seen, "durable")
                if not behind:
                    return {topic: sum(ends.values()) for topic, ends in targets.items()}
                if not _behind(targets, seen, "read"):
                    client.post("/flush").raise_for_status()
            except (httpx.HTTPError, ValueError, KeyError) as e:
                if time.monotonic() >= deadline_s:
                    raise Unavailable(f"the lake worker does not answer at {status_url}: {e}") from e
            if time.monotonic() >= deadline_s:
                raise TimedOut(f"offsets that are not in the lake after {timeout_s:g} s: {behind}")
            time.sleep(poll_s)


def _behind(targets: dict[str, dict[int, int]], topics: dict[str, Any], column: str) -> dict[str, int]:
    """Offsets still to come, by topic; topics that are there are left out."""
    missing = {}
    for topic, ends in targets.items():
        reached = topics[topic][column]
        missing[topic] = sum(max(0, end - reached.get(str(p), 0)) for p, end in ends.items())
    return {topic: n for topic, n in missing.items() if n}
