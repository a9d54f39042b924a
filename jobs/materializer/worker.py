"""The loop: read compacted topics, write absolute values, commit offsets after the write.

At least once, and every write is absolute: what is written twice is the same. When Valkey turns out to be empty or
restarted, everything is read from the beginning and written again, while the ad server goes on with what is there.
During that a counter may for a moment show an older value than before. Valkey's marker says so, and says when it is
over; a worker that finds a rebuild unfinished begins it again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from connectors.kafka import as_connector_error, begin_assigned, consumer, kafka_errors, value_of
from connectors.patience import Patience
from connectors.records import RecordDecoder
from jobs.materializer.metrics import MaterializerMetrics
from jobs.materializer.settings import MaterializerSettings
from jobs.materializer.store import StateLost, Store
from jobs.transforms.valkey_writes import PendingWrites
from schemas.errors import Reject, TimedOut, Unavailable
from schemas.topics import CAMPAIGN_SPEND, FREQUENCY_COUNTS, INVALID_TRAFFIC, STREAMING_FEATURES

logger = logging.getLogger(__name__)

SOURCES = (FREQUENCY_COUNTS, STREAMING_FEATURES, CAMPAIGN_SPEND, INVALID_TRAFFIC)
_MEMBER = "materializer-0"
Position = tuple[str, int]


class MaterializerWorker:
    """One worker for all partitions. `run` blocks until `stop`, or until caught up when it was built for that.

    Errors of `run`: Fenced, Refused.
    """

    def __init__(
        self,
        settings: MaterializerSettings,
        store: Store,
        decoders: Mapping[str, RecordDecoder],
        metrics: MaterializerMetrics,
        now_ms: Callable[[], int],
        rebuild_once: bool = False,
    ) -> None:
        self._settings = settings
        self._store = store
        self._decoders = decoders
        self._metrics = metrics
        self._now_ms = now_ms
        self._rebuild_once = rebuild_once
        self._stopping = threading.Event()
        self._patience = Patience(
            self._stopping, settings.retry_s, lambda what, waiting: metrics.waiting.labels(what).set(waiting)
        )
        self._consumer: Consumer | None = None
        self._checked_s = 0.0
        self._rebuilding = False
        self._behind: set[Position] | None = None  # partitions that a rebuild has to read yet; None: not assigned yet
        self._ready = False
        self._rebuilds = 0
        self._records = 0

    def status(self) -> dict[str, Any]:
        """For `/status`; may be called by any thread."""
        return {
            "ready": self._ready,
            "waiting_for": self._patience.waiting_for,
            "rebuilding": self._rebuilding,
            "rebuilds": self._rebuilds,
            "records": self._records,
        }

    def stop(self) -> None:
        """Ends `run` after the batch in hand. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        self._consumer = self._open_consumer()
        try:
            if self._rebuild_once:
                self._begin_rebuild()
            while not self._stopping.is_set():
                messages, ended = self._poll()
                try:
                    self._patience.wait_for("valkey or registry", partial(self._write, messages), self._consumer)
                    if self._patience.lost_position:
                        self._reopen_consumer()
                    elif not self._stopping.is_set():
                        self._commit(messages)
                        self._reach(ended)
                except StateLost:
                    self._begin_rebuild()
                self._ready = True
                if self._rebuild_once and not self._rebuilding:
                    return
        finally:
            self._ready = False
            self._consumer.close()

    def _open_consumer(self) -> Consumer:
        opened = consumer(
            "materializer",
            self._settings.group,
            settings={
                "group.instance.id": _MEMBER,
                "session.timeout.ms": 10_000,
                "fetch.wait.max.ms": 20,
                "enable.partition.eof": True,
            },
        )
        with kafka_errors():
            opened.subscribe([topic.name for topic in SOURCES], on_assign=self._on_assign)
        return opened

    def _on_assign(self, opened: Consumer, partitions: list[TopicPartition]) -> None:
        """A rebuild reads from the beginning. Committed offsets can't say that: a member that is still joining its
        group must not commit, or the broker fences it."""
        if self._rebuilding:
            self._behind = {(p.topic, p.partition) for p in partitions}
            partitions = [TopicPartition(p.topic, p.partition, OFFSET_BEGINNING) for p in partitions]
        begin_assigned(opened, partitions)

    def _reopen_consumer(self) -> None:
        """Starts again from the committed offsets, or from the beginning in a rebuild."""
        assert self._consumer is not None
        self._consumer.close()
        self._consumer = self._open_consumer()

    def _poll(self) -> tuple[list[Message], set[Position]]:
        """Records to write, and the partitions whose end was reached behind them."""
        assert self._consumer is not None
        messages: list[Message] = []
        ended: set[Position] = set()
        for found in self._consumer.consume(self._settings.batch_records, self._settings.batch_wait_s):
            try:
                message = value_of(found)
            except (Unavailable, TimedOut) as e:
                logger.warning("kafka does not answer", extra={"error": str(e)})  # the client goes on trying
                continue
            if message is None:
                ended.add((str(found.topic()), int(found.partition() or 0)))
            else:
                messages.append(message)
        return messages, ended

    def _write(self, messages: Sequence[Message]) -> None:
        """Writes what the records say. Errors: StateLost; Unavailable and TimedOut, to be tried again."""
        if not messages:
            if time.monotonic() - self._checked_s >= self._settings.check_marker_s:
                self._store.check()
                self._checked_s = time.monotonic()
            return
        writes = PendingWrites()
        updated_ms = []
        refused: list[tuple[str, str]] = []
        for message in messages:
            topic = str(message.topic())
            value = message.value()
            if value is None:
                continue  # a tombstone: counters end by their retention
            _schema_id, record = self._decoders[topic](value)
            if not isinstance(record, Reject):
                if topic == INVALID_TRAFFIC.name:
                    writes.add_verdict(record)
                    continue
                spend = topic == CAMPAIGN_SPEND.name
                problem = writes.add_spend(record) if spend else writes.add_counters(topic, record)
                if problem is None:
                    updated_ms.append(record["updated_ms"])
                    continue
                record = problem
            refused.append((topic, str(record.reason)))
        started_s = time.monotonic()
        self._store.write(writes.commands())
        self._checked_s = time.monotonic()
        self._metrics.write_s.observe(self._checked_s - started_s)
        self._metrics.pruned.inc(
            self._store.prune(writes.counter_keys(), self._settings.prune_every_s, self._settings.prune_keys)
        )
        self._count(messages, writes.fields, updated_ms, refused)

    def _count(
        self, messages: Sequence[Message], fields: int, updated_ms: list[int], refused: list[tuple[str, str]]
    ) -> None:
        self._records += len(messages)
        self._metrics.fields.inc(fields)
        for topic, count in Counter(message.topic() for message in messages).items():
            self._metrics.records.labels(topic).inc(count)
        for topic, reason in refused:
            self._metrics.refused.labels(topic, reason).inc()
        if refused:
            logger.warning("records left out", extra={"records": len(refused), "first_reason": refused[0][1]})
        if not self._rebuilding:
            now_ms = self._now_ms()
            for moment_ms in updated_ms:
                if moment_ms:
                    self._metrics.lag_s.observe(max(0, now_ms - moment_ms) / 1000)

    def _commit(self, messages: Sequence[Message]) -> None:
        assert self._consumer is not None
        if not messages:
            return
        following = {(str(m.topic()), int(m.partition() or 0)): int(m.offset() or 0) + 1 for m in messages}
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in following.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as e:
            error = as_connector_error(e)
            if not isinstance(error, Unavailable | TimedOut):
                raise error from e
            logger.warning("offsets not committed", extra={"error": str(error)})  # the next commit includes them

    def _reach(self, ended: set[Position]) -> None:
        """Notes which partitions a rebuild has behind it; after the last one Valkey is marked as having everything."""
        if not self._rebuilding or self._behind is None:
            return
        self._behind -= ended
        if self._behind:
            return
        self._patience.wait_for("valkey", self._store.mark_complete, self._consumer)
        self._rebuilding = False
        self._rebuilds += 1
        logger.info("rebuilt", extra={"records": self._records})

    def _begin_rebuild(self) -> None:
        logger.warning("rebuilding from the beginning")
        self._metrics.rebuilds.inc()
        self._rebuilding, self._behind = True, None
        self._patience.wait_for("valkey", self._store.mark_rebuilding, None)
        self._reopen_consumer()
