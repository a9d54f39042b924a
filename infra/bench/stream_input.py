"""Millions of ad events for the stream benchmarks: as AdEvents in ad-events-v1, as JSON, and as the Yahoo benchmark's.

The same events in all topics, in the same order: of each ad those of a mix, and every hundredth event once more.
`YAHOO_MIX` has the Yahoo benchmark's three kinds, a third each: an impression, a viewable 200 ads later and a click
1,000 ads later. `PLAYED_MIX`, for ad-events-v1 alone, has what a player sends of a spot of 15 s that is seen to its
end, each when it happens, and a click of every hundredth.
100 campaigns of 10 creatives, 4 placements (each of one device type), 2 countries: 8,000 combinations of dimensions.
Two users share a household: an address behind which all users are would make all of them invalid traffic.
As JSON an event has the fields of AdEvent that are not null, its id as the usual 36 characters.
The Yahoo fields: user_id, page_id, ad_id, ad_type, event_type, event_time, ip_address.
Source: Chintapalli et al., "Benchmarking Streaming Computation Engines: Storm, Flink and Spark Streaming", 2016.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, Message

from connectors import kafka
from connectors.records import encoder
from connectors.registry import SchemaRegistry
from schemas.ids import encode_id
from schemas.topics import AD_EVENTS

JSON_TOPIC = "bench-ad-events-json"
YAHOO_TOPIC = "bench-yahoo"
_CAMPAIGNS, _CREATIVES, _PLACEMENTS = 100, 10, 4
_COUNTRIES = ("DE", "FR")
_COMBINATIONS = _CAMPAIGNS * _CREATIVES * _PLACEMENTS * len(_COUNTRIES)
_DEVICES = ("ctv", "phone", "tablet", "desktop")
FIRST_MS = 1_790_000_000_000
_ADS_PER_S = 3_000
_CLICKED_EVERY = 100
_REPEATED_EVERY = 100
_USERS_OF_A_HOUSEHOLD = 2

# Texts of fixed length that are cut out of an encoded event to put others in their places.
_EVENT_ID = b"\x01" * 16
_RECORD_ID = "R" * 22
_USER = "v1:" + "U" * 22
_HOUSEHOLD = "v1:" + "H" * 22
_TIMES = (0x5A5A5A5A5A5, 0x5A5A5A5A5A6, 0x5A5A5A5A5A7)


@dataclass(frozen=True, slots=True)
class Mix:
    """What comes of each ad: types of events, how many ads later each is, and of every how many ads the last one."""

    lags: dict[str, int]
    last_every: int = 1

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(self.lags)


YAHOO_MIX = Mix({"impression": 0, "viewable": 200, "click": 1_000})
PLAYED_MIX = Mix(
    {
        "impression": 0,
        "start": _ADS_PER_S // 5,
        "viewable": 2 * _ADS_PER_S,
        "first_quartile": 15 * _ADS_PER_S // 4,
        "midpoint": 15 * _ADS_PER_S // 2,
        "third_quartile": 45 * _ADS_PER_S // 4,
        "complete": 15 * _ADS_PER_S,
        "click": 10 * _ADS_PER_S,
    },
    _CLICKED_EVERY,
)


@dataclass(frozen=True, slots=True)
class Form:
    """How an event is written: the whole of it, its id, and its three times."""

    encode: Callable[[dict[str, Any]], bytes]
    event_id: Callable[[bytes], bytes]
    times: Callable[[int, int, int], bytes]


#: (ids, ad, kind, time in ms) to a record.
Writer = Callable[["Ids", int, int, int], bytes]


@dataclass(frozen=True, slots=True)
class Amount:
    """How much input there is."""

    events: int
    users: int


#: Topics that `fill` can write.
TOPICS = (AD_EVENTS.name, JSON_TOPIC, YAHOO_TOPIC)


def fill(
    amount: Amount,
    progress: Callable[[int], None],
    *,
    topics: Collection[str] = TOPICS,
    skip: int = 0,
    mix: Mix = YAHOO_MIX,
) -> None:
    """Writes `amount` of events of a mix but the first `skip` to `topics` of the running services.

    `progress` is told how many, now and then.
    """
    made = {AD_EVENTS.name: avro, JSON_TOPIC: lambda: JSON}
    writers: dict[str, Writer] = {topic: Events(form(), mix).of for topic, form in made.items() if topic in topics}
    if YAHOO_TOPIC in topics:
        writers[YAHOO_TOPIC] = _yahoo
    dropped: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            dropped.append(str(error))

    producer = kafka.producer(
        "bench",
        {
            "queue.buffering.max.messages": 500_000,
            "linger.ms": 50,
            "compression.type": "lz4",
            "batch.num.messages": 10_000,
        },
    )
    for written, (ad, kind) in islice(enumerate(_order(mix, amount.events), start=1), skip, None):
        ids = ids_of(ad, kind, amount.users)
        time_ms = FIRST_MS + (ad + mix.lags[mix.types[kind]]) * 1000 // _ADS_PER_S
        for topic, write in writers.items():
            payload = write(ids, ad, kind, time_ms)
            while True:
                try:
                    producer.produce(topic, payload, ids.user, on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
        if written % 10_000 == 0:
            producer.poll(0)
            progress(written)
    producer.flush(120)
    if dropped:
        raise RuntimeError(f"{len(dropped)} records were not written: {dropped[0]}")


class Ids(NamedTuple):
    """What tells an event from others of its combination of dimensions."""

    event_id: bytes
    record_id: bytes
    user: bytes
    household: bytes


def ids_of(ad: int, kind: int, users: int) -> Ids:
    """The ids of an ad's event of the type number `kind`, the same whenever they are asked for."""
    user = int.from_bytes(hashlib.blake2b(b"u%d" % ad, digest_size=8).digest(), "big") % users
    return Ids(
        hashlib.blake2b(b"%d|%d" % (ad, kind), digest_size=16).digest(),
        encode_id(hashlib.blake2b(b"%d" % ad, digest_size=16).digest()).encode(),
        b"v1:%022d" % user,
        b"v1:9%021d" % (user // _USERS_OF_A_HOUSEHOLD),
    )


def _yahoo(ids: Ids, ad: int, kind: int, time_ms: int) -> bytes:
    campaign, creative, placement, _country = _combination(ad % _COMBINATIONS)
    return (
        b'{"user_id":"%s","page_id":"page-%04d-0000-0000-000000000000","ad_id":"ad-%03d-%02d","ad_type":"banner",'
        b'"event_type":"%s","event_time":%d,"ip_address":"192.0.2.%d"}'
        % (ids.user, placement, campaign, creative, YAHOO_MIX.types[kind].encode(), time_ms, ad % 250)
    )


class Events:
    """Encoded AdEvents, cheap enough that writing them is not what is measured."""

    def __init__(self, form: Form, mix: Mix = YAHOO_MIX) -> None:
        self._form = form
        self._pieces = _pieces(form, mix)

    def of(self, ids: Ids, ad: int, kind: int, time_ms: int) -> bytes:
        """The record of an event of the mix's type number `kind`, received 40 ms and published 90 ms after it was."""
        a, b, c, d, e, f = self._pieces[kind][ad % _COMBINATIONS]
        times = self._form.times(time_ms, time_ms + 40, time_ms + 90)
        event_id = self._form.event_id(ids.event_id)
        return b"".join((a, event_id, b, ids.record_id, c, times, d, ids.user, e, ids.household, f))


def avro() -> Form:
    """The contract, by the schema in the registry."""
    return Form(encoder(AD_EVENTS, SchemaRegistry()), bytes, lambda *times_ms: b"".join(map(_long, times_ms)))


def _json_id(event_id: bytes) -> bytes:
    return str(uuid.UUID(bytes=event_id)).encode()


def _json(event: dict[str, Any]) -> bytes:
    return json.dumps({**event, "event_id": _json_id(event["event_id"]).decode()}, separators=(",", ":")).encode()


JSON = Form(_json, _json_id, lambda *times_ms: b'%d,"received_time_ms":%d,"published_time_ms":%d' % times_ms)


def _order(mix: Mix, events: int) -> Iterator[tuple[int, int]]:
    """(ad, kind) in the order in which they are written, each hundredth again at once."""
    written, ad = 0, 0
    lags = list(enumerate(mix.lags.values()))
    while True:
        for kind, lag in lags if ad % mix.last_every == 0 else lags[:-1]:
            if ad < lag:
                continue
            for _ in range(2 if written % _REPEATED_EVERY == 0 else 1):
                yield ad - lag, kind
                written += 1
                if written == events:
                    return
        ad += 1


def _combination(number: int) -> tuple[int, int, int, int]:
    campaign, rest = number % _CAMPAIGNS, number // _CAMPAIGNS
    creative, rest = rest % _CREATIVES, rest // _CREATIVES
    return campaign, creative, rest % _PLACEMENTS, rest // _PLACEMENTS


def _pieces(form: Form, mix: Mix) -> list[list[tuple[bytes, ...]]]:
    """By kind and combination of dimensions: what stands before, between and after the parts that change."""
    return [[_cut(form, name, number) for number in range(_COMBINATIONS)] for name in mix.types]


def _cut(form: Form, kind: str, number: int) -> tuple[bytes, ...]:
    whole = form.encode(example(kind, number))
    parts = []
    markers = (form.event_id(_EVENT_ID), _RECORD_ID.encode(), form.times(*_TIMES), _USER.encode(), _HOUSEHOLD.encode())
    for marker in markers:
        before, whole = whole.split(marker, 1)
        parts.append(before)
    return (*parts, whole)


def example(kind: str, number: int = 0) -> dict[str, Any]:
    """An AdEvent of a kind with a combination of dimensions, its ids and times still to be filled in."""
    campaign, creative, placement, country = _combination(number)
    return {
        "event_id": _EVENT_ID,
        "record_id": _RECORD_ID,
        "event_type": kind,
        "event_time_ms": _TIMES[0],
        "received_time_ms": _TIMES[1],
        "published_time_ms": _TIMES[2],
        "request_id": "8f14e45f-ceea-467f-a8f1-4e45fceea467",
        "imp_id": "1",
        "user_pseudonym": _USER,
        "household_pseudonym": _HOUSEHOLD,
        "advertiser_id": f"adv-{campaign % 20:02d}",
        "campaign_id": f"camp-{campaign:03d}",
        "line_item_id": f"line-{campaign:03d}",
        "creative_id": f"ad-{campaign:03d}-{creative:02d}",
        "placement_id": f"placement-{placement}",
        "publisher_id": "pub-1",
        "site_id": "site-1",
        "content_category": "IAB1",
        "pricing": "cpm",
        "cost_micros": 2_500 if kind == "impression" else 0,
        "creative_format": "video",
        "creative_length_s": 15,
        "device_type": _DEVICES[placement],
        "platform": "tvos",
        "country": _COUNTRIES[country],
        "region": "DE-BE",
        "session_context": "5f2c9a",
        "experiments": {"ranker": "b"},
        "experiment_cell": "ranker:b",
        "consent": {"us_privacy": "1YNN"},
        "model_version": "7",
    }


def _long(value: int) -> bytes:
    """Avro's zig-zag variable-length integer of a value that is not negative."""
    rest = value << 1
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)
