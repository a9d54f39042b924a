"""What was sent, and what is known about the ad, as one AdEvent, or the reason why not.

Times (docs/architecture.md, two clocks): the event time is the sender's, but never after the received time; a sender
whose clock is nonsense is refused. Costs: an impression's on `impression`, a click's on `click`, a
completed view's on `complete`, else 0.
An opted-out user's events have no pseudonym: the ad's record says who opted out, and of a conversion its sender may, in
attribute `opt_out`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Protocol

from connectors.tokens import TokenClaims
from schemas.errors import Reject, RejectReason
from schemas.events import (
    BY_CODE,
    BY_NAME,
    CLOCK_AHEAD_MS,
    CLOCK_SKEW_MS,
    OLDEST_MS,
    OPT_OUT,
    YES,
    EventType,
    opted_out,
)
from schemas.ids import encode_id, event_id, order_record_id, upstream_ordinal, upstream_record_id
from schemas.registry_record import NOT_IN_EVENTS, AdRecord
from schemas.upstream import FORMAT, ORIGINAL_TIME, RECORD_NUMBERS, RECORD_TEXT, record_of

SCHEMA_VERSION = 1
Event = dict[str, Any]

_EXPERIMENT_CELL = "experiment_cell"
_OF_RECORD = tuple(f.name for f in fields(AdRecord) if f.name not in NOT_IN_EVENTS)
#: Fields that every event of an ad repeats: those of the ad's record, and what derives from them.
REPEATED = tuple(dict.fromkeys((*_OF_RECORD, _EXPERIMENT_CELL)))
_NO = ("0", "false", "no")
_PROGRESS = BY_NAME["progress"].code
_VIEWABLE = BY_NAME["viewable"].code
_CONVERSION = BY_NAME["conversion"]
_POST_VIEW = BY_NAME["post_view_conversion"]
_UPSTREAM_OWN = frozenset((*RECORD_TEXT, *RECORD_NUMBERS, FORMAT))


class Costs(Protocol):
    """What an ad's record says of money."""

    @property
    def impression_cost_micros(self) -> int: ...
    @property
    def click_cost_micros(self) -> int: ...
    @property
    def view_cost_micros(self) -> int: ...


def repeated_fields(record: AdRecord) -> Event:
    """The part of an event that is the same for all events of an ad. Shape: a new dict, made once per ad."""
    part: Event = {name: getattr(record, name) for name in _OF_RECORD}
    part[_EXPERIMENT_CELL] = ",".join(f"{name}:{cell}" for name, cell in sorted(record.experiments.items()))
    if opted_out(record.consent):
        part["user_pseudonym"] = part["household_pseudonym"] = None
    return part


def token_event(telemetry: Mapping[str, Any], claims: TokenClaims, ad: Costs, published_ms: int) -> Event | Reject:
    """The event of a genuine token, whose ad's record was found: what it adds to the record's `repeated_fields`.

    None of those fields is changed by an event. The token says what happened; the sender's name of it is not trusted.
    """
    kind = BY_CODE.get(claims.event_code)
    if kind is None:
        return Reject(RejectReason.UNKNOWN_EVENT, f"code {claims.event_code}")
    received_ms = telemetry["received_time_ms"]
    reasons: list[str] = [*telemetry.get("quality_reasons", ())]
    event_ms = _event_time(telemetry["client_time_ms"], received_ms, reasons)
    if isinstance(event_ms, Reject):
        return event_ms
    attributes = telemetry["attributes"]
    if attributes:
        attributes = dict(attributes)
        if "ts" in attributes:
            reasons.append("client_time_unreadable")
    if claims.expired(received_ms / 1000):
        reasons.append("token_expired")
    ordinal = claims.ordinal
    event = {
        "event_id": event_id(claims.record_id, kind.code, ordinal),
        "event_type": kind.name,
        "ordinal": ordinal,
        "event_time_ms": event_ms,
        "received_time_ms": received_ms,
        "published_time_ms": published_ms,
        "source": telemetry["source"],
        "cost_micros": _cost_micros(kind, ad),
        "watch_percent": ordinal if kind.code == _PROGRESS else kind.quartile,
        "viewable": True if kind.code == _VIEWABLE else None,
        "quality_reasons": reasons,
        "attributes": attributes,
        "schema_version": SCHEMA_VERSION,
    }
    if attributes:
        _measured_by_player(event, attributes)
    return event


