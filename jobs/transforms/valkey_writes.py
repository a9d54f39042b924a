"""Counter values and spend as writes to Valkey: absolute, so that writing twice or in any batch size is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.errors import Reject, RejectReason
from schemas.features import COUNTER_BY_NAME
from schemas.redis_layout import counter_field, entity_key, entity_ttl_s, spend_key

Command = tuple[bytes | str | int, ...]
#: Largest bucket start that a packed field can hold (32 bits of seconds).
_LAST_BUCKET_S = 2**32 - 1


class PendingWrites:
    """Values to write, the last of each field. Records of one field must come in their order."""

    def __init__(self) -> None:
        self._hashes: dict[bytes, dict[bytes | str, int]] = {}
        self._ttl_s: dict[bytes, int] = {}

    def add_counter(self, value: Mapping[str, Any]) -> Reject | None:
        """Takes a counter_value record; refuses one that the declared counters do not know."""
        counter = COUNTER_BY_NAME.get(value["counter"])
        if counter is None or counter.entity != value["entity_type"]:
            return Reject(RejectReason.BAD_VALUE, f"{value['entity_type']} has no counter {value['counter']}")
        bucket_start_s = value["bucket_start_ms"] // 1000
        if not 0 <= bucket_start_s <= _LAST_BUCKET_S:
            return Reject(RejectReason.ABSURD_TIME, f"bucket at {bucket_start_s} s")
        key = entity_key(counter.entity, value["entity_id"])
        field = counter_field(counter, value["scope_id"], bucket_start_s)
        self._hashes.setdefault(key, {})[field] = value["value"]
        self._ttl_s[key] = entity_ttl_s(counter.entity)
        return None

    def add_spend(self, value: Mapping[str, Any]) -> Reject | None:
        """Takes a campaign_spend record."""
        self._hashes.setdefault(spend_key(value["campaign_id"]), {})[value["day"]] = value["spend_micros"]
        return None

    @property
    def fields(self) -> int:
        return sum(map(len, self._hashes.values()))

    def counter_keys(self) -> list[bytes]:
        """Hashes of counters that are written to."""
        return list(self._ttl_s)

    def commands(self) -> list[Command]:
        """HSET per hash, and EXPIRE per hash of counters."""
        commands: list[Command] = []
        for key, values in self._hashes.items():
            pairs: list[bytes | str | int] = []
            for field, value in values.items():
                pairs += (field, value)
            commands.append(("HSET", key, *pairs))
        commands += [("EXPIRE", key, ttl_s) for key, ttl_s in self._ttl_s.items()]
        return commands
