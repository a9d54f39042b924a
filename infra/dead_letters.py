"""Dead letters: read with their source records, and replayed exactly once after a fix.

A replay puts the record as it was read, with its key, on the topic that it came from. What has been replayed is known
to Kafka: consumer group `dlq-replay.<reason>` stands behind the last letter of that reason that a replay has passed,
and its offsets are committed in the transaction that holds the records. A replay that is killed in the middle leaves
nothing behind, and no letter is ever replayed twice, whatever reasons each replay was for.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from connectors import kafka
from connectors.records import RecordDecoder
from connectors.registry import SchemaRegistry
from schemas.errors import Reject, Unavailable
from schemas.topics import BY_NAME, TOPICS, Topic

log = logging.getLogger(__name__)

#: Source topics that have dead letters.
SOURCES: tuple[Topic, ...] = tuple(topic for topic in TOPICS if topic.dead_letter is not None)
#: Header of a replayed record: `<dead-letter topic>/<partition>/<offset>`.
REPLAYED_FROM = "headwater-replayed-from"

#: Why a letter can't be replayed.
NEVER_IN_A_TOPIC = "refused at the door, in no topic: send the line that `origin` names again"
NOT_KEPT = "the source topic no longer keeps the record"

_LETTERS_PER_TRANSACTION = 500
_COMMIT_S = 30.0


def replay_group(reason: str) -> str:
    """Consumer group whose offsets say which letters of a reason have been replayed."""
    return f"dlq-replay.{reason}"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, where it lies (`topic`, `partition`, `offset`) and what it says (dead_letter.avsc)."""

    topic: str
    partition: int
    offset: int
    record: dict[str, Any]

    @property
    def source(self) -> Topic:
        return BY_NAME[self.record["source_topic"]]

    @property
    def reason(self) -> str:
        return str(self.record["reason"])

    @property
    def refused_ms(self) -> int:
        return int(self.record["refused_time_ms"])

    @property
    def of(self) -> tuple[int, int] | None:
        """(partition, offset) of the refused record in its topic; None when it never was in one."""
        place = (self.record["partition"], self.record["offset"])
        return None if min(place) < 0 else place


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which letters: of a reason, refused since a time (epoch ms), at an offset of the dead-letter topic."""

    reason: str | None = None
    since_ms: int | None = None
    offset: int | None = None

    def __call__(self, letter: Letter) -> bool:
        return (
            self.reason in (None, letter.reason)
            and (self.since_ms is None or letter.refused_ms >= self.since_ms)
            and self.offset in (None, letter.offset)
        )


def letters_kept(sources: Iterable[Topic]) -> int:
    """About how many letters there are: commit markers of transactions count too."""
    return sum(
        sum(kafka.end_offsets(dlq).values()) - sum(kafka.beginning_offsets(dlq).values())
        for dlq in (str(source.dead_letter) for source in sources)
    )


def read_letters(source: Topic, registry: SchemaRegistry) -> Iterator[Letter]:
    """All dead letters of a source topic, oldest first. A value that is no dead letter is logged and left out.

    Errors: ConnectorError.
    """
    assert source.dead_letter is not None
    decode = RecordDecoder(BY_NAME[source.dead_letter], registry)
    for message in kafka.read_topic(source.dead_letter):
        _schema_id, record = decode(message.value())
        partition, offset = int(message.partition() or 0), int(message.offset() or 0)
        if isinstance(record, Reject):
            log.warning("no dead letter", extra={"topic": source.dead_letter, "offset": offset, "why": record.detail})
            continue
        yield Letter(source.dead_letter, partition, offset, record)


class SourceRecords:
    """The refused records themselves: from their letters, or from the source topic while it keeps them.

    Close it after use. Errors of `find`: ConnectorError.
    """

    def __init__(self) -> None:
        self._consumer: Consumer = kafka.consumer("dlq", "dlq", settings={"enable.partition.eof": True})

    def __enter__(self) -> SourceRecords:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._consumer.close()

    def find(self, letter: Letter) -> tuple[bytes | None, bytes] | str:
        """(key, value) of the refused record, or why it is nowhere."""
        if letter.record["raw"]:
            return letter.record["key"], letter.record["raw"]
        if letter.of is None:
            return NEVER_IN_A_TOPIC
        message = self._at(letter.source.name, *letter.of)
        if message is None or message.value() is None:
            return NOT_KEPT
        return message.key(), message.value() or b""

    def _at(self, topic: str, partition: int, offset: int) -> Message | None:
        """The record at a place; None when the topic does not keep it any more."""
        with kafka.kafka_errors():
            self._consumer.assign([TopicPartition(topic, partition, offset)])
            found = self._consumer.consume(1, kafka.REQUEST_TIMEOUT_S)
        if not found:
            raise Unavailable(f"{topic}/{partition}/{offset} is not answered")
        message = kafka.value_of(found[0])
        return message if message is not None and message.offset() == offset else None


def decoded(letter: Letter, value: bytes, registry: SchemaRegistry) -> dict[str, Any] | None:
    """The refused record's fields, if it decodes today. Errors: Unavailable, TimedOut."""
    _schema_id, record = RecordDecoder(letter.source, registry)(value)
    return None if isinstance(record, Reject) else record