def upstream_event(
    telemetry: Mapping[str, Any], known: AdRecord | None, published_ms: int
) -> tuple[Event, AdRecord] | Reject:
    """The event of an upstream log's line, and the ad's record: `known` if its impression came before.

    An impression is published from its own line, whatever is known: a bid logged twice may have two prices, and a
    repeated line must cost what it cost before. A click without a known impression is, too, and says so.
    """
    kind = BY_NAME.get(telemetry["client_event"] or "")
    if kind is None:
        return Reject(RejectReason.UNKNOWN_EVENT, telemetry["client_event"] or "none")
    attributes = telemetry["attributes"]
    try:
        ordinal = upstream_ordinal(int(attributes[ORIGINAL_TIME]))
    except (KeyError, ValueError):
        return Reject(RejectReason.MISSING_FIELD, ORIGINAL_TIME)
    received_ms = telemetry["received_time_ms"]
    reasons: list[str] = []
    event_ms = _event_time(telemetry["client_time_ms"], received_ms, reasons)
    if isinstance(event_ms, Reject):
        return event_ms
    raw_id = record_id_of_upstream(telemetry)
    record = (
        record_of(
            encode_id(raw_id),
            attributes,
            telemetry["user_pseudonym"],
            telemetry["household_pseudonym"],
            event_ms,
        )
        if known is None or kind.name == "impression"
        else known
    )
    if isinstance(record, Reject):
        return record
    if known is None and kind.name != "impression":
        reasons.append("no_impression")
    event = {
        **repeated_fields(record),
        "event_id": event_id(raw_id, kind.code, ordinal),
        "event_type": kind.name,
        "ordinal": ordinal,
        "event_time_ms": event_ms,
        "received_time_ms": received_ms,
        "published_time_ms": published_ms,
        "source": telemetry["source"],
        "cost_micros": _cost_micros(kind, record),
        "quality_reasons": reasons,
        "attributes": {name: value for name, value in attributes.items() if name not in _UPSTREAM_OWN},
        "schema_version": SCHEMA_VERSION,
    }
    return event, record


def record_id_of_upstream(telemetry: Mapping[str, Any]) -> bytes:
    """The record id of an upstream line's ad."""
    return upstream_record_id(telemetry["attributes"].get(FORMAT, ""), telemetry["upstream_id"])


def conversion_event(conversion: Mapping[str, Any], record: AdRecord | None, published_ms: int) -> Event | Reject:
    """The event of a conversion. One per order: its id derives from advertiser and order, not from the ad.

    `record` is the ad's, when the sender named the ad and the registry still has it. Without it the advertiser is
    all that is known, or what an upstream log's line says itself.
    """
    received_ms = conversion["received_time_ms"]
    reasons: list[str] = []
    event_ms = _event_time(conversion["event_time_ms"], received_ms, reasons)
    if isinstance(event_ms, Reject):
        return event_ms
    attributes = conversion["attributes"]
    order = order_record_id(conversion["advertiser_id"], conversion["order_id"])
    record_id = conversion["record_id"] or encode_id(order)
    if record is None:
        if conversion["record_id"]:
            reasons.append("no_impression" if FORMAT in attributes else "registry_miss")
        own = {name: attributes[name] for name in RECORD_TEXT if name in attributes}
        own |= {"advertiser_id": conversion["advertiser_id"]}
        own = {"campaign_id": "", "creative_id": "", **own}
        record = AdRecord(record_id=record_id, request_id="", imp_id="", decision_time_ms=event_ms, **own)
    if opted_out(attributes):
        record = replace(record, consent={**record.consent, OPT_OUT: "1"})
    repeated = repeated_fields(record)
    if repeated["user_pseudonym"] is None and not opted_out(record.consent):
        repeated["user_pseudonym"] = conversion["user_pseudonym"]
    return {
        **repeated,
        "event_id": event_id(order, _CONVERSION.code, 0),
        "event_type": _CONVERSION.name,
        "ordinal": 0,
        "event_time_ms": event_ms,
        "received_time_ms": received_ms,
        "published_time_ms": published_ms,
        "source": "server",
        "cost_micros": 0,
        "currency": conversion["currency"],
        "quality_reasons": reasons,
        "order_id": conversion["order_id"],
        "conversion_value_micros": conversion["value_micros"],
        "attributes": {
            **{name: value for name, value in attributes.items() if name not in _UPSTREAM_OWN},
            "conversion_type": conversion["conversion_type"],
            "conversion_source": conversion["source"],
        },
        "schema_version": SCHEMA_VERSION,
    }


