"""The transactional loop: consume, publish, commit offsets, in one Kafka transaction per batch.

After a kill at any point the next instance aborts what was open and reads the same records again; readers of
committed records see each batch once. What is outside and unreachable is waited for; nothing is refused for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from connectors.kafka import as_connector_error, consumer, transactional_producer, value_of
from connectors.patience import Patience
from jobs.publisher.batch import SOURCES, BatchPublisher, Output, Record
from jobs.publisher.metrics import PublisherMetrics
from jobs.publisher.settings import PublisherSettings
from schemas.errors import TimedOut, Unavailable

logger = logging.getLogger(__name__)

_CALL_S = 5.0


class TransactionAborted(Exception):
    """The transaction can't be committed; its records have to be read again."""


class PublisherWorker:
    """One worker: one consumer of the group, one transactional id, one thread.

    `run` blocks until `stop` and raises what can't be waited for: Fenced, Refused.
    """

    def __init__(
        self,
        settings: PublisherSettings,
        make_batch: Callable[[], BatchPublisher],
        metrics: PublisherMetrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._make_batch = make_batch
        self._metrics = metrics
        self._now_ms = now_ms
        self._name = f"{settings.group}-{settings.worker}"
        self._stopping = threading.Event()
        self._patience = Patience(
            self._stopping, settings.retry_s, lambda what, waiting: metrics.waiting.labels(what).set(waiting)
        )
        self._rebalanced = False
        self._consumer: Consumer | None = None
        self._ready = False
        self._records = 0

    def status(self) -> dict[str, Any]:
        """For `/status`; may be called by any thread."""
        return {
            "ready": self._ready,
            "worker": self._name,
            "waiting_for": self._patience.waiting_for,
            "records": self._records,
        }

    def stop(self) -> None:
        """Ends `run` after the batch in hand. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        publish = self._patience.wait_for("registry", self._make_batch)
        producer = self._patience.wait_for("kafka", self._open_producer)
        if publish is None or producer is None:
            return
        self._consumer = self._open_consumer()
        try:
            while not self._stopping.is_set():
                messages = self._poll()
                self._ready = True
                if messages:
                    self._publish(publish, producer, messages)
        finally:
            self._ready = False
            self._consumer.close()

    def _open_producer(self) -> Producer:
        return transactional_producer(
            self._name,
            self._name,
            {"transaction.timeout.ms": self._settings.transaction_timeout_ms, "linger.ms": 2},
        )

    def _open_consumer(self) -> Consumer:
        """A static member of the group: a restarted worker takes its partitions back without a rebalance."""
        opened = consumer(
            self._name,
            self._settings.group,
            settings={
                "group.instance.id": self._name,
                "session.timeout.ms": 10_000,
                "max.poll.interval.ms": 300_000,
                "queued.max.messages.kbytes": 16_384,
                "fetch.wait.max.ms": 50,
            },
        )
        self._rebalanced = False
        opened.subscribe([t.name for t in SOURCES], on_revoke=self._on_revoke, on_lost=self._on_revoke)
        return opened

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        logger.info("partitions revoked", extra={"partitions": len(partitions)})
        self._rebalanced = True

    def _poll(self) -> list[Record]:
        """Records to publish together; empty after a quiet moment, an outage or a rebalance."""
        assert self._consumer is not None
        messages: list[Record] = []
        for found in self._consumer.consume(self._settings.batch_records, self._settings.batch_wait_s):
            try:
                message = value_of(found)
            except (Unavailable, TimedOut) as e:
                logger.warning("kafka does not answer", extra={"error": str(e)})  # the client goes on trying
                continue
            if message is not None:
                messages.append(cast(Record, message))
        if self._rebalanced:
            self._reopen_consumer()
            return []
        return messages

    def _reopen_consumer(self) -> None:
        """Starts again from the committed offsets."""
        assert self._consumer is not None
        self._consumer.close()
        self._consumer = self._open_consumer()

    def _publish(self, publish: BatchPublisher, producer: Producer, messages: Sequence[Record]) -> None:
        started_s = time.monotonic()
        output = self._patience.wait_for("valkey or registry", lambda: publish(messages), self._consumer)
        if output is None:
            return
        if self._rebalanced or self._patience.lost_position:
            self._reopen_consumer()
            return
        try:
            self._commit(producer, messages, output)
        except TransactionAborted as e:
            logger.warning("transaction aborted", extra={"error": str(e), "records": len(messages)})
            self._metrics.transactions.labels("aborted").inc()
            self._reopen_consumer()
            return
        self._count(messages, output, time.monotonic() - started_s)

    def _commit(self, producer: Producer, messages: Sequence[Record], output: Output) -> None:
        """One transaction. Errors: TransactionAborted; Fenced and Refused when this producer is of no use any more."""
        assert self._consumer is not None
        following = {(m.topic(), m.partition()): m.offset() + 1 for m in messages}
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in following.items()]
        try:
            producer.begin_transaction()
            for topic, key, value in output.messages:
                while True:
                    try:
                        producer.produce(topic, value, key)
                        break
                    except BufferError:
                        producer.poll(0.1)
            group = self._consumer.consumer_group_metadata()
            _until_done(lambda: producer.send_offsets_to_transaction(offsets, group, _CALL_S))
            _until_done(lambda: producer.commit_transaction(_CALL_S))
        except KafkaException as e:
            if not e.args[0].txn_requires_abort():
                raise as_connector_error(e) from e
            try:
                _until_done(lambda: producer.abort_transaction(_CALL_S))
            except KafkaException as on_abort:
                raise as_connector_error(on_abort) from on_abort
            raise TransactionAborted(str(e.args[0].str())) from e

    def _count(self, messages: Sequence[Record], output: Output, took_s: float) -> None:
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
        if output.oldest_received_ms is not None:
            metrics.delay_s.observe(max(0, self._now_ms() - output.oldest_received_ms) / 1000)
        self._records += len(messages)


def _until_done(call: Callable[[], object]) -> None:
    """Repeats a transaction's call while the client says that it may be repeated. Errors: KafkaException."""
    while True:
        try:
            call()
            return
        except KafkaException as e:
            if not e.args[0].retriable():
                raise
            logger.info("transaction call repeated", extra={"error": e.args[0].str()})
