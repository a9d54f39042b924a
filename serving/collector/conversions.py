"""The conversion door: `POST /v1/conversions`, a JSON array, with an API key of purpose `conversions`.

`{order_id, advertiser_id, user_id | email | click_token, value_micros?, currency?, ts?, type?, source?, ...}`: who
converted is said by at least one of the three match keys. User ids and e-mails become pseudonyms here, and nothing with
`opt_out: true`; the token of a click names its ad.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from connectors.keys import KeyRing
from connectors.tokens import TokenOpener
from schemas.errors import Reject, RejectReason, TokenError
from schemas.events import opted_out
from schemas.ids import encode_id
from serving.collector.attributes import clean_attributes
from serving.collector.batches import long_field, text_field
from serving.collector.buffer import Record
from serving.collector.contracts import Contracts

PATH = "/v1/conversions"
DOOR = "conversions"
_TEXTS = ("order_id", "advertiser_id", "user_id", "email", "click_token", "currency", "type", "source")
_CURRENCY = re.compile(r"[A-Z]{3}")


class ConversionReader:
    """Reads conversions; the only place that sees their match keys."""

    def __init__(self, contracts: Contracts, ring: KeyRing, now_ms: Callable[[], int]) -> None:
        self._contracts = contracts
        self._ring = ring
        self._opener = TokenOpener(ring)
        self._now_ms = now_ms

    def __call__(self, item: dict[str, Any]) -> Record | Reject:
        """One item as a conversion record."""
        texts: dict[str, str] = {}
        for name in _TEXTS:
            text = text_field(item, name, 512)
            if isinstance(text, Reject):
                return text
            if text is not None:
                texts[name] = text
        value_micros, time_ms = long_field(item, "value_micros"), long_field(item, "ts")
        for number in (value_micros, time_ms):
            if isinstance(number, Reject):
                return number
        for name in ("order_id", "advertiser_id"):
            if name not in texts:
                return Reject(RejectReason.MISSING_FIELD, f".{name}")
        if not texts.keys() & {"user_id", "email", "click_token"}:
            return Reject(RejectReason.MISSING_FIELD, ".user_id, .email or .click_token")
        if not _CURRENCY.fullmatch(texts.get("currency", "USD")):
            return Reject(RejectReason.BAD_VALUE, ".currency: expected three capital letters")
        if texts.get("source", "server") not in ("server", "pixel"):
            return Reject(RejectReason.BAD_VALUE, ".source: neither server nor pixel")
        record_id = None
        if "click_token" in texts:
            try:
                record_id = encode_id(self._opener.open(texts["click_token"]).record_id)
            except TokenError as e:
                return Reject(e.reason, f".click_token: {e.detail}")
        received_ms = self._now_ms()
        attributes, _dropped = clean_attributes(item)
        return self._contracts.conversion(
            {
                "order_id": texts["order_id"],
                "advertiser_id": texts["advertiser_id"],
                "user_pseudonym": None if opted_out(attributes) else self._pseudonym(texts),
                "record_id": record_id,
                "conversion_type": texts.get("type", "purchase"),
                "value_micros": value_micros,
                "currency": texts.get("currency", "USD"),
                "event_time_ms": received_ms if time_ms is None else time_ms,
                "received_time_ms": received_ms,
                "source": texts.get("source", "server"),
                "attributes": attributes,
            }
        )

    def _pseudonym(self, texts: dict[str, str]) -> str | None:
        if "user_id" in texts:
            return self._ring.pseudonym(texts["user_id"])
        if "email" in texts:
            return self._ring.pseudonym(texts["email"].strip().lower())
        return None