def post_view_event(
    attribution: Mapping[str, Any], record: AdRecord | None, published_ms: int
) -> Event | Reject | None:
    """The event of a conversion that is credited to an ad its user saw; None for any other outcome.

    Its id derives from the order, so repeats and later revisions are the same event. `record` is the ad's if the
    registry still has it, else the row's own ids are all that is known. The value stays with the `conversion` event
    of the order and with the attribution: sums over events must not count it twice.
    """
    if attribution["outcome"] != "attributed" or attribution["touch_type"] != "view":
        return None
    record_id, order_id = attribution["touch_record_id"], attribution["order_id"]
    if not record_id or not order_id:
        return Reject(RejectReason.MISSING_FIELD, "order_id" if record_id else "touch_record_id")
    happened_ms = attribution["conversion_time_ms"]
    decided_ms = max(attribution["decided_time_ms"], happened_ms)
    if decided_ms - happened_ms > OLDEST_MS:
        return Reject(RejectReason.ABSURD_TIME, f"decided {decided_ms - happened_ms} ms after the conversion")
    if record is None:
        own = {name: attribution[name] for name in _OF_RECORD if name in attribution}
        record = AdRecord(record_id=record_id, request_id="", imp_id="", decision_time_ms=happened_ms, **own)
        repeated = repeated_fields(record) | {_EXPERIMENT_CELL: attribution[_EXPERIMENT_CELL]}
    else:
        repeated = repeated_fields(record)
    order = order_record_id(attribution["advertiser_id"], order_id)
    return {
        **repeated,
        "event_id": event_id(order, _POST_VIEW.code, 0),
        "event_type": _POST_VIEW.name,
        "ordinal": 0,
        "event_time_ms": happened_ms,
        "received_time_ms": decided_ms,
        "published_time_ms": published_ms,
        "source": "server",
        "cost_micros": 0,
        "order_id": order_id,
        "schema_version": SCHEMA_VERSION,
    }


def _event_time(client_ms: int | None, received_ms: int, reasons: list[str]) -> int | Reject:
    """The event time; adds a quality reason when the sender's clock was ahead."""
    if client_ms is None or client_ms == received_ms:
        return received_ms
    ahead_ms = client_ms - received_ms
    if ahead_ms > CLOCK_AHEAD_MS or -ahead_ms > OLDEST_MS:
        return Reject(RejectReason.ABSURD_TIME, f"{ahead_ms} ms from the received time")
    if ahead_ms <= 0:
        return client_ms
    if ahead_ms > CLOCK_SKEW_MS:
        reasons.append("clock_ahead")
    return received_ms


def _cost_micros(kind: EventType, ad: Costs) -> int:
    if kind.name == "impression":
        return ad.impression_cost_micros
    if kind.name == "click":
        return ad.click_cost_micros
    if kind.name == "complete":
        return ad.view_cost_micros
    return 0


def _measured_by_player(event: Event, attributes: dict[str, str]) -> None:
    """Moves what the player measured from `attributes` to its fields; what does not parse stays where it was."""
    for name in ("viewable", "captions"):
        value = attributes.get(name, "").lower()
        if value in YES or value in _NO:
            event[name] = value in YES
            del attributes[name]
    percent = attributes.get("watch_percent", "")
    if percent.isascii() and percent.isdigit() and int(percent) <= 100:
        event["watch_percent"] = int(attributes.pop("watch_percent"))
    if "thumbnail" in attributes:
        event["thumbnail"] = attributes.pop("thumbnail")
