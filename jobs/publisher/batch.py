"""One batch of records: decode, open tokens, look ads up, apply the rules, encode.

Works on what Kafka gave and gives back what Kafka gets; the worker around it owns transactions and offsets. A batch
can be worked on again after a failure: everything it does outside is idempotent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from connectors.records import RecordDecoder
from connectors.tokens import TokenClaims, TokenOpener
from jobs.publisher.ad_records import AdRecords, KnownAd
from jobs.transforms.enrich import (
    Event,
    conversion_event,
    record_id_of_upstream,
    token_event,
    upstream_event,
)
from schemas.codec import Encoder
from schemas.dead_letters import dead_letter
from schemas.errors import ContractError, Reject, RejectReason, TokenError
from schemas.ids import encode_id
from schemas.registry_record import AdRecord
from schemas.topics import AD_CONVERSIONS, AD_EVENTS, AD_TELEMETRY, BY_NAME
from schemas.two_step_encoder import TwoStepEncoder

JOB = "publisher"


class Record(Protocol):
    """What is used of a Kafka message."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...


@dataclass(slots=True)
class Output:
    """What a batch became. `messages` are (topic, key, value); the counts are for metrics, after the commit."""

    messages: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    rejects: Counter[tuple[str, str]] = field(default_factory=Counter)
    quality: Counter[str] = field(default_factory=Counter)
    oldest_received_ms: int | None = None


@dataclass(slots=True)
class _Item:
    """A record on its way through the batch."""

    message: Record
    schema_id: int | None
    data: dict[str, Any] | Reject
    record_id: str | None = None
    claims: TokenClaims | None = None


class BatchPublisher:
    """Turns batches into outputs.

    Errors of a call: Unavailable or TimedOut when the Ads Metadata Registry or the schema registry does not answer;
    nothing is refused because of that.
    """

    def __init__(
        self,
        decoders: dict[str, RecordDecoder],
        opener: TokenOpener,
        ads: AdRecords,
        encode_event: Encoder,
        encode_token_event: TwoStepEncoder,
        encode_dead_letter: dict[str, Encoder],
        upstream_record_ttl_s: int,
        job_version: str,
        now_ms: Callable[[], int],
    ) -> None:
        self._decoders = decoders
        self._opener = opener
        self._ads = ads
        self._encode_event = encode_event
        self._encode_token_event = encode_token_event
        self._encode_dead_letter = encode_dead_letter
        self._upstream_record_ttl_s = upstream_record_ttl_s
        self._job_version = job_version
        self._now_ms = now_ms
        self._published_ms = 0

    def __call__(self, messages: Sequence[Record]) -> Output:
        items = [self._read(message) for message in messages]
        known = self._ads.find(item.record_id for item in items if item.record_id is not None)
        # Publish times drive watermarks: within a worker they never go back, whatever the machine's clock does.
        self._published_ms = max(self._published_ms, self._now_ms())
        output = Output()
        upstream: dict[str, AdRecord] = {}
        for item in items:
            event = item.data if isinstance(item.data, Reject) else self._event(item, item.data, known, upstream)
            self._add(output, item, event, known)
        self._ads.write(upstream.values(), self._upstream_record_ttl_s)
        return output

    def _read(self, message: Record) -> _Item:
        schema_id, data = self._decoders[message.topic()](message.value())
        item = _Item(message, schema_id, data)
        if isinstance(data, Reject):
            return item
        if message.topic() == AD_CONVERSIONS.name:
            item.record_id = data["record_id"]
        elif data["token"] is not None:
            try:
                item.claims = self._opener.open(data["token"])
                item.record_id = encode_id(item.claims.record_id)
            except TokenError as e:
                item.data = Reject(e.reason, e.detail)
        elif data["upstream_id"] is not None:
            item.record_id = encode_id(record_id_of_upstream(data))
        else:
            item.data = Reject(RejectReason.MISSING_FIELD, "neither token nor upstream_id")
        return item

    def _event(
        self,
        item: _Item,
        data: dict[str, Any],
        known: dict[str, KnownAd],
        upstream: dict[str, AdRecord],
    ) -> Event | Reject:
        ad = known.get(item.record_id) if item.record_id is not None else None
        if item.message.topic() == AD_CONVERSIONS.name:
            return conversion_event(data, ad.record if ad else None, self._published_ms)
        if item.claims is not None:
            if ad is None:
                return Reject(RejectReason.REGISTRY_MISS, f"record {item.record_id}")
            return token_event(data, item.claims, ad.record, ad.repeated, self._published_ms)
        assert item.record_id is not None
        before = upstream.get(item.record_id) or (ad.record if ad else None)
        found = upstream_event(data, before, self._published_ms)
        if isinstance(found, Reject):
            return found
        event, record = found
        if event["event_type"] == "impression":
            upstream[item.record_id] = record
        return event

    def _add(self, output: Output, item: _Item, event: Event | Reject, known: dict[str, KnownAd]) -> None:
        if not isinstance(event, Reject):
            try:
                if item.claims is not None:  # its ad is known, and encoded
                    value = self._encode_token_event(known[event["record_id"]].encoded, event)
                else:
                    value = self._encode_event(event)
            except ContractError as e:
                event = Reject(RejectReason.BAD_VALUE, str(e))
            else:
                key = event["user_pseudonym"] or event["record_id"]
                output.messages.append((AD_EVENTS.name, key.encode(), value))
                output.events[event["event_type"]] += 1
                output.quality.update(event["quality_reasons"])
                received_ms = event["received_time_ms"]
                if output.oldest_received_ms is None or received_ms < output.oldest_received_ms:
                    output.oldest_received_ms = received_ms
                return
        message = item.message
        topic = BY_NAME[message.topic()]
        assert topic.dead_letter is not None
        letter = dead_letter(
            event,
            topic.name,
            JOB,
            self._job_version,
            self._published_ms,
            partition=message.partition(),
            offset=message.offset(),
            schema_id=item.schema_id,
            origin=item.data.get("origin") if isinstance(item.data, dict) else None,
            key=message.key(),
            raw=message.value() or b"",
        )
        encoded = self._encode_dead_letter[topic.name](letter)
        output.messages.append((topic.dead_letter, message.key() or b"", encoded))
        output.rejects[topic.name, str(event.reason)] += 1


SOURCES = (AD_TELEMETRY, AD_CONVERSIONS)
