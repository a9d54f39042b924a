"""What a stream test puts into ad-events-v1 as the publisher does, and what it finds in the jobs' topics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from confluent_kafka import Producer, TopicPartition

from connectors import kafka
from connectors.records import RecordDecoder, encoder
from connectors.registry import SchemaRegistry
from jobs.transforms.event_rules import Event
from schemas.topics import AD_DECISIONS, AD_EVENTS, Topic

TRANSACTION_EVENTS = 40


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def complete(event: Event) -> dict[str, Any]:
    """An event with every column of the contract, defaults filled in, as a reader decodes it."""
    return {**DEFAULTS, **event}


def _defaults() -> dict[str, Any]:
    from schemas.codec import schema_text

    fields = json.loads(schema_text("ad_event"))["fields"]
    return {field["name"]: field["default"] for field in fields if "default" in field}


DEFAULTS = _defaults()


class EventWriter:
    """Writes events in committed transactions, stamped with the time at which they are published.

    With `decisions` a paid impression's decision is written beside it, once per ad.
    """

    def __init__(self, registry: SchemaRegistry, transactional_id: str, *, decisions: bool = False) -> None:
        self._encode_decision = encoder(AD_DECISIONS, registry) if decisions else None
        self._transactional_id = transactional_id
        self._producer: Producer = kafka.transactional_producer("test", transactional_id)
        self.encode = encoder(AD_EVENTS, registry)
        self.written: list[dict[str, Any]] = []

    def write(self, events: Iterable[Event], *, per_second: float, then: Callable[[int], None] | None = None) -> None:
        """Writes events at a steady pace and calls `then` with the number ever written after each transaction."""
        batch: list[dict[str, Any]] = []
        started, written_before = time.monotonic(), len(self.written)
        for event in events:
            batch.append(complete(event))
            if len(batch) == TRANSACTION_EVENTS:
                self._commit(batch)
                batch = []
                ahead_s = (len(self.written) - written_before) / per_second - (time.monotonic() - started)
                time.sleep(max(ahead_s, 0.0))
                if then is not None:
                    then(len(self.written))
        self._commit(batch)

    def write_raw(self, value: bytes, key: bytes = b"raw") -> None:
        """Writes one value as it is, in a transaction of its own."""
        self._producer.begin_transaction()
        self._producer.produce(AD_EVENTS.name, value, key)
        self._producer.commit_transaction(30)

    def _commit(self, batch: Sequence[dict[str, Any]]) -> None:
        self._begin(batch, self._stamp(batch))
        self._producer.commit_transaction(30)
        self.written.extend(batch)

    @staticmethod
    def _stamp(batch: Sequence[dict[str, Any]]) -> int:
        """Moves the events' times so that they are published now; epoch ms."""
        published_ms = now_ms()
        for event in batch:
            shift_ms = published_ms - event["published_time_ms"]
            for name in ("event_time_ms", "received_time_ms", "published_time_ms"):
                event[name] += shift_ms
        return published_ms

    def _begin(self, batch: Sequence[dict[str, Any]], published_ms: int) -> None:
        """Begins a transaction with the batch in it."""
        self._producer.begin_transaction()
        for event in batch:
            self._producer.produce(AD_EVENTS.name, self.encode(event), event["user_pseudonym"] or event["record_id"])
        if self._encode_decision is not None:
            before = {event["record_id"] for event in self.written}
            shown = {e["record_id"]: e for e in batch if e["event_type"] == "impression" and e["cost_micros"] > 0}
            for record_id, event in shown.items():
                if record_id not in before:
                    value = self._encode_decision(decision_of(event, published_ms - 500))
                    self._producer.produce(AD_DECISIONS.name, value, record_id)


def decision_of(event: Event, decided_ms: int) -> dict[str, Any]:
    """The AdDecision that led to an impression."""
    names = ("request_id", "imp_id", "record_id", "user_pseudonym", "placement_id", "publisher_id")
    return {
        **{name: event[name] for name in names},
        "decision_time_ms": decided_ms,
        "winner_campaign_id": event["campaign_id"],
        "winner_creative_id": event["creative_id"],
        "price_cpm_micros": event["cost_micros"] * 1000,
        "features": {},
    }


def read_all(topic: Topic) -> Iterator[bytes]:
    """Values of all committed records of a topic, up to its end now."""
    ends = {p: end for p, end in kafka.end_offsets(topic.name).items() if end > 0}
    consumer = kafka.consumer("test-reader", "test-reader")
    try:
        consumer.assign([TopicPartition(topic.name, partition, 0) for partition in ends])
        while ends:
            message = kafka.value_of(consumer.poll(0.2))
            if message is not None:
                value = message.value()
                assert value is not None, f"a tombstone in {topic.name}"
                yield value
            positions = {tp.partition: tp.offset for tp in consumer.position(consumer.assignment())}
            ends = {p: end for p, end in ends.items() if positions.get(p, -1) < end}
    finally:
        consumer.close()


def read_avro(topic: Topic, registry: SchemaRegistry) -> list[dict[str, Any]]:
    """All committed records of an Avro topic, decoded. A record that does not decode fails the test."""
    decoder = RecordDecoder(topic, registry)
    rows = []
    for value in read_all(topic):
        _schema_id, row = decoder(value)
        assert isinstance(row, dict), row
        rows.append(row)
    return rows


def read_json(topic: Topic) -> list[dict[str, Any]]:
    """All committed records of a JSON topic."""
    return [json.loads(value) for value in read_all(topic)]
