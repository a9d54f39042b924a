"""Events to calls: each event of an ad with trackers becomes one record per tracker in tracker-calls-v1.

Works on what Kafka gave and gives back what Kafka gets; the transactional loop around it commits both together. A
batch can be worked on again: an event is claimed in Valkey for the record that brought it, so the same record finds
its own claim, and another record with the same event (a beacon sent twice) finds another's.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from connectors.records import RecordDecoder
from connectors.valkey import Valkey
from connectors.valkey_wire import Command
from jobs.transforms.event_rules import reject_reason
from jobs.vendors.partners import BadUrl, PartnerBook
from schemas.catalog import Partner
from schemas.codec import Encoder
from schemas.dead_letters import dead_letter
from schemas.errors import ConnectorError, ContractError, Reject, RejectReason
from schemas.events import INVALID_TRAFFIC, opted_out
from schemas.ids import tracker_call_id
from schemas.redis_layout import registry_key, tracked_key
from schemas.registry_record import AdRecord
from schemas.topics import TRACKER_CALLS, TRACKER_CALLS_DLQ

logger = logging.getLogger(__name__)

JOB = "vendors"
#: Partner of a call whose URL has none.
NOBODY = "-"
_ERROR_CODE = "code"
_PLANS = 10_000

#: Event type -> (partner, URL), or why a URL can't be called.
Plan = Mapping[str, Sequence[tuple[Partner | Reject, str]]]


class _TrackedAd(msgspec.Struct):
    """What is used of a registry record. Trackers stay as they are: many ads have the same ones."""

    trackers: msgspec.Raw = msgspec.Raw(b"{}")


_decode_ad = msgspec.json.Decoder(_TrackedAd).decode
_decode_trackers = msgspec.json.Decoder(dict[str, list[str]]).decode


class Record(Protocol):
    """What is used of a Kafka message."""

    def topic(self) -> str | None: ...
    def partition(self) -> int | None: ...
    def offset(self) -> int | None: ...
    def value(self) -> bytes | None: ...


@dataclass(slots=True)
class Expansion:
    """What a batch became. `messages` are (topic, key, value); the counts are for metrics, after the commit."""

    messages: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    refused_urls: int = 0


class Expander:
    """Turns batches of events into calls. Errors of a call: Unavailable or TimedOut of Valkey or the registry."""

    def __init__(
        self,
        decode: RecordDecoder,
        encode: Encoder,
        encode_dead_letter: Encoder,
        valkey: Valkey,
        book: PartnerBook,
        deduplication_s: int,
        cached_records: int,
        job_version: str,
        now_ms: Callable[[], int],
    ) -> None:
        self._decode = decode
        self._encode = encode
        self._encode_dead_letter = encode_dead_letter
        self._valkey = valkey
        self._book = book
        self._deduplication_s = deduplication_s
        self._cached_records = cached_records
        self._job_version = job_version
        self._now_ms = now_ms
        self._ads: dict[str, Plan] = {}
        self._plans: dict[bytes, Plan] = {}

    def __call__(self, messages: Sequence[Record]) -> Expansion:
        output = Expansion()
        events: list[tuple[Record, dict[str, Any]]] = []
        for message in messages:
            _schema_id, found = self._decode(message.value())
            if isinstance(found, Reject):  # the lake's worker writes its dead letter
                output.events["undecodable"] += 1
            elif reject_reason(found) is not None:  # refused by event_quality, which writes its dead letter
                output.events["refused"] += 1
            else:
                events.append((message, found))
        self._look_up({event["record_id"] for _, event in events})
        tracked = []
        for message, event in events:
            plan = self._ads.get(event["record_id"])
            calls = _calls_of(plan, event) if plan is not None else None
            if calls:
                tracked.append((message, event, calls))
            else:
                output.events["no_record" if plan is None else "untracked"] += 1
        for ours, (_, event, calls) in zip(self._claim([t[:2] for t in tracked]), tracked, strict=True):
            output.events["tracked" if ours else "repeated"] += 1
            if ours:
                self._add(output, event, calls)
        self._forget()
        return output

    def _look_up(self, record_ids: set[str]) -> None:
        """Makes the plans of these ads known, as far as the registry has them."""
        missing = [i for i in record_ids if i not in self._ads]
        if not missing:
            return
        (values,) = self._valkey.pipeline([("MGET", *map(registry_key, missing))])
        if isinstance(values, ConnectorError):
            raise values
        for record_id, value in zip(missing, values, strict=True):
            if value is not None and (plan := self._plan(value)) is not None:
                self._ads[record_id] = plan

    def _plan(self, value: bytes) -> Plan | None:
        """The calls of a record's events, shared by all ads with the same trackers."""
        try:
            raw = bytes(_decode_ad(AdRecord.json_part(value)).trackers)
            found = self._plans.get(raw)
            if found is None:
                if len(self._plans) >= _PLANS:
                    self._plans.clear()
                found = self._plans[raw] = {
                    event_type: [(self._partner(url), url) for url in dict.fromkeys(urls)]
                    for event_type, urls in _decode_trackers(raw).items()
                }
            return found
        except (ContractError, msgspec.MsgspecError) as e:
            logger.warning("registry record not read", extra={"error": str(e)})
            return None

    def _partner(self, url: str) -> Partner | Reject:
        try:
            return self._book.of_url(url)
        except BadUrl as e:
            return Reject(RejectReason.UNSAFE_URL, str(e))

    def _claim(self, events: Sequence[tuple[Record, dict[str, Any]]]) -> list[bool]:
        """Whether each event is this record's. Idempotent."""
        origins = [f"{m.topic()}/{m.partition()}/{m.offset()}".encode() for m, _ in events]
        commands: list[Command] = [
            ("SET", tracked_key(event["event_id"]), origin, "NX", "GET", "EX", self._deduplication_s)
            for origin, (_, event) in zip(origins, events, strict=True)
        ]
        replies = self._valkey.pipeline(commands)
        for reply in replies:
            if isinstance(reply, ConnectorError):
                raise reply
        return [reply is None or reply == origin for reply, origin in zip(replies, origins, strict=True)]

    def _add(self, output: Expansion, event: dict[str, Any], calls: Sequence[tuple[Partner | Reject, str]]) -> None:
        for partner, url in calls:
            if isinstance(partner, Reject):
                value = self._encode(_call(event, NOBODY, url))
                letter = dead_letter(
                    partner, TRACKER_CALLS.name, JOB, self._job_version, self._now_ms(), key=NOBODY.encode(), raw=value
                )
                output.messages.append((TRACKER_CALLS_DLQ.name, NOBODY.encode(), self._encode_dead_letter(letter)))
                output.refused_urls += 1
            elif _may_be_told(partner, event):
                value = self._encode(_call(event, partner.id, url))
                output.messages.append((TRACKER_CALLS.name, partner.id.encode(), value))
                output.calls[partner.id] += 1

    def _forget(self) -> None:
        while len(self._ads) > self._cached_records:
            del self._ads[next(iter(self._ads))]


