"""Keys and packed values in Valkey: the only place that knows them. Golden bytes are in the tests.

| key | type | what | written by | life |
| --- | --- | --- | --- | --- |
| `u:<pseudonym>` | hash | a user's counters: caps and interests | materializer | longest retention of its counters |
| `h:<pseudonym>` | hash | caps of a household, for users that are unknown | materializer | likewise |
| `e:<entity type>:<id>` | hash | counters of a creative, campaign, placement, ... | materializer | likewise |
| `{c:<campaign>}:spend` | hash | UTC day or `total` -> committed spend, absolute micros | materializer | none |
| `{c:<campaign>}:open` | hash | minute of decision -> micros won and confirmed | materializer | a day after the last |
| `{c:<campaign>}:reserved` | sorted set | reservations and leases by expiry | adserver | 2 days after the last |
| `{c:<campaign>}:amounts` | hash | their micros, and the ledger's sums (`limits/ledger.py`) | adserver | likewise |
| `p:<u: or h: key>` | hash | wins of a viewer that are not counted yet | adserver | their life + an hour |
| `p:s:<session>` | hash | a stream's wins by capped scope | adserver | likewise |
| `r:<record id>` | string | Ads Metadata Registry record | adserver, publisher for upstream logs | token life + lag |
| `v:<event id>` | string | which record of ad-events-v1 an event's trackers were queued for | vendors | a setting |
| `t:<partition>:<partner>` | sorted set | calls that are over, past the commit | vendors | until committed, 8 days |
| `iv:viewers` | sorted set | viewers of invalid traffic, by when that ends (epoch s) | materializer | a day |
| `d:<period s>:<start>` | hash | what was counted of DSPs in a period: `<count>:<bidder>` | adserver | 3 periods |
| `d:scores` | hash | DSP -> its tier and score, and what they come from, of the last period | adserver | 3 periods |
| `m:materializer` | string | whether this server has everything | materializer | none |
| `m:progress` | hash | kind (spend, frequency) -> newest publish time that is written, epoch ms | materializer | none |

A field of a hash of counters is a bucket: 6 bytes, little-endian: family (u8: 1 frequency, 2 features), length of the
bucket (u8, see `BUCKET_CODES`), its start (u32, epoch s). Its value holds the counters of the bucket one after another:
code (u8), scope hash (u64), count (u16, which stays at 65,535) of a user or household; code (u8), sum (u64) of others.
Why not a field per counter: an impression of a user changes 12 of them, in 4 buckets; packed it is 4 messages, and a
busy user takes a quarter of the bytes (`headwater bench user_bytes`). Why not one string per user: a bucket is
absolute, so it can be written by any number of materializers without reading first, a repeated write changes nothing,
and the ad server still reads a user in one HGETALL; and what an impression changes stays small however long a user has
been here.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from schemas.counters import COUNTERS, DAY_S, HOUR_S, LIFETIME_S, MINUTE_S, Counter
from schemas.ids import scope_hash

#: The length of a bucket as a field has it, for ever.
BUCKET_CODES: dict[int, int] = {MINUTE_S: 1, 5 * MINUTE_S: 2, HOUR_S: 3, DAY_S: 4, LIFETIME_S: 5}
FAMILY_CODES: dict[str, int] = {"frequency": 1, "features": 2}
#: Entities whose counters have scopes.
SCOPED_ENTITIES = frozenset(c.entity for c in COUNTERS if c.scope)
ENTITY_TYPES = frozenset(c.entity for c in COUNTERS)
#: The greatest count that a user's or household's bucket holds.
MOST_SCOPED = 2**16 - 1

_FIELD, _SCOPED, _PLAIN = struct.Struct("<BBI"), struct.Struct("<BQH"), struct.Struct("<BQ")
FIELD_BYTES = _FIELD.size
#: NumPy dtypes (as lists, so that this module needs no NumPy), for readers that decode many at once.
FIELD_DTYPE = [("family", "u1"), ("bucket", "u1"), ("bucket_start_s", "<u4")]
SCOPED_DTYPE = [("code", "u1"), ("scope", "<u8"), ("value", "<u2")]
PLAIN_DTYPE = [("code", "u1"), ("value", "<u8")]

_SECONDS = {code: bucket_s for bucket_s, code in BUCKET_CODES.items()}
_RETENTION_S: dict[tuple[int, int], int] = {}
for _c in COUNTERS:
    _bucket = (FAMILY_CODES[_c.family], BUCKET_CODES[_c.bucket_s])
    _RETENTION_S[_bucket] = max(_RETENTION_S.get(_bucket, 0), _c.retention_s)

#: Says whether this server has everything that the materializer committed; see `materializer_marker`.
MATERIALIZER_MARKER = b"m:materializer"

#: Hash of what kinds of values have been written until which publish time (epoch ms).
PROGRESS_KEY, SPEND_PROGRESS, FREQUENCY_PROGRESS = b"m:progress", b"spend", b"frequency"

#: Seconds that a registry record outlives its tokens, for lagging upstream logs.
REGISTRY_LAG_S = 3600

#: Sorted set of `user_key` and `household_key` by epoch s until which a verdict on their traffic holds.
SUSPECTS = b"iv:viewers"
SUSPECT_TTL_S = DAY_S

#: The field of a campaign's spend that holds all days together.
TOTAL_SPEND = b"total"
#: Life of a campaign's open wins after the last change.
OPEN_WINS_TTL_S = DAY_S

#: Life of a partner's answered calls: longer than the topic keeps the calls themselves.
ANSWERED_TTL_S = 8 * 86_400


def has_everything(marker: bytes | None) -> bool:
    """Whether a marker says that what is read here is what was committed. See `materializer_marker`.

    Example:
    >>> has_everything(b"rebuilding:5f"), has_everything(None), has_everything(b"5f")
    (False, False, True)
    """
    return marker is not None and marker != b"" and not marker.startswith(b"rebuilding:")


def materializer_marker(run_id: bytes, rebuilding: bool) -> bytes:
    """What the marker holds: the server's run id, which a restart changes, after `rebuilding:` while it is rebuilt.

    Anything else, or nothing, means that the server may lack values: a rebuild is due.
    """
    return b"rebuilding:" + run_id if rebuilding else run_id


def user_key(pseudonym: str) -> bytes:
    return b"u:" + pseudonym.encode()


def household_key(pseudonym: str) -> bytes:
    return b"h:" + pseudonym.encode()


def entity_key(entity_type: str, entity_id: str) -> bytes:
    """Key of an entity's counters.

    Example:
    >>> entity_key("creative", "cr-1"), entity_key("user", "v1:abc")
    (b'e:creative:cr-1', b'u:v1:abc')
    """
    if entity_type == "user":
        return user_key(entity_id)
    if entity_type == "household":
        return household_key(entity_id)
    return f"e:{entity_type}:{entity_id}".encode()


def spend_key(campaign_id: str) -> bytes:
    return b"{c:" + campaign_id.encode() + b"}:spend"


def open_wins_key(campaign_id: str) -> bytes:
    """Hash of the minute of decision (epoch s, as text) to `open_wins_value`."""
    return b"{c:" + campaign_id.encode() + b"}:open"


class OpenWins(NamedTuple):
    """What was won in a minute of decision, and what of it was shown, in micros and in impressions."""

    won_micros: int
    confirmed_micros: int
    wins: int
    confirmed_wins: int


def open_wins_value(minute: OpenWins) -> bytes:
    """The value of a minute.

    Example:
    >>> open_wins_value(OpenWins(10_000, 7_500, 4, 3))
    b'10000 7500 4 3'
    """
    return " ".join(map(str, minute)).encode()


def parse_open_wins(value: bytes) -> OpenWins:
    """What `open_wins_value` made. Errors: ValueError, TypeError."""
    return OpenWins(*map(int, value.split()))


def reserved_key(campaign_id: str) -> bytes:
    """Sorted set of record ids by expiry (epoch ms)."""
    return b"{c:" + campaign_id.encode() + b"}:reserved"


def reserved_amounts_key(campaign_id: str) -> bytes:
    """Hash of record id to reserved micros."""
    return b"{c:" + campaign_id.encode() + b"}:amounts"


def pending_key(viewer_key: bytes) -> bytes:
    """Wins of a viewer, given its counters' key, that are not counted yet."""
    return b"p:" + viewer_key


