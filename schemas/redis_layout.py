"""Keys and packed values in Valkey: the only place that knows them. Golden bytes are in the tests.

| key | type | what | written by | life |
| --- | --- | --- | --- | --- |
| `u:<pseudonym>` | hash | a user's counters: caps and interests | materializer | longest retention of its counters |
| `e:<entity type>:<id>` | hash | counters of a creative, campaign or placement | materializer | likewise |
| `{c:<campaign>}:spend` | hash | day -> committed spend, absolute micros | materializer | none |
| `{c:<campaign>}:reserved` | sorted set + hash beside it | won, unconfirmed imps | adserver | by expiry |
| `r:<record id>` | string | Ads Metadata Registry record | adserver, publisher for upstream logs | token life + lag |
| `v:<event id>` | string | which record of ad-events-v1 an event's trackers were queued for | vendors | a setting |
| `t:<partner>` | sorted set | calls answered beyond what is committed, by offset | vendors | until committed, 8 days |
| `m:materializer` | string | whether this server has everything | materializer | none |

A counter's field is 14 bytes, little-endian: code (u16), scope hash (u64, 0 for none), bucket start (u32, epoch s).
Its value is the absolute count as ASCII digits (Valkey keeps such a value as an integer in a listpack).
Why a hash and not one packed string: absolute fields can be written by any number of materializers without reading
first, a repeated write changes nothing, and the ad server still reads a user in one HGETALL.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from schemas.features import COUNTER_BY_CODE, COUNTERS, Counter
from schemas.ids import scope_hash

_FIELD = struct.Struct("<HQI")
FIELD_BYTES = _FIELD.size
#: NumPy dtype (as a list, so that this module needs no NumPy) of a field, for readers that decode many at once.
FIELD_DTYPE = [("code", "<u2"), ("scope", "<u8"), ("bucket_start_s", "<u4")]

#: Says whether this server has everything that the materializer committed; see `materializer_marker`.
MATERIALIZER_MARKER = b"m:materializer"

#: Seconds that a registry record outlives its tokens, for lagging upstream logs.
REGISTRY_LAG_S = 3600

#: Life of a partner's answered calls: longer than the topic keeps the calls themselves.
ANSWERED_TTL_S = 8 * 86_400


def materializer_marker(run_id: bytes, rebuilding: bool) -> bytes:
    """What the marker holds: the server's run id, which a restart changes, after `rebuilding:` while it is rebuilt.

    Anything else, or nothing, means that the server may lack values: a rebuild is due.
    """
    return b"rebuilding:" + run_id if rebuilding else run_id


def user_key(pseudonym: str) -> bytes:
    return b"u:" + pseudonym.encode()


def entity_key(entity_type: str, entity_id: str) -> bytes:
    """Key of an entity's counters.

    Example:
    >>> entity_key("creative", "cr-1"), entity_key("user", "v1:abc")
    (b'e:creative:cr-1', b'u:v1:abc')
    """
    if entity_type == "user":
        return user_key(entity_id)
    return f"e:{entity_type}:{entity_id}".encode()


def spend_key(campaign_id: str) -> bytes:
    return b"{c:" + campaign_id.encode() + b"}:spend"


def reserved_key(campaign_id: str) -> bytes:
    """Sorted set of record ids by expiry (epoch ms)."""
    return b"{c:" + campaign_id.encode() + b"}:reserved"


def reserved_amounts_key(campaign_id: str) -> bytes:
    """Hash of record id to reserved micros."""
    return b"{c:" + campaign_id.encode() + b"}:amounts"


def registry_key(record_id: str) -> bytes:
    return b"r:" + record_id.encode()


def tracked_key(event_id: bytes) -> bytes:
    """Holds the first record (topic partition and offset) that brought an event with trackers."""
    return b"v:" + event_id


def answered_key(partner: str) -> bytes:
    """Sorted set of idempotency keys by offset: calls that are over, above the partner's committed offset."""
    return b"t:" + partner.encode()


def counter_field(counter: Counter, scope_id: str, bucket_start_s: int) -> bytes:
    """The packed field of one counter, scope and bucket.

    Example:
    >>> from schemas.features import COUNTER_BY_NAME
    >>> counter_field(COUNTER_BY_NAME["creative_clicks_hour"], "", 3600).hex()
    '17000000000000000000100e0000'
    """
    return _FIELD.pack(counter.code, scope_hash(scope_id) if scope_id else 0, bucket_start_s)


def parse_field(field: bytes) -> tuple[int, int, int]:
    """(code, scope hash, bucket start s). Errors: struct.error when it is not 14 bytes."""
    return _FIELD.unpack(field)


def expired_fields(fields: Iterable[bytes], now_s: int) -> list[bytes]:
    """Fields whose bucket is past its counter's retention, or whose counter is no longer declared."""
    gone = []
    for field in fields:
        code, _scope, bucket_start_s = _FIELD.unpack(field)
        counter = COUNTER_BY_CODE.get(code)
        if counter is None or bucket_start_s + counter.bucket_s + counter.retention_s <= now_s:
            gone.append(field)
    return gone


def sum_counter(
    values: Mapping[bytes, bytes | int],
    counter: Counter,
    scope_id: str,
    first_bucket_s: int,
    last_bucket_s: int,
) -> int | None:
    """Sum of a counter's buckets in a range (inclusive); None when no bucket is present. The plain reference reader."""
    total: int | None = None
    wanted = scope_hash(scope_id) if scope_id else 0
    for field, value in values.items():
        code, scope, bucket_start_s = _FIELD.unpack(field)
        if code == counter.code and scope == wanted and first_bucket_s <= bucket_start_s <= last_bucket_s:
            total = (total or 0) + int(value)
    return total


def entity_ttl_s(entity_type: str) -> int:
    """Life of an entity's hash: the longest retention of its counters plus a bucket."""
    return max(c.retention_s + c.bucket_s for c in COUNTERS if c.entity == entity_type)
