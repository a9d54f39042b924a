"""`python -m jobs.publisher`: telemetry and conversions in, the one contract out, exactly once.

Question: what happened to which ad?
In: ad-telemetry-v1 (token or upstream id), ad-conversions-v1 (pseudonym), attributions-v1 (order id; credited views
become events); the Ads Metadata Registry in Valkey.
Out: ad-events-v1 (pseudonym, salted for a busy one, or record id), dead letters beside the sources.
Time: event time is the sender's, clamped to the received time; publish time is this worker's clock.
State: none that matters; records of recent ads are remembered.
Delivery: exactly once within Kafka (transactions); readers must read committed records only.
Run: `python -m jobs.publisher`; `headwater up --publishers 3` runs three, `HEADWATER_PUBLISHER_WORKER=0,1,2`.
"""

from __future__ import annotations

import sys
import time

from connectors.code_version import code_version
from connectors.endpoints import Endpoints, endpoints
from connectors.keys import KeyRing
from connectors.logs import configure_logging
from connectors.records import RecordDecoder, encoder
from connectors.registry import SchemaRegistry
from connectors.tokens import TokenOpener
from connectors.valkey import Valkey
from connectors.worker_http import WorkerProcess, run_worker
from jobs.publisher.ad_records import AdRecords
from jobs.publisher.batch import SOURCES, BatchPublisher
from jobs.publisher.hot_keys import HotKeys
from jobs.publisher.metrics import PublisherMetrics
from jobs.publisher.settings import PublisherSettings
from jobs.publisher.worker import PublisherWorker
from jobs.transforms.enrich import REPEATED
from schemas.errors import ConfigError
from schemas.topics import AD_EVENTS, BY_NAME
from schemas.two_step_encoder import TwoStepEncoder

_VALKEY_TIMEOUT_S = 2.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def build(places: Endpoints) -> WorkerProcess:
    """The worker, wired; it connects when it runs. Errors: ConfigError when the keys can't be read."""
    settings, metrics = PublisherSettings(), PublisherMetrics()
    registry = SchemaRegistry(places.registry_url)
    opener = TokenOpener(KeyRing.load(places.secrets))
    valkey = Valkey(places.valkey_url, _VALKEY_TIMEOUT_S)
    hot_keys = HotKeys(settings.hot_key_share, settings.hot_key_salts, settings.hot_key_window_ads)

    def make_batch() -> BatchPublisher:
        dead_letters = {t.name: encoder(BY_NAME[t.dead_letter], registry) for t in SOURCES if t.dead_letter}
        encode_event = encoder(AD_EVENTS, registry)
        encode_token_event = TwoStepEncoder("ad_event", encode_event.schema_id, REPEATED)
        return BatchPublisher(
            decoders={topic.name: RecordDecoder(topic, registry) for topic in SOURCES},
            opener=opener,
            ads=AdRecords(valkey, settings.cached_records, encode_token_event, hot_keys.key),
            key_of_ad=hot_keys.key,
            encode_event=encode_event,
            encode_token_event=encode_token_event,
            encode_dead_letter=dead_letters,
            upstream_record_ttl_s=settings.upstream_record_ttl_s,
            job_version=code_version(),
            now_ms=now_ms,
        )

    port = settings.metrics_port or _metrics_port(places, settings.worker)
    worker = PublisherWorker(settings, make_batch, hot_keys, metrics, now_ms)
    return WorkerProcess(worker, settings, metrics.registry, port)


def _metrics_port(places: Endpoints, worker: int) -> int:
    """Where a worker of the local stack shows itself. Errors: ConfigError for one that the stack does not have."""
    name = "publisher_metrics" if worker == 0 else f"publisher_{worker + 1}_metrics"
    try:
        return places.port(name)
    except KeyError:
        raise ConfigError(f"HEADWATER_PUBLISHER_METRICS_PORT: worker {worker} needs a port of its own") from None


def main() -> int:
    """Exit code: 0 told to stop, 1 fenced or refused, 2 wrong settings."""
    configure_logging("publisher")
    return run_worker(lambda: build(endpoints()))


if __name__ == "__main__":
    sys.exit(main())
