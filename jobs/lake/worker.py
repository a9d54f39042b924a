"""The lake worker: reads committed records of every bronze topic and appends them to Delta, exactly once.

In: the topics of `tables.BRONZE`. Out: their tables, and dead letters for what does not decode.
Time: none of its own; a row's hour is its event time's, late or not.
State: rows between two commits, in memory; progress lies in the Delta log, in the same commit as the rows.
Delivery: exactly once into Delta (a restart reads on from the log); dead letters at least once, see dead_letters.py.
Run: `python -m jobs.lake`. A second worker beside it is fenced by the log and ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from connectors.delta import ProgressTable, table_uri
from connectors.kafka import as_connector_error, is_fatal, kafka_errors
from jobs.lake.buffer import TableBuffer
from jobs.lake.dead_letters import DeadLetters
from jobs.lake.decoding import RowDecoder, SchemaSource
from jobs.lake.settings import LakeSettings
from jobs.lake.status import LakeMetrics, StatusBoard
from jobs.lake.tables import CONFIGURATION, HOUR_COLUMN, BronzeTable
from schemas.errors import Refused, Reject, TimedOut, Unavailable

logger = logging.getLogger(__name__)

#: Consumer settings beside the connector's: manual positions, end-of-partition events, little read ahead.
CONSUMER_SETTINGS: dict[str, str | int | float | bool] = {
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "enable.auto.offset.store": False,
    "queued.max.messages.kbytes": 4096,
    "queued.min.messages": 5_000,
    "fetch.message.max.bytes": 1_048_576,
}


_T = TypeVar("_T")


class _Stopped(Exception):
    """The worker is asked to stop while it waits for something outside."""


def _place(message: Message) -> tuple[str, int, int]:
    """(topic, partition, offset) of a record or an end of partition, which always have all three."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None
    return topic, partition, offset


class _Sink:
    """One table's parts: where its records come from and go to."""

    def __init__(self, table: BronzeTable, lake_uri: str, schema_source: SchemaSource) -> None:
        self.table = table
        self.schema = table.arrow_schema()
        self.delta = ProgressTable(table_uri(table.path, lake_uri), self.schema, [HOUR_COLUMN], CONFIGURATION)
        self.decode = RowDecoder(table, schema_source)
        self.new_buffer()
        self.positions: dict[int, int] = {}  # next offset by partition, markers of transactions passed
        self.committed_rows = 0
        self.seen = 0
        self.rejected = 0
        self.last_commit_s = 0.0

    def new_buffer(self) -> None:
        self.buffer = TableBuffer(self.table, self.schema)

    def progress(self, partition: int) -> int | None:
        return self.delta.progress(self.table.app_id(partition))

    def durable(self) -> dict[int, int]:
        """Next offset by partition up to which everything lies in Delta."""
        return {
            p: (self.progress(p) or 0) if p in self.buffer.done else position for p, position in self.positions.items()
        }


