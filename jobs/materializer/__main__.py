"""`python -m jobs.materializer [--rebuild]`: absolute values from compacted topics into Valkey.

Question: what does the ad server have to know about a user, an ad and a budget, now?
In: frequency-counts-v2, streaming-features-v2, campaign-spend-v1 (compacted, absolute values).
Out: Valkey, in the layout of schemas/redis_layout.py.
Time: none; buckets come with their start.
State: the topics are the state; Valkey can be dropped at any time and is rebuilt.
Delivery: at least once; a write is absolute and changes nothing when repeated.
Run: `python -m jobs.materializer`; `--rebuild` writes everything again and ends when that is done.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time

import httpx

from connectors.endpoints import Endpoints, endpoints
from connectors.logs import configure_logging
from connectors.records import RecordDecoder
from connectors.registry import SchemaRegistry
from connectors.valkey import Valkey
from connectors.worker_http import EXIT_UNAVAILABLE, WorkerProcess, run_worker
from jobs.materializer.metrics import MaterializerMetrics
from jobs.materializer.settings import MaterializerSettings
from jobs.materializer.store import Store
from jobs.materializer.worker import SOURCES, MaterializerWorker
from schemas.errors import TimedOut, Unavailable

logger = logging.getLogger("jobs.materializer")

_VALKEY_TIMEOUT_S = 2.0
_REBUILD_TIMEOUT_S = 600.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def build(places: Endpoints, store: Store, rebuild: bool) -> WorkerProcess:
    """The worker, wired; it connects when it runs."""
    settings, metrics, registry = MaterializerSettings(), MaterializerMetrics(), SchemaRegistry(places.registry_url)
    decoders = {topic.name: RecordDecoder(topic, registry) for topic in SOURCES}
    worker = MaterializerWorker(settings, store, decoders, metrics, now_ms, rebuild_once=rebuild)
    return WorkerProcess(worker, settings, metrics.registry, places.port("materializer_metrics"))


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 told to stop or rebuilt, 1 fenced or refused, 2 wrong settings, 3 not rebuilt in time."""
    parser = argparse.ArgumentParser(prog="python -m jobs.materializer", description=__doc__)
    parser.add_argument("--rebuild", action="store_true", help="write everything again, then end")
    rebuild = parser.parse_args(argv).rebuild
    configure_logging("materializer")
    places = endpoints()
    store = Store(Valkey(places.valkey_url, _VALKEY_TIMEOUT_S))
    if rebuild and (running := _status(places)) is not None:
        return _rebuild_by_running_worker(places, store, running["rebuilds"])
    return run_worker(lambda: build(places, store, rebuild))


def _status(places: Endpoints) -> dict[str, int] | None:
    """What the running worker says; None when there is none."""
    try:
        url = f"http://{places.host}:{places.port('materializer_metrics')}/status"
        answer: dict[str, int] = httpx.get(url, timeout=5).json()
    except httpx.HTTPError:
        return None
    return answer


def _rebuild_by_running_worker(places: Endpoints, store: Store, rebuilds_before: int) -> int:
    """Two writers at once could leave an older value behind, so the one that runs is asked to do it."""
    try:
        store.unmark()
    except (Unavailable, TimedOut) as e:
        logger.error("valkey does not answer", extra={"error": str(e)})
        return EXIT_UNAVAILABLE
    deadline_s = time.monotonic() + _REBUILD_TIMEOUT_S
    while time.monotonic() < deadline_s:
        found = _status(places)
        if found is not None and found["rebuilds"] != rebuilds_before and not found["rebuilding"]:
            logger.info("rebuilt by the running worker", extra=found)
            return 0
        time.sleep(0.2)
    return EXIT_UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
