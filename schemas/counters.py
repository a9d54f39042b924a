"""Counters, declared once: Flink job, Spark job, materializer and readers all come from here.

A `Counter` counts events of some types (or sums their cost) for an entity in buckets of event time. Sums of buckets do
not depend on the order of arrival, so stream, batch and replays agree exactly; a window's old edge is as fine as its
counter's bucket. What a model sees of them is in `schemas/features.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

EntityType = Literal[
    "user", "household", "creative", "campaign", "placement", "advertiser", "creative_format", "category"
]
Scope = Literal["", "creative", "campaign", "advertiser", "category"]
Family = Literal["frequency", "features"]
Measure = Literal["events", "cost_micros"]

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400
#: The bucket that never ends: its only start is 0, and 32 bits of seconds never reach its end.
LIFETIME_S = 2**32
#: How long a lifetime bucket is kept after its last change.
LIFETIME_KEPT_S = 400 * DAY_S

#: AdEvent columns that make an entity's or a scope's id; several are joined by `/`.
ID_COLUMNS: dict[str, tuple[str, ...]] = {
    "user": ("user_pseudonym",),
    "household": ("household_pseudonym",),
    "creative": ("creative_id",),
    "campaign": ("campaign_id",),
    "placement": ("placement_id",),
    "advertiser": ("advertiser_id",),
    "creative_format": ("advertiser_id", "creative_format"),
    "category": ("content_category",),
}
#: An entity that stands in for another: it is counted only for events that have no id of that one, so an impression
#: is counted for its user or, of an unknown user, for its household: never for both.
STANDS_IN_FOR: dict[str, str] = {"household": "user"}


def id_of(kind: str, columns: Mapping[str, Any]) -> str | None:
    """The id of an entity or scope in an event (or in any row with its columns); None when a part is absent or empty.

    Example:
    >>> id_of("creative_format", {"advertiser_id": "adv-1", "creative_format": "video"})
    'adv-1/video'
    >>> id_of("household", {"household_pseudonym": "v1:h", "user_pseudonym": "v1:u"}) is None
    True
    """
    instead_of = STANDS_IN_FOR.get(kind)
    if instead_of is not None and id_of(instead_of, columns) is not None:
        return None
    parts = [columns[name] for name in ID_COLUMNS[kind]]
    return "/".join(parts) if all(parts) else None


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts events of `event_types`, or sums their `measure`, per entity, scope and bucket.

    `code` (1 to 255) names it in the packed values of its entity, for ever. A bucket is of use until `retention_s`
    after its end; an event that is published later is not counted in it.
    """

    name: str
    code: int
    entity: EntityType
    scope: Scope
    event_types: tuple[str, ...]
    bucket_s: int
    retention_s: int
    family: Family = "features"
    measure: Measure = "events"


@dataclass(frozen=True, slots=True)
class Grain:
    """A length of bucket in which impressions of a viewer are kept, and the longest window that it serves."""

    name: str
    bucket_s: int
    longest_window_s: int


#: From fine to coarse. A window is summed in the finest grain that is kept for long enough.
GRAINS: tuple[Grain, ...] = (
    Grain("minute", MINUTE_S, HOUR_S),
    Grain("hour", HOUR_S, 48 * HOUR_S),
    Grain("day", DAY_S, 31 * DAY_S),
)
LIFETIME = Grain("lifetime", LIFETIME_S, LIFETIME_S)

_CAPPED: tuple[Scope, ...] = ("creative", "campaign", "advertiser")
_USER_FREQUENCY: tuple[Counter, ...] = tuple(
    Counter(
        f"user_{scope}_impressions_{grain.name}",
        code,
        "user",
        scope,
        ("impression",),
        grain.bucket_s,
        LIFETIME_KEPT_S if grain is LIFETIME else grain.longest_window_s,
        family="frequency",
    )
    # in order of bucket length: the stream job expects the counters of one bucket beside each other
    for grain, codes in zip((*GRAINS, LIFETIME), ((7, 8, 9), (1, 3, 5), (2, 4, 6), (10, 11, 12)), strict=True)
    for scope, code in zip(_CAPPED, codes, strict=True)
)
FREQUENCY_COUNTERS: tuple[Counter, ...] = (
    *_USER_FREQUENCY,
    *(replace(c, name=c.name.replace("user_", "household_", 1), entity="household") for c in _USER_FREQUENCY),
)


