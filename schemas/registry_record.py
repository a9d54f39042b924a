"""The Ads Metadata Registry's record: everything about a decided ad that its tokens do not carry.

Kept in Valkey under `redis_layout.registry_key(record_id)` as one version byte followed by JSON. Writers write the
newest version; readers refuse one that they do not know (`ContractError`), so that nothing is misread.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from json.encoder import encode_basestring_ascii as _quoted
from operator import attrgetter

from schemas.errors import ContractError

VERSION = 1
_PREFIX = bytes([VERSION])
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
#: Fields of a record that no event repeats.
NOT_IN_EVENTS = frozenset(
    {
        *("trackers", "decision_time_ms", "impression_cost_micros", "click_cost_micros", "view_cost_micros"),
        *("device_ip", "device_user_agent", "device_language", "device_referer", "device_app"),
    }
)


@dataclass(frozen=True, slots=True)
class AdRecord:
    """Static part of every event of one ad. Names and units as in ad_event.avsc.

    `impression_cost_micros`, `click_cost_micros` and `view_cost_micros` are charged on the first impression, click and
    complete.
    `trackers` maps an event type to third parties' URLs that are fired later by the event handler; a key
    `<event type>:<ordinal>` holds those of one ordinal alone (`progress:25`, `custom:3`).
    `device_*` are for the headers of those calls alone: only of users who may be known, the address truncated to its
    /24 or /48, and in no topic (`NOT_IN_EVENTS`).
    """

    record_id: str
    request_id: str
    imp_id: str
    advertiser_id: str
    campaign_id: str
    creative_id: str
    decision_time_ms: int
    line_item_id: str = ""
    creative_version: int = 1
    placement_id: str = ""
    publisher_id: str = ""
    user_pseudonym: str | None = None
    household_pseudonym: str | None = None
    deal_id: str | None = None
    deal_type: str | None = None
    site_id: str | None = None
    app_id: str | None = None
    content_id: str | None = None
    content_category: str | None = None
    bidder_id: str | None = None
    seat_id: str | None = None
    pricing: str = "cpm"
    impression_cost_micros: int = 0
    click_cost_micros: int = 0
    view_cost_micros: int = 0
    currency: str = "USD"
    creative_format: str | None = None
    creative_length_s: int | None = None
    device_type: str | None = None
    platform: str | None = None
    country: str | None = None
    region: str | None = None
    live: bool = False
    session_context: str | None = None
    cohort: str | None = None
    experiments: dict[str, str] = field(default_factory=dict)
    consent: dict[str, str] = field(default_factory=dict)
    model_version: str | None = None
    trackers: dict[str, list[str]] = field(default_factory=dict)
    device_ip: str = ""
    device_user_agent: str = ""
    device_language: str = ""
    device_referer: str = ""
    device_app: str = ""

    def to_bytes(self) -> bytes:
        """Version byte and compact JSON, without fields that hold their default."""
        parts = [
            label + (_quoted(value) if type(value) is str else repr(value) if type(value) is int else _ENCODE(value))
            for label, value in zip(_LABELS, _values(self), strict=True)
            if value not in (None, "", {})
        ]
        return _PREFIX + f"{{{','.join(parts)}}}".encode()

    @staticmethod
    def json_part(raw: bytes) -> bytes:
        """The JSON of a stored record, for readers with a faster decoder. Errors: ContractError on another version."""
        if raw[:1] != _PREFIX:
            raise ContractError(f"registry record has version {raw[:1].hex() or 'none'}, this reader knows {VERSION}")
        return raw[1:]

    @classmethod
    def from_bytes(cls, raw: bytes) -> AdRecord:
        """The record that `to_bytes` made. Errors: ContractError when version or fields are not ours."""
        try:
            return cls(**json.loads(cls.json_part(raw)))
        except (ValueError, TypeError) as e:
            raise ContractError(f"registry record does not decode: {e}") from e

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


_NAMES = tuple(f.name for f in fields(AdRecord))
#: What stands before each value, and how to get them all: an encoder of its own for each record took longer than this.
_LABELS = tuple(f"{_quoted(name)}:" for name in _NAMES)
_values = attrgetter(*_NAMES)
