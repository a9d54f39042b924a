"""How many bytes of Valkey does an active user take, beside a hash with a field per counter?

A pair is fifty users with the same habits, written both ways to a Valkey of its own and asked with MEMORY USAGE.
Nothing here depends on how busy the machine is.
"""

from __future__ import annotations

import random
import struct
from collections import Counter as Tally

from connectors.valkey import Valkey
from infra.bench.report import Row, Sample
from infra.bench.services import services
from schemas.counters import COUNTERS, DAY_S, HOUR_S, Counter
from schemas.ids import scope_hash
from schemas.redis_layout import pack_counters

_USERS, _CREATIVES, _CATEGORIES = 50, 60, 9
_NOW_S = 1_780_000_000
#: Days of history and impressions a day.
HABITS: tuple[tuple[int, int], ...] = ((1, 5), (7, 10), (31, 20))
_FIELD = struct.Struct("<HQI")  # counter, scope hash, bucket start: the field of one counter

Values = dict[tuple[Counter, str, int], int]


def run(pairs: int, scale: float) -> tuple[list[Row], list[str]]:
    """Rows of ours beside a field per counter. `scale` shrinks the number of users."""
    users = max(1, int(_USERS * scale))
    rows = []
    with services(("valkey",)) as where, Valkey(where.valkey_url) as valkey:
        for days, a_day in HABITS:
            samples = tuple(
                _sample(valkey, random.Random(f"{days} {pair}"), users, days, a_day) for pair in range(pairs)
            )
            rows.append(Row(f"user of {days} days, {a_day} impressions a day", "bytes", samples))
    return rows, [
        f"mean of {users} users who see {_CREATIVES} creatives at random; caps and interests of their retention",
        "beside: the same counters, a hash field of 14 bytes each",
    ]


def _sample(valkey: Valkey, rng: random.Random, users: int, days: int, a_day: int) -> Sample:
    packed = single = 0
    for _ in range(users):
        values = _values(rng, days, a_day)
        packed += _bytes(valkey, [part for pair in pack_counters(values).items() for part in pair])
        fields = [
            part
            for (counter, scope, start_s), value in values.items()
            for part in (_FIELD.pack(counter.code, scope_hash(scope), start_s), value)
        ]
        single += _bytes(valkey, fields)
    return packed / users, single / users


def _bytes(valkey: Valkey, hash_: list[bytes | int]) -> int:
    *_, used, _deleted = valkey.pipeline([("HSET", "user", *hash_), ("MEMORY", "USAGE", "user"), ("DEL", "user")])
    return int(used)


def _values(rng: random.Random, days: int, a_day: int) -> Values:
    """Counters of one user that are still of use."""
    values: Tally[tuple[Counter, str, int]] = Tally()
    for day in range(days):
        for _ in range(a_day):
            at_s = _NOW_S - day * DAY_S - rng.randrange(DAY_S if day else 6 * HOUR_S)
            creative = rng.randrange(_CREATIVES)
            ids = {
                "creative": f"cr-{creative}",
                "campaign": f"cmp-{creative // 3}",
                "advertiser": f"adv-{creative // 9}",
                "category": f"IAB{creative % _CATEGORIES}",
            }
            for counter in COUNTERS:
                start_s = at_s - at_s % counter.bucket_s
                of_use = start_s + counter.bucket_s + counter.retention_s > _NOW_S
                if counter.entity == "user" and "impression" in counter.event_types and of_use:
                    values[counter, ids[counter.scope], start_s] += 1
    return values
