"""Counts read straight from Kafka's topics, committed records only: what each topic truly holds.

A tally remembers where it stopped: `read_to_end` may be called again and again, and reads only what is new.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cache
from types import TracebackType
from typing import Any

import fastavro
from confluent_kafka import KafkaError, TopicPartition

from connectors.endpoints import Endpoints
from connectors.kafka import beginning_offsets, consumer, kafka_errors, value_of
from connectors.registry import SchemaRegistry
from schemas import codec
from schemas.errors import TimedOut
from schemas.topics import (
    AD_CONVERSIONS_DLQ,
    AD_EVENTS,
    AD_EVENTS_DLQ,
    AD_EVENTS_LATE,
    AD_SESSIONS,
    AD_TELEMETRY_DLQ,
)

Offsets = dict[str, dict[int, int]]
Measures = dict[str, int]

DEAD_LETTER_TOPICS = (AD_TELEMETRY_DLQ, AD_CONVERSIONS_DLQ, AD_EVENTS_DLQ)
TOPICS = tuple(t.name for t in (AD_EVENTS, AD_EVENTS_LATE, AD_SESSIONS, *DEAD_LETTER_TOPICS))

_BATCH = 2_000
_POLL_S = 0.5
_QUIET_POLLS = 60


_CREDITED_VIEW = "post_view_conversion"


class KafkaTally:
    """Tallies of ad-events, late copies, sessions and dead letters from given offsets on. Close it after use.

    `known` are the ids of events before those offsets: an event that repeats one of them is a duplicate.

    Errors: Unavailable without a broker, TimedOut when a partition's end can't be reached.
    """

    def __init__(self, ends: Endpoints, since: Offsets | None = None, known: frozenset[bytes] = frozenset()) -> None:
        self._registry = SchemaRegistry(ends.registry_url)
        self._schema = cache(self._writer_schema)
        self._consumer = consumer("reconcile", "reconcile", settings={"enable.partition.eof": True})
        self._next: Offsets = {t: dict((since or {}).get(t) or beginning_offsets(t)) for t in TOPICS}
        self._known = known
        self._seen: set[bytes] = set()
        #: Rows of ad-events that somebody sent, and those of them that repeat an event.
        self.events = 0
        self.duplicates = 0
        self.by_type: Counter[str] = Counter()
        self.by_campaign: dict[str, Measures] = defaultdict(lambda: defaultdict(int))
        self._sessions: dict[str, dict[str, Any]] = {}
        self.late = 0
        self.expired = 0
        self.ahead = 0
        self.dead_letters: Counter[str] = Counter()
        self.dead_letter_origins: dict[str, str] = {}
        self._on_record: dict[str, Callable[[dict[str, Any]], None]] = {
            AD_EVENTS.name: self._event,
            AD_EVENTS_LATE.name: self._late,
            AD_SESSIONS.name: self._session,
            **{t.name: self._dead_letter for t in DEAD_LETTER_TOPICS},
        }

    def __enter__(self) -> KafkaTally:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _at: TracebackType | None) -> None:
        self._consumer.close()
        self._registry.close()

    @property
    def distinct_events(self) -> int:
        return len(self._seen)

    @property
    def event_ids(self) -> frozenset[bytes]:
        """Ids of all events read, and of those known before."""
        return self._known | self._seen

    @property
    def offsets(self) -> Offsets:
        """Where the next read begins."""
        return {topic: dict(partitions) for topic, partitions in self._next.items()}

    def read_to_end(self, topics: Iterable[str] = TOPICS) -> None:
        """Reads the named topics up to their present end. Blocks."""
        for topic in topics:
            self._read(topic, self._next[topic])

    def _read(self, topic: str, positions: dict[int, int]) -> None:
        with kafka_errors():
            self._consumer.assign([TopicPartition(topic, p, offset) for p, offset in positions.items()])
        unfinished, quiet = set(positions), 0
        while unfinished:
            with kafka_errors():
                messages = self._consumer.consume(_BATCH, _POLL_S)
            quiet = 0 if messages else quiet + 1
            if quiet > _QUIET_POLLS:
                raise TimedOut(f"{topic}: no end of partitions {sorted(unfinished)}")
            for message in messages:
                error, partition, offset = message.error(), message.partition(), message.offset()
                assert partition is not None and offset is not None  # a consumed message has both
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(partition)
                    positions[partition] = max(positions[partition], offset)
                    continue
                record = value_of(message)
                if record is None:
                    continue
                positions[partition] = offset + 1
                schema_id, payload = codec.split_header(message.value() or b"")
                self._on_record[topic](codec.decode(payload, self._schema(schema_id)))

    def _writer_schema(self, schema_id: int) -> Any:
        return fastavro.parse_schema(self._registry.schema(schema_id))

    def _event(self, event: dict[str, Any]) -> None:
        # credited views are the publisher's own: one for each revision of a credit, all with the conversion's id
        was_sent = event["event_type"] != _CREDITED_VIEW
        self.events += was_sent
        if event["event_id"] in self._seen or event["event_id"] in self._known:
            self.duplicates += was_sent
            return
        self._seen.add(event["event_id"])
        self.by_type[event["event_type"]] += 1
        self.expired += "token_expired" in event["quality_reasons"]
        self.ahead += "clock_ahead" in event["quality_reasons"]
        measures = self.by_campaign[event["campaign_id"]]
        measures["spend_micros"] += event["cost_micros"]
        if (measure := _MEASURE_OF.get(event["event_type"])) is not None:
            measures[measure] += 1

    def _late(self, _event: dict[str, Any]) -> None:
        self.late += 1

    def _session(self, session: dict[str, Any]) -> None:
        before = self._sessions.get(session["record_id"])
        if before is None or before["revision"] < session["revision"]:
            self._sessions[session["record_id"]] = session

    @property
    def sessions_by_campaign(self) -> dict[str, Measures]:
        """What the last revision of each ad's session says."""
        sums: dict[str, Measures] = defaultdict(lambda: defaultdict(int))
        for session in self._sessions.values():
            measures = sums[session["campaign_id"]]
            measures["impressions"] += session["impressions"]
            measures["clicks"] += session["clicks"]
            measures["spend_micros"] += session["cost_micros"]
            measures["sessions_completed"] += session["state"] == "completed"
        return sums

    def _dead_letter(self, letter: dict[str, Any]) -> None:
        self.dead_letters[letter["reason"]] += 1
        if letter["origin"]:
            self.dead_letter_origins[letter["origin"]] = letter["reason"]


_MEASURE_OF = {"impression": "impressions", "click": "clicks", "complete": "completes"}
