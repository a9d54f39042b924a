"""Counters and features, declared once: Flink job, Spark job, materializer and reader all come from here.

A `Counter` counts events of some types (or sums their cost) for an entity in buckets of event time. A `Feature` is
computed by the reader from sums of counters over a rolling window that ends now. Sums of buckets do not depend on the
order of arrival, so stream, batch and replays agree exactly; a window's old edge is as fine as its counter's bucket.

Rates are shrunk to a prior by the posterior mean of the Beta-Binomial model, (clicks + a) / (impressions + a + b).
The prior is a constant, or empirical Bayes: the rate of a larger population that the entity belongs to, believed as
much as `prior_impressions` impressions. An ad's chain is ad, its advertiser's ads of that creative type, its
advertiser, the content category; a level without counts falls through to the one above it.
Source: Gelman et al., Bayesian Data Analysis, 3rd edition, 2013, §2.4 and §5.3; Casella 1985 (empirical Bayes).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
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
class Feature:
    """A model input. `numerator` and `denominator` are counters summed over `window_s`; without a denominator it is
    the plain sum, or `default` when no bucket is present.

    A rate (of clicks, or of completed views) is shrunk to `prior_clicks / prior_impressions`, or to the value of
    feature `parent`, with the weight of `prior_impressions`. `default` is that of a rate without parent of
    which no bucket is present.
    """

    name: str
    entity: EntityType
    numerator: str
    denominator: str | None
    window_s: int
    default: float
    owner: str
    prior_clicks: float = 0.0
    prior_impressions: float = 0.0
    parent: str | None = None


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

#: Rates of click and of completed view that an ad is believed to have before it was shown, and how firmly.
PRIOR_RATE, PRIOR_COMPLETION_RATE, PRIOR_IMPRESSIONS = 0.01, 0.5, 100.0


def rate(
    name: str, counters: str, bucket: str, window_s: int, parent: str | None = None, of: str = "clicks"
) -> Feature:
    """A rate of clicks, or `of` completes, of the entity that the counters are kept for."""
    shown = f"{counters}_impressions_{bucket}"
    prior = PRIOR_RATE if of == "clicks" else PRIOR_COMPLETION_RATE
    return Feature(
        name,
        COUNTER_BY_NAME[shown].entity,
        f"{counters}_{of}_{bucket}",
        shown,
        window_s,
        prior,
        "ranking",
        prior_clicks=prior * PRIOR_IMPRESSIONS,
        prior_impressions=PRIOR_IMPRESSIONS,
        parent=parent,
    )


def total(name: str, counter: str, window_s: int) -> Feature:
    """The sum of a counter over a window."""
    return Feature(name, COUNTER_BY_NAME[counter].entity, counter, None, window_s, 0.0, "ranking")


#: Version of FEATURES as a model's inputs: it grows with every change of the list or of a meaning. A feature whose
#: meaning changes gets another name, so that a model of an older version goes on reading what it was trained on.
FEATURES_VERSION = 3

FEATURES: tuple[Feature, ...] = (
    rate("creative_ctr_1h", "creative", "5m", HOUR_S),
    rate("creative_ctr_24h", "creative", "hour", DAY_S),
    total("creative_impressions_1h", "creative_impressions_5m", HOUR_S),
    rate("campaign_ctr_24h", "campaign", "hour", DAY_S),
    rate("placement_ctr_24h", "placement", "hour", DAY_S),
    total("user_category_impressions_24h", "user_category_impressions_hour", DAY_S),
    rate("user_category_ctr_24h", "user_category", "hour", DAY_S),
    total("user_creative_fatigue_7d", "user_creative_impressions_day", 7 * DAY_S),
    total("user_campaign_impressions_24h", "user_campaign_impressions_hour", DAY_S),
    # version 2
    rate("campaign_ctr_1h", "campaign", "5m", HOUR_S),
    rate("placement_ctr_1h", "placement", "5m", HOUR_S),
    total("creative_clicks_1h", "creative_clicks_5m", HOUR_S),
    total("creative_completes_1h", "creative_completes_5m", HOUR_S),
    total("creative_spend_micros_1h", "creative_cost_micros_5m", HOUR_S),
    rate("category_ctr_24h", "category", "hour", DAY_S),
    rate("advertiser_ctr_24h", "advertiser", "hour", DAY_S, parent="category_ctr_24h"),
    rate("creative_format_ctr_24h", "creative_format", "hour", DAY_S, parent="advertiser_ctr_24h"),
    rate("creative_shrunk_ctr_24h", "creative", "hour", DAY_S, parent="creative_format_ctr_24h"),
    # version 3: the same counters over shorter and longer windows. How lately a user saw an ad is told by how much of
    # the longer windows is in the shorter ones.
    rate("creative_ctr_15m", "creative", "5m", 15 * MINUTE_S),
    rate("creative_ctr_6h", "creative", "hour", 6 * HOUR_S),
    total("creative_impressions_24h", "creative_impressions_hour", DAY_S),
    total("creative_clicks_24h", "creative_clicks_hour", DAY_S),
    rate("campaign_completion_rate_24h", "campaign", "hour", DAY_S, of="completes"),
    rate(
        "creative_completion_rate_1h",
        "creative",
        "5m",
        HOUR_S,
        parent="campaign_completion_rate_24h",
        of="completes",
    ),
    rate("campaign_ctr_6h", "campaign", "hour", 6 * HOUR_S),
    total("campaign_impressions_1h", "campaign_impressions_5m", HOUR_S),
    total("campaign_impressions_24h", "campaign_impressions_hour", DAY_S),
    total("campaign_clicks_24h", "campaign_clicks_hour", DAY_S),
    rate("placement_ctr_15m", "placement", "5m", 15 * MINUTE_S),
    rate("placement_ctr_6h", "placement", "hour", 6 * HOUR_S),
    total("placement_impressions_1h", "placement_impressions_5m", HOUR_S),
    total("placement_impressions_24h", "placement_impressions_hour", DAY_S),
    rate("advertiser_ctr_6h", "advertiser", "hour", 6 * HOUR_S),
    total("advertiser_impressions_24h", "advertiser_impressions_hour", DAY_S),
    rate("creative_format_ctr_6h", "creative_format", "hour", 6 * HOUR_S),
    total("creative_format_impressions_24h", "creative_format_impressions_hour", DAY_S),
    rate("category_ctr_6h", "category", "hour", 6 * HOUR_S),
    total("category_impressions_24h", "category_impressions_hour", DAY_S),
    rate("user_category_ctr_6h", "user_category", "hour", 6 * HOUR_S),
    total("user_category_clicks_24h", "user_category_clicks_hour", DAY_S),
    total("user_creative_impressions_1h", "user_creative_impressions_minute", HOUR_S),
    total("user_creative_impressions_24h", "user_creative_impressions_hour", DAY_S),
    total("user_creative_impressions_3d", "user_creative_impressions_day", 3 * DAY_S),
    total("user_creative_impressions_lifetime", "user_creative_impressions_lifetime", LIFETIME_S),
    total("user_campaign_impressions_1h", "user_campaign_impressions_minute", HOUR_S),
    total("user_campaign_impressions_7d", "user_campaign_impressions_day", 7 * DAY_S),
    total("user_campaign_impressions_lifetime", "user_campaign_impressions_lifetime", LIFETIME_S),
    total("user_advertiser_impressions_1h", "user_advertiser_impressions_minute", HOUR_S),
    total("user_advertiser_impressions_24h", "user_advertiser_impressions_hour", DAY_S),
    total("user_advertiser_impressions_7d", "user_advertiser_impressions_day", 7 * DAY_S),
    total("user_advertiser_impressions_lifetime", "user_advertiser_impressions_lifetime", LIFETIME_S),
)
FEATURE_BY_NAME: dict[str, Feature] = {f.name: f for f in FEATURES}

#: Categorical model inputs, known at decision time, in model order after the numbers: AdEvent columns that make the
#: category's value; several are joined by `/`, and there is none when a part is absent (see `category_value`).
CATEGORIES: dict[str, tuple[str, ...]] = {
    "creative_id": ("creative_id",),
    "campaign_id": ("campaign_id",),
    "placement_id": ("placement_id",),
    "content_category": ("content_category",),
    "device_type": ("device_type",),
    "country": ("country",),
    # version 3
    "advertiser_id": ("advertiser_id",),
    "creative_format": ("creative_format",),
    "publisher_id": ("publisher_id",),
    "platform": ("platform",),
    "region": ("region",),
    "device_and_format": ("device_type", "creative_format"),
    "placement_and_format": ("placement_id", "creative_format"),
}
CATEGORICAL_FEATURES: tuple[str, ...] = tuple(CATEGORIES)
#: Other numeric inputs, of the decision's moment and place: hour of day (0-23) and of week (0-167, from Monday), UTC;
#: whether the content is live (0, 1); seconds of the creative, 0 for what has no length.
CONTEXT_FEATURES: tuple[str, ...] = ("hour_of_day", "hour_of_week", "live_content", "creative_duration_s")


def category_value(name: str, columns: Mapping[str, str | None]) -> str | None:
    """The value of a categorical input; None when a part of it is absent or empty.

    Example:
    >>> category_value("device_and_format", {"device_type": "ctv", "creative_format": "video"})
    'ctv/video'
    """
    parts = [columns.get(column) for column in CATEGORIES[name]]
    return "/".join(p for p in parts if p) if all(parts) else None


def hours(now_s: int) -> tuple[int, int]:
    """(hour of day, hour of week) of an epoch second.

    Example:
    >>> hours(1_767_614_400)  # 2026-01-05 12:00 UTC, a Monday
    (12, 12)
    """
    hour = now_s // HOUR_S
    return hour % 24, (hour + 72) % 168  # the epoch was a Thursday


def features_hash(values: Sequence[float]) -> str:
    """Names the numeric inputs of a decision: equal only for the same doubles of the same version of the features.

    Shape: values in the order of FEATURES and CONTEXT_FEATURES; 16 hex digits.

    Example:
    >>> features_hash([0.01, 3.0])
    'b2b81256520cff89'
    """
    packed = struct.pack(f"<i{len(values)}d", FEATURES_VERSION, *values)
    return hashlib.blake2b(packed, digest_size=8).hexdigest()


def model_inputs() -> tuple[str, ...]:
    """Names of the model's columns in order: counters' features, context, categories."""
    return tuple(f.name for f in FEATURES) + CONTEXT_FEATURES + CATEGORICAL_FEATURES


def feature_value(
    feature: Feature, numerator: int | None, denominator: int | None, parent_value: float | None = None
) -> float:
    """The value of a feature from sums of its counters; None means that no bucket was present.

    `parent_value` is the value of `feature.parent`, which must be given when the feature has one.

    Example:
    >>> feature_value(FEATURE_BY_NAME["creative_ctr_24h"], 3, 200)
    0.013333333333333334
    >>> feature_value(FEATURE_BY_NAME["creative_ctr_24h"], None, None)
    0.01
    >>> feature_value(FEATURE_BY_NAME["creative_shrunk_ctr_24h"], 3, 200, parent_value=0.03)
    0.02
    >>> feature_value(FEATURE_BY_NAME["creative_shrunk_ctr_24h"], None, None, parent_value=0.03)
    0.03
    """
    if feature.denominator is None:
        return feature.default if numerator is None else float(numerator)
    if feature.parent is not None:
        if parent_value is None:
            raise ValueError(f"{feature.name} is shrunk to {feature.parent}, whose value is not given")
        clicks = (numerator or 0) + parent_value * feature.prior_impressions
        return clicks / ((denominator or 0) + feature.prior_impressions)
    if denominator is None:
        return feature.default
    return ((numerator or 0) + feature.prior_clicks) / (denominator + feature.prior_impressions)


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
