"""The publisher's worker: batches through the transactional loop, and what is counted of them.

Its memory is bounded whatever waits in Kafka or does not answer: one batch in hand, `queued.max.messages.kbytes` of
records fetched ahead (none while it waits, partitions are paused), one transaction in the producer's queue.
"""

from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Message

from connectors.kafka_transactions import TransactionalLoop, TransactionSettings
from connectors.patience import Patience
from jobs.publisher.batch import SOURCES, BatchPublisher, Output
from jobs.publisher.hot_keys import HotKeys
from jobs.publisher.metrics import PublisherMetrics
from jobs.publisher.settings import PublisherSettings

#: Objects made before the cyclic collector looks at the young ones: a few batches, which it would walk in vain.
_GC_THRESHOLD = 50_000


class PublisherWorker:
    """One worker: one consumer of the group, one transactional id, one thread.

    `run` blocks until `stop` and raises what can't be waited for: Fenced, Refused.
    """

    def __init__(
        self,
        settings: PublisherSettings,
        make_batch: Callable[[], BatchPublisher],
        hot_keys: HotKeys,
        metrics: PublisherMetrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._make_batch = make_batch
        self._hot_keys = hot_keys
        self._metrics = metrics
        self._now_ms = now_ms
        self._name = f"{settings.group}-{settings.worker}"
        self._stopping = threading.Event()
        self._patience = Patience(
            self._stopping, settings.retry_s, lambda what, waiting: metrics.waiting.labels(what).set(waiting)
        )
        self._loop: TransactionalLoop[Output] | None = None
        self._records = 0
        self._salted_ads = 0

    def status(self) -> dict[str, Any]:
        """For `/status`; may be called by any thread."""
        return {
            "ready": self._loop is not None and self._loop.ready,
            "worker": self._name,
            "waiting_for": self._patience.waiting_for,
            "records": self._records,
        }

    def stop(self) -> None:
        """Ends `run` after the batch in hand. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        publish = self._patience.wait_for("registry", self._make_batch)
        if publish is None:
            return
        settings = self._settings
        self._loop = TransactionalLoop(
            TransactionSettings(
                name=self._name,
                group=settings.group,
                topics=tuple(topic.name for topic in SOURCES),
                batch_records=settings.batch_records,
                batch_wait_s=settings.batch_wait_s,
                transaction_timeout_ms=settings.transaction_timeout_ms,
            ),
            publish,
            self._count,
            self._stopping,
            self._patience,
            on_aborted=lambda: self._metrics.transactions.labels("aborted").inc(),
        )
        gc.freeze()  # what is loaded stays; records make no cycles
        gc.set_threshold(_GC_THRESHOLD)
        self._loop.run()

    def _count(self, messages: Sequence[Message], output: Output, took_s: float) -> None:
        metrics = self._metrics
        metrics.transactions.labels("committed").inc()
        metrics.commit_s.observe(took_s)
        for topic, count in Counter(message.topic() for message in messages).items():
            metrics.records.labels(topic).inc(count)
        for event_type, count in output.events.items():
            metrics.events.labels(event_type).inc(count)
        for (topic, reason), count in output.rejects.items():
            metrics.rejects.labels(topic, reason).inc(count)
        for reason, count in output.quality.items():
            metrics.quality.labels(reason).inc(count)
        for result, count in output.lookups.items():
            metrics.lookups.labels(result).inc(count)
        if output.oldest_received_ms is not None:
            metrics.delay_s.observe(max(0, self._now_ms() - output.oldest_received_ms) / 1000)
        metrics.hot_keys.set(self._hot_keys.hot)
        metrics.salted_ads.inc(self._hot_keys.salted_ads - self._salted_ads)
        self._salted_ads = self._hot_keys.salted_ads
        self._records += len(messages)