@dataclass(slots=True)
class Replayed:
    """What a replay did: letters replayed by reason, and left by (reason, why)."""

    replayed: Counter[str] = field(default_factory=Counter)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)


class _Progress:
    """How far each reason's group is in one dead-letter topic; asked for when the reason is first met."""

    def __init__(self, dlq: str) -> None:
        self._dlq = dlq
        self._done: dict[str, dict[int, int]] = {}

    def is_passed(self, letter: Letter) -> bool:
        """Whether an earlier replay has had this letter."""
        if letter.reason not in self._done:
            self._done[letter.reason] = kafka.committed_offsets(replay_group(letter.reason), self._dlq)
        return letter.offset < self._done[letter.reason].get(letter.partition, 0)


def waiting(source: Topic) -> Callable[[Letter], bool]:
    """Tells letters that no replay has had yet. Errors of the call: ConnectorError."""
    progress = _Progress(str(source.dead_letter))
    return lambda letter: not progress.is_passed(letter)


def replay(
    source: Topic,
    registry: SchemaRegistry,
    reason: str | None = None,
    *,
    dry_run: bool = False,
    on_letter: Callable[[], None] = lambda: None,
) -> Replayed:
    """Replays the letters of a source topic, all or those of one reason, that no replay has had; says what it did.

    A record whose letter was written twice (the lake writes letters at least once) is replayed once. A letter that
    can't be replayed is passed: nothing would ever change that. Letters written meanwhile wait for the next replay.
    Another replay of the same topic is fenced off. Errors: ConnectorError; what is not committed by then is not done.
    """
    assert source.dead_letter is not None
    name = f"dlq-replay-{source.dead_letter}"
    producer = None if dry_run else kafka.transactional_producer(name, name)
    is_waiting = waiting(source)  # asked after the producer is there: an earlier replay can commit nothing any more
    done = Replayed()
    replayed_records: set[tuple[int, int]] = set()
    with SourceRecords() as records:
        batch = _Batch(source, producer)
        for letter in read_letters(source, registry):
            on_letter()
            if not is_waiting(letter):
                if letter.of is not None:
                    replayed_records.add(letter.of)
                continue
            if reason not in (None, letter.reason):
                continue
            batch.passed(letter)
            if letter.of is not None:
                if letter.of in replayed_records:
                    continue
                replayed_records.add(letter.of)
            found = records.find(letter)
            if isinstance(found, str):
                done.left[letter.reason, found] += 1
                continue
            batch.add(letter, *found)
            done.replayed[letter.reason] += 1
        batch.commit()
    return done


class _Batch:
    """Records of one transaction, and how far each reason's group gets with it. Without a producer nothing is done."""

    def __init__(self, source: Topic, producer: Producer | None) -> None:
        self._source = source
        self._producer = producer
        self._records: list[tuple[bytes | None, bytes, str]] = []
        self._offsets: dict[str, dict[int, int]] = {}

    def passed(self, letter: Letter) -> None:
        """The letter is behind its reason's group when this batch is committed."""
        if len(self._records) >= _LETTERS_PER_TRANSACTION:
            self.commit()
        self._offsets.setdefault(letter.reason, {})[letter.partition] = letter.offset + 1

    def add(self, letter: Letter, key: bytes | None, value: bytes) -> None:
        self._records.append((key, value, f"{letter.topic}/{letter.partition}/{letter.offset}"))

    def commit(self) -> None:
        """One transaction: the records and the offsets. Errors: ConnectorError, and then none of it is done."""
        records, offsets = self._records, self._offsets
        self._records, self._offsets = [], {}
        if self._producer is None or not offsets:
            return
        try:
            self._producer.begin_transaction()
            for key, value, place in records:
                self._producer.produce(self._source.name, value, key, headers={REPLAYED_FROM: place.encode()})
                self._producer.poll(0)
            for reason, positions in offsets.items():
                self._send_offsets(self._producer, reason, positions)
            self._producer.commit_transaction(_COMMIT_S)
        except KafkaException as e:
            raise kafka.as_connector_error(e) from e

    def _send_offsets(self, producer: Producer, reason: str, positions: dict[int, int]) -> None:
        dlq = str(self._source.dead_letter)
        member = kafka.consumer("dlq-replay", replay_group(reason))
        try:
            offsets = [TopicPartition(dlq, partition, offset) for partition, offset in positions.items()]
            producer.send_offsets_to_transaction(offsets, member.consumer_group_metadata(), _COMMIT_S)
        finally:
            member.close()
