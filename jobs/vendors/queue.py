"""tracker-calls-v1 as the durable queue: reading on, reading again for a partner that is behind, committing.

Every call blocks and is made by one thread. `on_assigned` and `on_revoked` are called from within `read` and `close`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka import Consumer, Message, TopicPartition

from connectors.kafka import begin_assigned, consumer, kafka_errors, value_of
from jobs.vendors.progress import Progress
from schemas.errors import TimedOut, Unavailable
from schemas.topics import TRACKER_CALLS

logger = logging.getLogger(__name__)

_CALL_S = 10.0
_RETRY_S = 0.5
#: Less than `max.poll.interval.ms`, after which the group would take the partitions away.
_ASSIGN_S = 120.0
_FETCH = {"fetch.wait.max.ms": 100, "queued.max.messages.kbytes": 4_096}
#: Records that are read for one partner at a time before others get their turn.
_AGAIN_RECORDS = 2_000
_AGAIN_POLLS = 5


class CallQueue:
    """One member of the group. `name` is the worker's own and stable over restarts."""

    def __init__(
        self,
        name: str,
        group: str,
        on_assigned: Callable[[Mapping[int, Progress]], None],
        on_revoked: Callable[[Sequence[int], bool], Mapping[int, Progress]],
    ) -> None:
        """`on_revoked(partitions, lost)` gives the progress to commit; lost partitions are another's already."""
        self._name = name
        self._on_assigned = on_assigned
        self._on_revoked = on_revoked
        self._held: set[int] = set()
        self._reader = self._open_reader(group)
        self._again = consumer(f"{name}-again", f"{group}-again", settings={**_FETCH, "enable.partition.eof": True})

    def _open_reader(self, group: str) -> Consumer:
        opened = consumer(
            self._name,
            group,
            settings={
                "group.instance.id": self._name,
                "session.timeout.ms": 10_000,
                "enable.partition.eof": True,
                **_FETCH,
            },
        )
        opened.subscribe(
            [TRACKER_CALLS.name], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._partitions_lost
        )
        return opened

    def close(self) -> None:
        """Gives the partitions back."""
        self._reader.close()
        self._again.close()

    def read(self, most: int, wait_s: float) -> tuple[list[Message], dict[int, int]]:
        """(the next records of all partitions, ends of partitions that were reached: offsets after the last marker).

        An outage gives none: the client goes on trying.
        """
        found: list[Message] = []
        ends: dict[int, int] = {}
        for message in self._reader.consume(most, wait_s):
            try:
                record = value_of(message)
            except (Unavailable, TimedOut) as e:
                logger.warning("kafka does not answer", extra={"error": str(e)})
                continue
            if record is not None:
                found.append(record)
            else:
                ends[message.partition() or 0] = message.offset() or 0
        return found, ends

    def keep_alive(self) -> None:
        """Instead of `read` while nothing more can be taken in: stays a member of the group."""
        self._reader.pause(self._reader.assignment())
        message = self._reader.poll(0)
        if message is not None and message.error() is None:  # it was on its way out already: read it again
            self._reader.seek(TopicPartition(TRACKER_CALLS.name, message.partition() or 0, message.offset() or 0))

    def go_on(self) -> None:
        """After `keep_alive`."""
        self._reader.resume([p for p in self._reader.assignment() if p.partition not in self._held])

    def hold(self, partition: int, held: bool) -> None:
        """Stops reading a partition, or goes on."""
        place = [TopicPartition(TRACKER_CALLS.name, partition)]
        if held:
            self._held.add(partition)
            self._reader.pause(place)
        else:
            self._held.discard(partition)
            self._reader.resume(place)

    def read_again(
        self, partition: int, partner: str, since: int, head: int, most: int
    ) -> tuple[list[Message], int | None]:
        """(a partner's records from an offset on, at most `most`; where to go on, or None at the head).

        Records of others are passed over by their key. A turn is bounded; what is left is for the next.
        Errors: Unavailable, TimedOut.
        """
        found: list[Message] = []
        key, at = partner.encode(), since
        with kafka_errors():
            self._again.assign([TopicPartition(TRACKER_CALLS.name, partition, since)])
        try:
            for _ in range(_AGAIN_POLLS):
                for message in self._again.consume(_AGAIN_RECORDS // _AGAIN_POLLS, 0.2):
                    record = value_of(message)
                    offset = message.offset() or 0
                    if offset >= head:
                        return found, None
                    if record is None:  # the partition's end, before a head that only markers lie between
                        return found, None
                    if record.key() == key:
                        if len(found) == most:
                            return found, offset
                        found.append(record)
                    at = offset + 1
                    if at >= head:
                        return found, None
            return found, at
        finally:
            self._again.unassign()

    def commit(self, progress: Mapping[int, Progress]) -> None:
        """Commits where the partitions are. Errors: Unavailable, TimedOut; Fenced when they are another's by now."""
        if progress:
            with kafka_errors():
                self._reader.commit(offsets=_offsets(progress), asynchronous=False)

    def _assigned(self, reader: Consumer, partitions: list[TopicPartition]) -> None:
        found = self._found(reader, partitions)
        self._held.clear()
        logger.info("partitions assigned", extra={"partitions": sorted(found)})
        self._on_assigned(found)
        begin_assigned(reader, [TopicPartition(TRACKER_CALLS.name, p, progress.head) for p, progress in found.items()])

    def _found(self, reader: Consumer, partitions: list[TopicPartition]) -> dict[int, Progress]:
        """Where partitions are. Waits for a broker that does not answer: if this failed, the client would read on from
        the committed offsets by itself, and what it gives would be of no partition that anybody has begun.

        Errors: RuntimeError: it did not answer for `_ASSIGN_S`; the worker has to begin anew.
        """
        until_s = time.monotonic() + _ASSIGN_S
        while True:
            try:
                with kafka_errors():
                    return {p.partition: _progress(reader, p) for p in reader.committed(partitions, timeout=_CALL_S)}
            except (Unavailable, TimedOut) as e:
                logger.warning("kafka does not answer", extra={"error": str(e)})
                if time.monotonic() > until_s:
                    raise RuntimeError(f"progress of assigned partitions is not known after {_ASSIGN_S} s") from e
                time.sleep(_RETRY_S)

    def _revoked(self, _reader: Consumer, partitions: list[TopicPartition]) -> None:
        logger.info("partitions revoked", extra={"partitions": len(partitions)})
        self.commit(self._on_revoked([p.partition for p in partitions], False))

    def _partitions_lost(self, _reader: Consumer, partitions: list[TopicPartition]) -> None:
        logger.warning("partitions lost", extra={"partitions": len(partitions)})
        self._on_revoked([p.partition for p in partitions], True)


def _progress(reader: Consumer, place: TopicPartition) -> Progress:
    """What was committed of a partition. Errors: KafkaException."""
    first, end = reader.get_watermark_offsets(place, timeout=_CALL_S)
    progress = Progress.read(place.offset, place.metadata)
    known = progress.offset >= 0 and progress.head <= end  # else never committed, or of a topic made anew
    return progress if known else Progress(first)


def _offsets(progress: Mapping[int, Progress]) -> list[TopicPartition]:
    return [
        TopicPartition(TRACKER_CALLS.name, partition, found.offset, metadata=found.metadata)
        for partition, found in progress.items()
    ]