def _ad_counters(entity: EntityType, bucket: str, codes: Mapping[str, int]) -> tuple[Counter, ...]:
    """Counters of an entity's ads by what they count; `5m` for windows of an hour, `hour` for windows of a day."""
    bucket_s, retention_s = (5 * MINUTE_S, 2 * HOUR_S) if bucket == "5m" else (HOUR_S, 25 * HOUR_S)
    found = []
    for what, code in codes.items():
        name = f"{entity}_{what}_{bucket}"
        if what == "cost_micros":
            types: tuple[str, ...] = ("click", "impression")
            found.append(Counter(name, code, entity, "", types, bucket_s, retention_s, measure="cost_micros"))
        else:
            found.append(Counter(name, code, entity, "", (what.removesuffix("s"),), bucket_s, retention_s))
    return tuple(found)


FEATURE_COUNTERS: tuple[Counter, ...] = (
    *_ad_counters("creative", "5m", {"impressions": 20, "clicks": 21, "completes": 35, "cost_micros": 36}),
    *_ad_counters("creative", "hour", {"impressions": 22, "clicks": 23}),
    *_ad_counters("campaign", "5m", {"impressions": 31, "clicks": 32}),
    *_ad_counters("campaign", "hour", {"impressions": 24, "clicks": 25, "completes": 26}),
    *_ad_counters("placement", "5m", {"impressions": 33, "clicks": 34}),
    *_ad_counters("placement", "hour", {"impressions": 27, "clicks": 28}),
    *_ad_counters("advertiser", "hour", {"impressions": 37, "clicks": 38}),
    *_ad_counters("creative_format", "hour", {"impressions": 39, "clicks": 40}),
    *_ad_counters("category", "hour", {"impressions": 41, "clicks": 42}),
    Counter("user_category_impressions_hour", 29, "user", "category", ("impression",), HOUR_S, 25 * HOUR_S),
    Counter("user_category_clicks_hour", 30, "user", "category", ("click",), HOUR_S, 25 * HOUR_S),
)

COUNTERS: tuple[Counter, ...] = FREQUENCY_COUNTERS + FEATURE_COUNTERS
COUNTER_BY_NAME: dict[str, Counter] = {c.name: c for c in COUNTERS}


def window_buckets(now_s: int, window_s: int, bucket_s: int) -> tuple[int, int]:
    """First and last bucket start (inclusive, epoch s) that a feature's rolling window ending at `now_s` sums.

    The window takes the running bucket and as many whole ones before it as fit: `window_s / bucket_s` in all.

    Example:
    >>> window_buckets(7200 + 10, 3600, 300)
    (3900, 7200)
    """
    last = now_s - now_s % bucket_s
    return last - window_s + bucket_s, last


def touched_buckets(now_s: int, window_s: int, bucket_s: int) -> tuple[int, int]:
    """First and last bucket start (inclusive, epoch s) of all buckets that a window ending at `now_s` touches.

    What is summed over them is never less than what lies in the window, and reaches back less than a bucket further.

    Example:
    >>> touched_buckets(7200 + 10, 3600, 60)
    (3600, 7200)
    """
    first = now_s - window_s
    return first - first % bucket_s, now_s - now_s % bucket_s


def grain_of(window_s: int | None) -> Grain:
    """The grain in which impressions of a window are summed; None is a lifetime.

    Errors: ValueError when no bucket is kept for that long.

    Example:
    >>> grain_of(60).name, grain_of(3_601).name, grain_of(7 * 86_400).name, grain_of(None).name
    ('minute', 'hour', 'day', 'lifetime')
    """
    if window_s is None:
        return LIFETIME
    for grain in GRAINS:
        if window_s <= grain.longest_window_s:
            return grain
    raise ValueError(f"no impressions are kept for a window of {window_s} s; the longest is {GRAINS[-1]}")
