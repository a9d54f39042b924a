"""Counter values and spend as writes to Valkey: absolute, so that writing twice or in any batch size is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.errors import Reject, RejectReason
from schemas.redis_layout import (
    BUCKET_CODES,
    ENTITY_TYPES,
    FREQUENCY_PROGRESS,
    OPEN_WINS_TTL_S,
    PROGRESS_KEY,
    SPEND_PROGRESS,
    SUSPECT_TTL_S,
    SUSPECTS,
    OpenWins,
    counter_field,
    entity_key,
    entity_ttl_s,
    entry_bytes,
    household_key,
    open_wins_key,
    open_wins_value,
    spend_key,
    user_key,
)
from schemas.topics import FREQUENCY_COUNTS, STREAMING_FEATURES

Command = tuple[bytes | str | int, ...]
#: Largest bucket start that a packed field can hold (32 bits of seconds).
_LAST_BUCKET_S = 2**32 - 1


#: The family of counters that each topic holds.
FAMILY_OF_TOPIC = {FREQUENCY_COUNTS.name: "frequency", STREAMING_FEATURES.name: "features"}
#: Rules of jobs/streaming/invalid_traffic.py about the rate of one viewer: user or household, household alone.
_OF_HOUSEHOLD = "data_center_repeat"
_RULES_OF_VIEWERS = frozenset({"click_flood", _OF_HOUSEHOLD})
#: The day of a campaign_spend record that is about the wins of a minute.
OPEN = "open"


class PendingWrites:
    """Values to write, the last of each field. Records of one field must come in their order."""

    def __init__(self) -> None:
        self._hashes: dict[bytes, dict[bytes | str, bytes | int]] = {}
        self._ttl_s: dict[bytes, int] = {}
        self._counters: set[bytes] = set()
        self._progress_ms: dict[bytes, int] = {}
        self._suspects: dict[bytes, int] = {}

    def add_counters(self, topic: str, value: Mapping[str, Any]) -> Reject | None:
        """Takes a counter_bucket record; refuses one that no declared counter would make."""
        entity, bucket_s, entries = value["entity_type"], value["bucket_s"], value["entries"]
        if entity not in ENTITY_TYPES or bucket_s not in BUCKET_CODES:
            return Reject(RejectReason.BAD_VALUE, f"{entity} has no counters in buckets of {bucket_s} s")
        if not entries or len(entries) % entry_bytes(entity):
            return Reject(RejectReason.BAD_VALUE, f"{len(entries)} bytes are no counters of a {entity}")
        bucket_start_s = value["bucket_start_ms"] // 1000
        if not 0 <= bucket_start_s <= _LAST_BUCKET_S:
            return Reject(RejectReason.ABSURD_TIME, f"bucket at {bucket_start_s} s")
        key = entity_key(entity, value["entity_id"])
        field = counter_field(FAMILY_OF_TOPIC[topic], bucket_s, bucket_start_s)
        self._hashes.setdefault(key, {})[field] = bytes(entries)
        self._ttl_s[key] = entity_ttl_s(entity)
        self._counters.add(key)
        if topic == FREQUENCY_COUNTS.name:
            self._advance(FREQUENCY_PROGRESS, value)
        return None

    def add_spend(self, value: Mapping[str, Any]) -> Reject | None:
        """Takes a campaign_spend record."""
        campaign_id = value["campaign_id"]
        if value["day"] == OPEN:
            key = open_wins_key(campaign_id)
            minute_s = value["decision_minute_ms"] // 1000
            minute = OpenWins(value["won_micros"], value["confirmed_micros"], value["wins"], value["confirmed_wins"])
            self._hashes.setdefault(key, {})[str(minute_s)] = open_wins_value(minute)
            self._ttl_s[key] = OPEN_WINS_TTL_S
        else:
            self._hashes.setdefault(spend_key(campaign_id), {})[value["day"]] = value["spend_micros"]
            self._advance(SPEND_PROGRESS, value)
        return None

    def add_verdict(self, value: Mapping[str, Any]) -> None:
        """Takes an invalid_traffic record: its viewer is suspect for a while, if the rule is about how a viewer acts.

        A verdict on a single event, or on how many share an address, condemns nobody's next request.
        """
        if value["rule"] not in _RULES_OF_VIEWERS:
            return
        user, household = value["user_pseudonym"], value["household_pseudonym"]
        if user is not None and value["rule"] != _OF_HOUSEHOLD:
            key = user_key(user)
        elif household is not None:
            key = household_key(household)
        else:
            return
        until_s = value["verdict_time_ms"] // 1000 + SUSPECT_TTL_S
        self._suspects[key] = max(self._suspects.get(key, 0), until_s)

    def _advance(self, kind: bytes, value: Mapping[str, Any]) -> None:
        if published_ms := value.get("updated_ms", 0):  # 0: a record of before there was such a field
            self._progress_ms[kind] = max(self._progress_ms.get(kind, 0), published_ms)

    @property
    def fields(self) -> int:
        return sum(map(len, self._hashes.values())) + len(self._suspects)

    def counter_keys(self) -> list[bytes]:
        """Hashes of counters that are written to."""
        return list(self._counters)

    def commands(self) -> list[Command]:
        """HSET per hash, and EXPIRE per hash that is not kept for ever; last, until when that tells the story."""
        commands: list[Command] = []
        for key, values in self._hashes.items():
            pairs: list[bytes | str | int] = []
            for field, value in values.items():
                pairs += (field, value)
            commands.append(("HSET", key, *pairs))
        commands += [("EXPIRE", key, ttl_s) for key, ttl_s in self._ttl_s.items()]
        if self._suspects:
            pairs = [part for key, until_s in self._suspects.items() for part in (until_s, key)]
            over_s = max(self._suspects.values()) - SUSPECT_TTL_S  # no later than now
            commands.append(("ZADD", SUSPECTS, "GT", *pairs))
            commands.append(("ZREMRANGEBYSCORE", SUSPECTS, "-inf", over_s))
            commands.append(("EXPIRE", SUSPECTS, SUSPECT_TTL_S))
        commands += [("HSET", PROGRESS_KEY, kind, at_ms) for kind, at_ms in self._progress_ms.items()]
        return commands
