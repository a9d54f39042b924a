"""One batch of records: decode, open tokens, look ads up, apply the rules, encode.

Works on what Kafka gave and gives back what Kafka gets; the loop around it owns transactions and offsets. A batch
can be worked on again after a failure: everything it does outside is idempotent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from connectors.records import RecordDecoder
from connectors.tokens import TokenClaims, TokenOpener
from jobs.publisher.ad_records import AdRecords, KeyOfAd, KnownAd
from jobs.transforms.enrich import (
    Event,
    conversion_event,
    post_view_event,
    record_id_of_upstream,
    token_event,
    upstream_event,
)
from schemas.codec import Encoder
from schemas.dead_letters import dead_letter
from schemas.errors import ContractError, Reject, RejectReason, TokenError
from schemas.ids import decode_id, encode_id
from schemas.registry_record import AdRecord
from schemas.topics import AD_CONVERSIONS, AD_EVENTS, AD_TELEMETRY, ATTRIBUTIONS, BY_NAME
from schemas.two_step_encoder import TwoStepEncoder

JOB = "publisher"
SOURCES = (AD_TELEMETRY, AD_CONVERSIONS, ATTRIBUTIONS)


class Record(Protocol):
    """What is used of a Kafka message."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def key(self) -> Any: ...
    def value(self) -> Any: ...


@dataclass(slots=True)
class Output:
    """What a batch became. `messages` are (topic, key, value); the counts are for metrics, after the commit."""

    messages: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    rejects: Counter[tuple[str, str]] = field(default_factory=Counter)
    quality: Counter[str] = field(default_factory=Counter)
    lookups: Counter[str] = field(default_factory=Counter)
    oldest_received_ms: int | None = None


@dataclass(slots=True)
class _Item:
    """A record on its way through the batch. `ad_id` are the bytes of a record id, if the record names an ad."""

    message: Record
    topic: str
    schema_id: int | None
    data: dict[str, Any] | Reject
    ad_id: bytes | None = None
    claims: TokenClaims | None = None


