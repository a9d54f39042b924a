"""`python -m jobs.vendors`: the Ads Event Handler, which tells verification and measurement partners what happened.

Question: have all third parties that an ad names been told of each of its events?
In: ad-events-v1 (committed records); the Ads Metadata Registry in Valkey; <home>/partners.json.
Out: HTTP GETs; between the two halves tracker-calls-v1 (key: partner), dead letters in tracker-calls-v1-dlq.
Time: none of its own; [TIMESTAMP] is the event's.
State: Kafka is the queue; Valkey holds which events were seen and which calls were answered beyond what is committed.
Delivery: events to calls exactly once; calls at least once with a stable Idempotency-Key. See README.md.
Run: `python -m jobs.vendors`; more workers with `HEADWATER_VENDORS_WORKER=1` and a `..._METRICS_PORT` of their own.
"""

from __future__ import annotations

import sys
import time

from connectors.addresses import public_address
from connectors.code_version import code_version
from connectors.endpoints import Endpoints, endpoints
from connectors.kafka import producer
from connectors.logs import configure_logging
from connectors.records import RecordDecoder, encoder
from connectors.registry import SchemaRegistry
from connectors.valkey import Valkey
from connectors.worker_http import WorkerProcess, run_worker
from jobs.vendors.dead_letters import DeadLetters
from jobs.vendors.expand import JOB, Expander
from jobs.vendors.metrics import VendorMetrics
from jobs.vendors.partners import PartnerBook
from jobs.vendors.settings import VendorSettings
from jobs.vendors.wire import Wire
from jobs.vendors.worker import VendorsWorker
from schemas.catalog import Partners
from schemas.catalog_text import load_partners
from schemas.topics import AD_EVENTS, TRACKER_CALLS, TRACKER_CALLS_DLQ

_VALKEY_TIMEOUT_S = 2.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def build(places: Endpoints) -> WorkerProcess:
    """The worker, wired; it connects when it runs. Errors: ConfigError when the partners file is wrong."""
    settings, metrics = VendorSettings(), VendorMetrics()
    path = places.partners_path
    book = PartnerBook(load_partners(path.read_text()) if path.exists() else Partners(1, []))
    registry = SchemaRegistry(places.registry_url)

    def make_expander() -> Expander:
        return Expander(
            decode=RecordDecoder(AD_EVENTS, registry),
            encode=encoder(TRACKER_CALLS, registry),
            encode_dead_letter=encoder(TRACKER_CALLS_DLQ, registry),
            valkey=Valkey(places.valkey_url, _VALKEY_TIMEOUT_S),
            book=book,
            deduplication_s=settings.deduplication_s,
            cached_records=settings.cached_records,
            job_version=code_version(),
            now_ms=now_ms,
        )

    def make_dead_letters() -> DeadLetters:
        name = f"{settings.group}-dead-letters"
        return DeadLetters(producer(name), encoder(TRACKER_CALLS_DLQ, registry), JOB, code_version(), now_ms)

    worker = VendorsWorker(
        settings,
        book,
        make_expander,
        make_dead_letters,
        lambda: Wire(book, settings.connect_s, None if settings.allow_private else public_address),
        RecordDecoder(TRACKER_CALLS, registry),
        places.valkey_url,
        metrics,
        now_ms,
    )
    port = settings.metrics_port or places.port("vendors_metrics")
    return WorkerProcess(worker, settings, metrics.registry, port)


def main() -> int:
    """Exit code: 0 told to stop, 1 fenced or refused, 2 wrong settings."""
    configure_logging("vendors")
    return run_worker(lambda: build(endpoints()))


if __name__ == "__main__":
    sys.exit(main())