class LakeWorker:
    """Runs until `stop` is called from a signal handler or another thread."""

    def __init__(
        self,
        settings: LakeSettings,
        tables: Iterable[BronzeTable],
        lake_uri: str,
        consumer: Consumer,
        schema_source: SchemaSource,
        dead_letters: DeadLetters,
        board: StatusBoard,
        metrics: LakeMetrics,
        code_version: str,
        clock_ms: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._consumer = consumer
        self._dead_letters = dead_letters
        self._board = board
        self._metrics = metrics
        self._code_version = code_version
        self._clock_ms = clock_ms
        self._sinks = {t.topic.name: _Sink(t, lake_uri, schema_source) for t in tables}
        self._stopping = False
        self._next_refresh_s = 0.0

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        """Reads until stopped, then commits what is buffered. Errors: Fenced, Refused end the process."""
        now_s = time.monotonic()
        for sink in self._sinks.values():
            sink.last_commit_s = now_s
        while not self._stopping:
            self._refresh_assignment()
            with kafka_errors():
                messages = self._consumer.consume(self._settings.poll_records, self._settings.poll_timeout_s)
            try:
                for message in messages:
                    self._take(message)
            except _Stopped:
                break  # this record and those after it are read again by the next worker
            self._commit_due()
            self._publish_status()
        for sink in self._sinks.values():
            self._commit(sink)
        self._publish_status()

    def _refresh_assignment(self) -> None:
        if time.monotonic() < self._next_refresh_s:
            return
        self._next_refresh_s = time.monotonic() + self._settings.topic_refresh_s
        try:
            with kafka_errors():
                found = self._consumer.list_topics(timeout=10).topics
        except (Unavailable, TimedOut) as e:
            logger.warning("Kafka can't be asked for its topics", extra={"error": str(e)})
            self._next_refresh_s = time.monotonic() + self._settings.retry_s
            return
        new = [
            TopicPartition(name, p, self._start_offset(sink, p))
            for name, sink in self._sinks.items()
            if name in found
            for p in sorted(found[name].partitions)
            if p not in sink.positions
        ]
        if new:
            for p in new:
                self._sinks[p.topic].positions[p.partition] = p.offset
            with kafka_errors():
                self._consumer.incremental_assign(new)
            logger.info("assigned", extra={"partitions": len(new)})
        missing = sorted(set(self._sinks) - set(found))
        if missing:
            logger.warning("topics do not exist yet", extra={"topics": missing})
            self._next_refresh_s = time.monotonic() + self._settings.retry_s
        self._board.ready = not missing

    def _start_offset(self, sink: _Sink, partition: int) -> int:
        """Where to read on. Errors: Refused when the log is ahead of Kafka: this is another topic of the same name."""
        with kafka_errors():
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(sink.table.topic.name, partition), timeout=10
            )
        kept = sink.progress(partition)
        if kept is None:
            return low
        if kept > high:
            raise Refused(
                f"{sink.table.path} has {sink.table.topic.name}/{partition} up to offset {kept}, Kafka ends at {high}: "
                "the topic was made anew; move the table away before reading it again"
            )
        if kept < low:
            self._metrics.gaps.labels(sink.table.name).inc(low - kept)
            logger.error(
                "retention took records before they were read",
                extra={"topic": sink.table.topic.name, "partition": partition, "first": kept, "next": low},
            )
            return low
        return kept

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            self._take_event(message, error)
            return
        topic, partition, offset = _place(message)
        sink = self._sinks[topic]
        schema_id, row = self._retrying(lambda: sink.decode(message.value()))
        if isinstance(row, Reject):
            self._retrying(lambda: self._dead_letters.write(sink.table.dead_letter_topic, message, schema_id, row))
            self._metrics.rejects.labels(sink.table.name, row.reason).inc()
            sink.buffer.rejected += 1
            sink.rejected += 1
        else:
            row["kafka_partition"] = partition
            row["kafka_offset"] = offset
            row["kafka_time_ms"] = message.timestamp()[1]
            row["ingest_time_ms"] = self._clock_ms()
            sink.buffer.add(row)
        sink.seen += 1
        if partition not in sink.buffer.begun:  # asking the log costs more than decoding a record
            sink.buffer.begin(partition, sink.progress(partition))
        sink.buffer.advance(partition, offset)
        sink.positions[partition] = offset + 1
        if sink.buffer.row_count >= self._settings.max_buffered_rows:
            self._commit(sink)

    def _take_event(self, message: Message, error: KafkaError) -> None:
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            # The end as a reader of committed records sees it: behind the markers of transactions.
            topic, partition, offset = _place(message)
            self._sinks[topic].positions[partition] = offset
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise Refused(f"{message.topic()}/{message.partition()}: {error.str()}")
        elif is_fatal(error):
            raise as_connector_error(error)
        else:  # the client goes on trying by itself
            logger.warning("Kafka", extra={"error": error.str()})

    def _commit_due(self) -> None:
        now_s = time.monotonic()
        flush = self._board.flush_requested.is_set()
        self._board.flush_requested.clear()
        for sink in self._sinks.values():
            if flush or now_s - sink.last_commit_s >= self._settings.commit_interval_s:
                self._commit(sink)

    def _commit(self, sink: _Sink) -> None:
        """Makes the buffered rows durable, with the offsets behind them; skipped when there is nothing new."""
        sink.last_commit_s = time.monotonic()
        buffer = sink.buffer
        if not buffer:
            return
        try:
            self._retrying(lambda: self._store(sink, buffer))
        except _Stopped:
            logger.warning("stopped before a commit; its records are read again", extra={"table": sink.table.name})
            return
        name = sink.table.name
        sink.committed_rows += buffer.row_count
        self._metrics.rows.labels(name).inc(buffer.row_count)
        self._metrics.commits.labels(name).inc()
        self._metrics.commit_s.labels(name).observe(time.monotonic() - sink.last_commit_s)
        if buffer.row_count:
            age_ms = self._clock_ms() - buffer.newest_kafka_time_ms
            self._metrics.freshness_s.labels(name).set(age_ms / 1000)
        logger.info(
            "committed",
            extra={
                "table": name,
                "version": sink.delta.version,
                "rows": buffer.row_count,
                "rejected": buffer.rejected,
            },
        )
        sink.new_buffer()
        if sink.seen >= self._settings.min_records_to_judge:
            share = sink.rejected / sink.seen
            if share > self._settings.max_reject_share:
                raise Refused(f"{share:.0%} of {sink.table.topic.name} is refused: a writer must be wrong")

    def _store(self, sink: _Sink, buffer: TableBuffer) -> None:
        if buffer.rejected:
            self._dead_letters.flush()
        sink.delta.append(buffer.arrow(), buffer.expected(), buffer.progress(), buffer.lineage(self._code_version))

    def _retrying(self, attempt: Callable[[], _T]) -> _T:
        """What `attempt` gives back, tried again while something outside is not available. Errors: _Stopped."""
        while True:
            try:
                return attempt()
            except (Unavailable, TimedOut) as e:
                logger.warning("waiting", extra={"error": str(e)})
            if self._stopping:
                raise _Stopped
            time.sleep(self._settings.retry_s)

    def _publish_status(self) -> None:
        for topic, sink in self._sinks.items():
            self._metrics.buffered.labels(sink.table.name).set(sink.buffer.row_count)
            self._board.set_table(
                topic,
                table=sink.table.path,
                version=sink.delta.version,
                rows=sink.committed_rows,
                rejected=sink.rejected,
                read=dict(sink.positions),
                durable=sink.durable(),
            )