class BatchPublisher:
    """Turns batches into outputs.

    Errors of a call: Unavailable or TimedOut when the Ads Metadata Registry or the schema registry does not answer;
    nothing is refused because of that.
    """

    def __init__(
        self,
        decoders: Mapping[str, RecordDecoder],
        opener: TokenOpener,
        ads: AdRecords,
        key_of_ad: KeyOfAd,
        encode_event: Encoder,
        encode_token_event: TwoStepEncoder,
        encode_dead_letter: Mapping[str, Encoder],
        upstream_record_ttl_s: int,
        job_version: str,
        now_ms: Callable[[], int],
    ) -> None:
        self._decoders = decoders
        self._opener = opener
        self._ads = ads
        self._key_of_ad = key_of_ad
        self._encode_event = encode_event
        self._encode_token_event = encode_token_event
        self._encode_dead_letter = encode_dead_letter
        self._upstream_record_ttl_s = upstream_record_ttl_s
        self._job_version = job_version
        self._now_ms = now_ms
        self._published_ms = 0

    def __call__(self, messages: Sequence[Record]) -> Output:
        items = [self._read(message) for message in messages]
        known = self._ads.find([item.ad_id for item in items if item.ad_id is not None])
        # Publish times drive watermarks: within a worker they never go back, whatever the machine's clock does.
        self._published_ms = max(self._published_ms, self._now_ms())
        output = Output()
        names: list[str] = []
        received_ms: list[int] = []
        upstream: dict[bytes, AdRecord] = {}
        for item in items:
            event: Event | Reject | None
            ad = known.get(item.ad_id) if item.ad_id is not None else None
            if isinstance(item.data, Reject):
                event = item.data
            elif item.claims is not None:
                event = self._token_event(output, item.data, item.claims, ad)
            else:
                event = self._whole_event(output, item, item.data, ad, upstream)
            if isinstance(event, Reject):
                self._refuse(output, item, event)
            elif event is not None:
                names.append(event["event_type"])
                received_ms.append(event["received_time_ms"])
                if event.get("quality_reasons"):
                    output.quality.update(event["quality_reasons"])
        output.events.update(names)
        output.lookups = self._ads.take_lookups()
        output.oldest_received_ms = min(received_ms, default=None)
        self._ads.write(upstream.values(), self._upstream_record_ttl_s)
        return output

    def _read(self, message: Record) -> _Item:
        topic = message.topic() or ""
        schema_id, data = self._decoders[topic](message.value())
        item = _Item(message, topic, schema_id, data)
        if isinstance(data, Reject):
            return item
        if topic == AD_CONVERSIONS.name:
            item.ad_id = _id_of(data["record_id"])
        elif topic == ATTRIBUTIONS.name:
            item.ad_id = _id_of(data["touch_record_id"])
        elif data["token"] is not None:
            try:
                item.claims = self._opener.open(data["token"])
                item.ad_id = item.claims.record_id
            except TokenError as e:
                item.data = Reject(e.reason, e.detail)
        elif data["upstream_id"] is not None:
            item.ad_id = record_id_of_upstream(data)
        else:
            item.data = Reject(RejectReason.MISSING_FIELD, "neither token nor upstream_id")
        return item

    def _token_event(
        self, output: Output, data: dict[str, Any], claims: TokenClaims, ad: KnownAd | None
    ) -> Event | Reject:
        """Adds the event of a token to the output; gives back its own part, or why there is none."""
        if ad is None:
            return Reject(RejectReason.REGISTRY_MISS, f"record {encode_id(claims.record_id)}")
        event = token_event(data, claims, ad, self._published_ms)
        if isinstance(event, Reject):
            return event
        try:
            value = self._encode_token_event(ad.encoded, event)
        except ContractError as e:
            return Reject(RejectReason.BAD_VALUE, str(e))
        output.messages.append((AD_EVENTS.name, ad.key, value))
        return event

    def _whole_event(
        self,
        output: Output,
        item: _Item,
        data: dict[str, Any],
        ad: KnownAd | None,
        upstream: dict[bytes, AdRecord],
    ) -> Event | Reject | None:
        """Adds the event of any other record to the output; None for a record that is no event."""
        event = self._event(item, data, ad.record if ad is not None else None, upstream)
        if event is None or isinstance(event, Reject):
            return event
        try:
            value = self._encode_event(event)
        except ContractError as e:
            return Reject(RejectReason.BAD_VALUE, str(e))
        key = ad.key if ad is not None else self._key_of_ad(event["user_pseudonym"], event["record_id"])
        output.messages.append((AD_EVENTS.name, key, value))
        return event

    def _event(
        self, item: _Item, data: dict[str, Any], record: AdRecord | None, upstream: dict[bytes, AdRecord]
    ) -> Event | Reject | None:
        if item.topic == AD_CONVERSIONS.name:
            return conversion_event(data, record, self._published_ms)
        if item.topic == ATTRIBUTIONS.name:
            return post_view_event(data, record, self._published_ms)
        assert item.ad_id is not None
        found = upstream_event(data, upstream.get(item.ad_id) or record, self._published_ms)
        if isinstance(found, Reject):
            return found
        event, own_record = found
        if event["event_type"] == "impression":
            upstream[item.ad_id] = own_record
        return event

    def _refuse(self, output: Output, item: _Item, reject: Reject) -> None:
        message, topic = item.message, BY_NAME[item.topic]
        assert topic.dead_letter is not None
        letter = dead_letter(
            reject,
            topic.name,
            JOB,
            self._job_version,
            self._published_ms,
            partition=message.partition() or 0,
            offset=message.offset() or 0,
            schema_id=item.schema_id,
            origin=item.data.get("origin") if isinstance(item.data, dict) else None,
            key=message.key(),
            raw=message.value() or b"",
        )
        encoded = self._encode_dead_letter[topic.name](letter)
        output.messages.append((topic.dead_letter, message.key() or b"", encoded))
        output.rejects[topic.name, str(reject.reason)] += 1


def _id_of(record_id: str | None) -> bytes | None:
    """The bytes of a record id that a sender named; None for a text that is none, which no ad can have."""
    try:
        return decode_id(record_id) if record_id else None
    except ValueError:
        return None