def stream_pending_key(session: str) -> bytes:
    """Wins of one stream (a session of a player).

    Example:
    >>> stream_pending_key("abc"), pending_key(user_key("v1:x"))
    (b'p:s:abc', b'p:u:v1:x')
    """
    return b"p:s:" + session.encode()


def registry_key(record_id: str) -> bytes:
    return b"r:" + record_id.encode()


def tracked_key(event_id: bytes) -> bytes:
    """Holds the first record (topic partition and offset) that brought an event with trackers."""
    return b"v:" + event_id


def answered_key(partition: int, partner: str) -> bytes:
    """Sorted set of idempotency keys by offset: calls that are over, above the partner's committed offset.

    Example:
    >>> answered_key(3, "verifier")
    b't:3:verifier'
    """
    return f"t:{partition}:{partner}".encode()


#: How many periods the counts of DSPs are kept for.
DSP_HEALTH_PERIODS = 3


def dsp_health_key(period_s: int, start_s: int) -> bytes:
    """Hash of `<count>:<bidder>` to what all ad servers counted in the period that begins at `start_s` (epoch)."""
    return f"d:{period_s}:{start_s}".encode()


#: Hash of each DSP to `dsp_standing_value`: what its counts of the last period came to.
DSP_SCORES = b"d:scores"


