"""Records of the Ads Metadata Registry for a batch: one round trip for those that are not in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from connectors.valkey import Valkey
from connectors.valkey_wire import Command
from jobs.transforms.enrich import repeated_fields
from schemas.errors import ConnectorError, ContractError
from schemas.ids import encode_id
from schemas.redis_layout import registry_key
from schemas.registry_record import AdRecord
from schemas.two_step_encoder import EarlyPart, TwoStepEncoder

_decode = msgspec.json.Decoder(AdRecord).decode

#: Kafka key of an ad's events, from (pseudonym, record id).
KeyOfAd = Callable[[str | None, str], bytes]


@dataclass(frozen=True, slots=True)
class KnownAd:
    """What the events of an ad need: its costs, what all of them repeat, encoded, and the Kafka key that they share."""

    impression_cost_micros: int
    click_cost_micros: int
    view_cost_micros: int
    encoded: EarlyPart
    key: bytes
    stored: bytes

    @property
    def record(self) -> AdRecord:
        """The whole record. Decoded at each use: most ads never need it, and kept it would be five times as large."""
        return _decode(AdRecord.json_part(self.stored))


class AdRecords:
    """Reads and writes registry records, remembering the latest `capacity` ads that were asked for.

    A record never changes after it is written, so what is remembered can't be stale. A miss is not remembered.
    Ads are asked for by the bytes of their record ids.
    """

    def __init__(self, valkey: Valkey, capacity: int, encode: TwoStepEncoder, key_of_ad: KeyOfAd) -> None:
        self._valkey = valkey
        self._capacity = capacity
        self._encode = encode
        self._key_of_ad = key_of_ad
        self._known: dict[bytes, KnownAd] = {}
        self._lookups: Counter[str] = Counter()

    def find(self, record_ids: Iterable[bytes]) -> dict[bytes, KnownAd]:
        """The known ones among some ads. Errors: Unavailable, TimedOut. A record of a newer version is no record."""
        found: dict[bytes, KnownAd] = {}
        missing: list[bytes] = []
        for record_id in dict.fromkeys(record_ids):  # in order: the same records give the same keys
            known = self._known.pop(record_id, None)
            if known is None:
                missing.append(record_id)
            else:
                found[record_id] = self._known[record_id] = known  # again the youngest
        self._lookups["memory"] += len(found)
        if missing:
            (values,) = self._valkey.pipeline([("MGET", *[registry_key(encode_id(raw)) for raw in missing])])
            if isinstance(values, ConnectorError):
                raise values
            for record_id, value in zip(missing, values, strict=True):
                ad = None if value is None else self._known_ad(value)
                self._lookups["unknown" if ad is None else "registry"] += 1
                if ad is not None:
                    found[record_id] = self._known[record_id] = ad
            self._forget()
        return found

    def take_lookups(self) -> Counter[str]:
        """Where ads were found since the last call: `memory`, `registry`, or `unknown` to both."""
        taken, self._lookups = self._lookups, Counter()
        return taken

    def write(self, records: Iterable[AdRecord], ttl_s: int) -> None:
        """Writes records of ads that an upstream logger served. Idempotent. Errors: Unavailable, TimedOut, Refused."""
        commands: list[Command] = [
            ("SET", registry_key(record.record_id), record.to_bytes(), "EX", ttl_s) for record in records
        ]
        if commands:
            for reply in self._valkey.pipeline(commands):
                if isinstance(reply, ConnectorError):
                    raise reply

    def _forget(self) -> None:
        while len(self._known) > self._capacity:
            del self._known[next(iter(self._known))]

    def _known_ad(self, value: bytes) -> KnownAd | None:
        try:
            record = _decode(AdRecord.json_part(value))
            repeated = repeated_fields(record)
            encoded = self._encode.early_part(repeated)
        except (ContractError, msgspec.MsgspecError):
            return None
        key = self._key_of_ad(repeated["user_pseudonym"], record.record_id)
        costs = (record.impression_cost_micros, record.click_cost_micros, record.view_cost_micros)
        return KnownAd(*costs, encoded, key, value)
