"""Consume, transform, produce, commit offsets: one Kafka transaction per batch, for as long as a worker lives.

After a kill at any point the next instance aborts what was open and reads the same records again; readers of
committed records see each batch once. What is outside and unreachable is waited for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from connectors.kafka import as_connector_error, begin_assigned, consumer, transactional_producer, value_of
from connectors.patience import Patience
from connectors.watchdog import Watchdog
from schemas.errors import TimedOut, Unavailable

logger = logging.getLogger(__name__)

_CALL_S = 5.0
#: A call that has not come back by then never will.
_STUCK_S = 20.0


class Batch(Protocol):
    """What a batch became. `messages` are (topic, key, value)."""

    @property
    def messages(self) -> Sequence[tuple[str, bytes, bytes]]: ...


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True, slots=True)
class TransactionSettings:
    """`name` is the worker's own and stable over restarts: transactional id and static group member."""

    name: str
    group: str
    topics: tuple[str, ...]
    batch_records: int = 2_000
    batch_wait_s: float = 0.05
    transaction_timeout_ms: int = 10_000


class _Aborted(Exception):
    """The transaction can't be committed; its records have to be read again."""


class TransactionalLoop(Generic[B]):
    """One consumer of a group, one transactional id, one thread.

    `transform` must be repeatable: after a failure it gets the same records again. It may raise Unavailable or
    TimedOut, which are waited for. `on_committed(records, batch, took_s)` and `on_aborted()` are for counting.
    """

    def __init__(
        self,
        settings: TransactionSettings,
        transform: Callable[[Sequence[Message]], B],
        on_committed: Callable[[Sequence[Message], B, float], None],
        stopping: threading.Event,
        patience: Patience,
        on_aborted: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._transform = transform
        self._on_committed = on_committed
        self._stopping = stopping
        self._patience = patience
        self._on_aborted = on_aborted
        self._rebalanced = False
        self._consumer: Consumer | None = None
        self._watchdog: Watchdog | None = None
        self.ready = False

    def run(self) -> None:
        """Blocks until `stopping` is set. Errors: Fenced, Refused, and what `transform` can't be repeated for."""
        settings = self._settings
        opened = self._patience.wait_for(
            "kafka",
            lambda: transactional_producer(
                settings.name,
                settings.name,
                {
                    "transaction.timeout.ms": settings.transaction_timeout_ms,
                    "linger.ms": 2,
                    "delivery.report.only.error": True,  # a commit waits for all of them anyway
                },
            ),
        )
        if opened is None:
            return
        self._consumer = self._open_consumer()
        self._watchdog = Watchdog(_STUCK_S)
        try:
            while not self._stopping.is_set():
                messages = self._poll()
                self.ready = True
                if messages:
                    self._process(opened, messages)
        finally:
            self.ready = False
            self._watchdog.close()
            self._consumer.close()

    def _open_consumer(self) -> Consumer:
        """A static member of the group: a restarted worker takes its partitions back without a rebalance."""
        settings = self._settings
        opened = consumer(
            settings.name,
            settings.group,
            settings={
                "group.instance.id": settings.name,
                "session.timeout.ms": 10_000,
                "max.poll.interval.ms": 300_000,
                "queued.max.messages.kbytes": 16_384,
                "fetch.wait.max.ms": 50,
            },
        )
        self._rebalanced = False
        opened.subscribe(
            list(settings.topics), on_assign=begin_assigned, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )
        return opened

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        logger.info("partitions revoked", extra={"partitions": len(partitions)})
        self._rebalanced = True

    def _poll(self) -> list[Message]:
        """Records of one transaction; empty after a quiet moment, an outage or a rebalance."""
        assert self._consumer is not None
        messages: list[Message] = []
        for found in self._consumer.consume(self._settings.batch_records, self._settings.batch_wait_s):
            try:
                message = value_of(found)
            except (Unavailable, TimedOut) as e:
                logger.warning("kafka does not answer", extra={"error": str(e)})  # the client goes on trying
                continue
            if message is not None:
                messages.append(message)
        if self._rebalanced:
            self._reopen_consumer()
            return []
        return messages

    def _reopen_consumer(self) -> None:
        """Starts again from the committed offsets."""
        assert self._consumer is not None
        self._consumer.close()
        self._consumer = self._open_consumer()

    def _process(self, producer: Producer, messages: Sequence[Message]) -> None:
        started_s = time.monotonic()
        batch = self._patience.wait_for("valkey or registry", lambda: self._transform(messages), self._consumer)
        if batch is None:
            return
        if self._rebalanced or self._patience.lost_position:
            self._reopen_consumer()
            return
        try:
            self._commit(producer, messages, batch)
        except _Aborted as e:
            logger.warning("transaction aborted", extra={"error": str(e), "records": len(messages)})
            self._on_aborted()
            self._reopen_consumer()
            return
        self._on_committed(messages, batch, time.monotonic() - started_s)

    def _commit(self, producer: Producer, messages: Sequence[Message], batch: Batch) -> None:
        """One transaction. Errors: _Aborted; Fenced and Refused when this producer is of no use any more."""
        assert self._consumer is not None
        following = {(m.topic() or "", m.partition() or 0): (m.offset() or 0) + 1 for m in messages}
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in following.items()]
        try:
            producer.begin_transaction()
            for topic, key, value in batch.messages:
                while True:
                    try:
                        producer.produce(topic, value, key)
                        break
                    except BufferError:
                        producer.poll(0.1)
            group = self._consumer.consumer_group_metadata()
            self._until_done(lambda: producer.send_offsets_to_transaction(offsets, group, _CALL_S))
            self._until_done(lambda: producer.commit_transaction(_CALL_S))
        except KafkaException as e:
            if not e.args[0].txn_requires_abort():
                raise as_connector_error(e) from e
            try:
                self._until_done(lambda: producer.abort_transaction(_CALL_S))
            except KafkaException as on_abort:
                raise as_connector_error(on_abort) from on_abort
            raise _Aborted(str(e.args[0].str())) from e

    def _until_done(self, call: Callable[[], object]) -> None:
        """Repeats a transaction's call while the client says that it may be repeated. Errors: KafkaException."""
        assert self._watchdog is not None
        while True:
            try:
                with self._watchdog.watching():
                    call()
                return
            except KafkaException as e:
                if not e.args[0].retriable():
                    raise
                logger.info("transaction call repeated", extra={"error": e.args[0].str()})