class DspStanding(NamedTuple):
    """How a DSP stands. `score_cpm_micros` is what a request sent to it is worth; shares are in millionths of requests
    sent, `latency_ms` the mean of its answers.
    """

    tier: int
    score_cpm_micros: int
    calls: int
    bid_rate_ppm: int
    win_rate_ppm: int
    failed_ppm: int
    latency_ms: int


def dsp_standing_value(standing: DspStanding) -> bytes:
    """The value of a DSP.

    Example:
    >>> dsp_standing_value(DspStanding(1, 25_000, 4_000, 310_000, 40_000, 2_500, 38))
    b'1 25000 4000 310000 40000 2500 38'
    """
    return " ".join(map(str, standing)).encode()


def parse_dsp_standing(value: bytes) -> DspStanding:
    """What `dsp_standing_value` made. Errors: ValueError, TypeError."""
    return DspStanding(*map(int, value.split()))


class CounterEntry(NamedTuple):
    """One counter of one bucket, as packed. `scope` is 0 for an entity without scopes."""

    code: int
    scope: int
    bucket_s: int
    bucket_start_s: int
    value: int


def counter_field(family: str, bucket_s: int, bucket_start_s: int) -> bytes:
    """The field of a bucket. Errors: KeyError for a family or a length that is not declared.

    Example:
    >>> counter_field("features", 3600, 3600).hex()
    '0203100e0000'
    """
    return _FIELD.pack(FAMILY_CODES[family], BUCKET_CODES[bucket_s], bucket_start_s)


def pack_counters(values: Mapping[tuple[Counter, str, int], int]) -> dict[bytes, bytes]:
    r"""An entity's hash of (counter, scope id, bucket start s) to value. The counters must be of one entity.

    Example:
    >>> from schemas.counters import COUNTER_BY_NAME
    >>> clicks = COUNTER_BY_NAME["creative_clicks_hour"]
    >>> pack_counters({(clicks, "", 3600): 5})
    {b'\x02\x03\x10\x0e\x00\x00': b'\x17\x05\x00\x00\x00\x00\x00\x00\x00'}
    """
    found: defaultdict[bytes, bytes] = defaultdict(bytes)
    for (counter, scope_id, bucket_start_s), value in values.items():
        field = counter_field(counter.family, counter.bucket_s, bucket_start_s)
        if counter.entity in SCOPED_ENTITIES:
            found[field] += _SCOPED.pack(counter.code, _scope(scope_id), min(value, MOST_SCOPED))
        else:
            found[field] += _PLAIN.pack(counter.code, value)
    return dict(found)


def unpack_counters(entity_type: str, packed: Mapping[bytes, bytes]) -> Iterator[CounterEntry]:
    """What an entity's hash holds. Errors: struct.error, KeyError for bytes of another layout."""
    for field, entries in packed.items():
        _family, bucket, start_s = _FIELD.unpack(field)
        if entity_type in SCOPED_ENTITIES:
            for code, scope, value in _SCOPED.iter_unpack(entries):
                yield CounterEntry(code, scope, _SECONDS[bucket], start_s, value)
        else:
            for code, value in _PLAIN.iter_unpack(entries):
                yield CounterEntry(code, 0, _SECONDS[bucket], start_s, value)


def entry_bytes(entity_type: str) -> int:
    """Bytes of one counter in a bucket of an entity."""
    return _SCOPED.size if entity_type in SCOPED_ENTITIES else _PLAIN.size


def _scope(scope_id: str) -> int:
    return scope_hash(scope_id) if scope_id else 0


def expired_fields(fields: Iterable[bytes], now_s: int) -> list[bytes]:
    """Fields whose bucket is past the retention of its counters, or that nothing declared would write."""
    gone = []
    for field in fields:
        family, bucket, start_s = _FIELD.unpack(field) if len(field) == FIELD_BYTES else (0, 0, 0)
        retention_s = _RETENTION_S.get((family, bucket))
        if retention_s is None or start_s + _SECONDS[bucket] + retention_s <= now_s:
            gone.append(field)
    return gone


def sum_counter(
    packed: Mapping[bytes, bytes],
    counter: Counter,
    scope_id: str,
    first_bucket_s: int,
    last_bucket_s: int,
) -> int | None:
    """Sum of a counter's buckets in a range (inclusive); None when no bucket is present. The plain reference reader."""
    total: int | None = None
    wanted = _scope(scope_id)
    for entry in unpack_counters(counter.entity, packed):
        inside = first_bucket_s <= entry.bucket_start_s <= last_bucket_s
        if inside and entry.code == counter.code and entry.scope == wanted:
            total = (total or 0) + entry.value
    return total


def entity_ttl_s(entity_type: str) -> int:
    """Life of an entity's hash after its last write: the longest retention of its counters, and the bucket itself."""
    return max(
        c.retention_s + (0 if c.bucket_s == LIFETIME_S else c.bucket_s) for c in COUNTERS if c.entity == entity_type
    )
