"""How far Druid has read a topic: is what SQL answers *now* complete?

After a restart Druid answers SQL with totals that went backwards, until its task has read Kafka again; and a topic
written in transactions ends in markers that no reader's offset ever passes, so Druid's own lag does not reach zero.
Here the tasks' offsets are compared with the last *committed record* of each partition, found in Kafka itself.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType

from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition

from connectors.druid import DruidClient
from connectors.kafka import as_connector_error, consumer, is_fatal, kafka_errors
from schemas.errors import Refused, TimedOut, Unavailable

#: How far before a partition's end the first look for its last committed record begins, and how that grows.
_FIRST_LOOK_BACK = 256
_LOOK_BACK_FACTOR = 8
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class IngestionProgress:
    """What Druid has still to read of the records that were committed when the question was asked.

    Units: `behind_offsets` counts offsets, so records plus a marker per transaction; `lag_ms` is the age of the oldest
    record not yet read, 0 when there is none.
    """

    reading: bool
    behind_offsets: int
    lag_ms: int

    @property
    def caught_up(self) -> bool:
        """Everything committed until then is in SQL's answers."""
        return self.reading and self.behind_offsets == 0


class ProgressProbe:
    """Compares a supervisor's reading tasks with the topic. Not for several threads at once; close it after use."""

    def __init__(self, druid: DruidClient, supervisor_id: str, topic: str) -> None:
        self._druid = druid
        self._supervisor_id = supervisor_id
        self._topic = topic
        self._consumer = consumer(
            "druid-progress",
            f"{supervisor_id}-progress",  # never committed to, only demanded by the client
            settings={"enable.partition.eof": True, "fetch.wait.max.ms": 20, "fetch.queue.backoff.ms": 10},
        )

    def __enter__(self) -> ProgressProbe:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def committed_ends(self, timeout_s: float = 10.0) -> dict[int, int]:
        """The offset after the last committed record, for each partition that has one.

        Errors: Unavailable (no broker), Refused (no such topic), TimedOut.
        """
        deadline = time.monotonic() + timeout_s
        begins, stops = {}, {}
        with kafka_errors():
            known = self._consumer.list_topics(self._topic, timeout=timeout_s).topics[self._topic]
            if known.error is not None:
                raise as_connector_error(known.error)
            for partition in known.partitions:
                where = TopicPartition(self._topic, partition)
                begins[partition], stops[partition] = self._consumer.get_watermark_offsets(where, timeout=timeout_s)
        ends: dict[int, int] = {}
        look_back = _FIRST_LOOK_BACK
        unknown = {p for p in stops if begins[p] < stops[p]}
        while unknown:
            starts = {p: max(begins[p], stops[p] - look_back) for p in unknown}
            for message in self._records(starts, deadline):
                ends[_partition(message)] = _offset(message) + 1
            unknown = {p for p in unknown if p not in ends and starts[p] > begins[p]}
            look_back *= _LOOK_BACK_FACTOR
        return ends

    def _records(self, starts: Mapping[int, int], deadline: float) -> Iterator[Message]:
        """The committed records of each partition from an offset to its end as it is now, in order by partition."""
        self._consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in starts.items()])
        unfinished = set(starts)
        try:
            while unfinished:
                if time.monotonic() > deadline:
                    raise TimedOut(f"Kafka topic {self._topic}: partitions {sorted(unfinished)} not read to the end")
                message = self._consumer.poll(_POLL_S)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(_partition(message))
                elif is_fatal(error):
                    raise as_connector_error(error)
        finally:
            self._consumer.unassign()  # else it goes on fetching between questions

    def progress(self, ends: Mapping[int, int] | None = None, timeout_s: float = 10.0) -> IngestionProgress:
        """How far Druid's tasks are from `ends` (by default from what is committed now).

        Errors: Unavailable, TimedOut. A task that does not answer is no error: then nothing counts as read.
        """
        deadline = time.monotonic() + timeout_s
        wanted = self.committed_ends(timeout_s) if ends is None else ends
        tasks = self._druid.reading_tasks(self._supervisor_id)
        read: dict[int, int] = {}
        for task in tasks:
            for partition, offset in task.offsets.items():
                read[partition] = max(offset, read.get(partition, 0))
        missing = {p: end - read.get(p, 0) for p, end in wanted.items() if read.get(p, 0) < end}
        lag_ms = max(0, int(time.time() * 1000) - self._oldest_ms(missing, read, deadline)) if missing else 0
        return IngestionProgress(reading=bool(tasks), behind_offsets=sum(missing.values()), lag_ms=lag_ms)

    def _oldest_ms(self, partitions: Collection[int], read: Mapping[int, int], deadline: float) -> int:
        """When the oldest record was made that lies behind Druid's offset in one of the partitions."""
        first_ms: dict[int, int] = {}
        for message in self._records({p: read.get(p, OFFSET_BEGINNING) for p in partitions}, deadline):
            first_ms.setdefault(_partition(message), message.timestamp()[1])
            if len(first_ms) == len(partitions):
                break
        return min(first_ms.values(), default=int(time.time() * 1000))

    def wait_until_caught_up(self, timeout_s: float = 60.0) -> IngestionProgress:
        """Blocks until SQL's answers hold everything that is committed now. Safe during restarts of Druid.

        Errors: TimedOut with what is missing; Unavailable without Kafka.
        """
        deadline = time.monotonic() + timeout_s
        ends = self.committed_ends(timeout_s)
        while True:
            seen: object
            try:
                seen = self.progress(ends)
                if seen.caught_up:
                    return seen
            except (Unavailable, Refused, TimedOut) as error:  # Druid is coming back
                seen = error
            if time.monotonic() > deadline:
                raise TimedOut(f"{self._supervisor_id} has not caught up in {timeout_s:g} s: {seen}")
            time.sleep(_POLL_S)


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None  # a consumed record has one
    return offset


def _partition(message: Message) -> int:
    partition = message.partition()
    assert partition is not None
    return partition