def _calls_of(plan: Plan, event: Mapping[str, Any]) -> Sequence[tuple[Partner | Reject, str]]:
    """What an event calls: the trackers of its type, and those of its type and ordinal."""
    event_type, ordinal = event["event_type"], event["ordinal"]
    calls = plan.get(event_type, ())
    own = plan.get(f"{event_type}:{ordinal}", ()) if ordinal else ()
    return [*calls, *own] if own else calls


def _may_be_told(partner: Partner, event: Mapping[str, Any]) -> bool:
    if partner.consent_required and opted_out(event["consent"]):
        return False
    return not (partner.valid_traffic_only and any(r.startswith(INVALID_TRAFFIC) for r in event["quality_reasons"]))


def _call(event: Mapping[str, Any], partner_id: str, url: str) -> dict[str, Any]:
    """The record of a call, as tracker_call.avsc has it. A player's error code is kept if it is one."""
    code = event["attributes"].get(_ERROR_CODE, "") if event["event_type"] == "error" else ""
    return {
        "idempotency_key": tracker_call_id(event["event_id"], url),
        "event_id": event["event_id"],
        "event_type": event["event_type"],
        "event_time_ms": event["event_time_ms"],
        "record_id": event["record_id"],
        "partner": partner_id,
        "url": url,
        "request_id": event["request_id"],
        "creative_id": event["creative_id"],
        "error_code": code if code.isascii() and code.isdigit() and len(code) <= 4 else None,
        "consent": event["consent"],
    }
