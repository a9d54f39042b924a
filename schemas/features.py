"""Features, declared once: streaming job, batch job, trainer and ad server all come from here.

A `Feature` is computed by the reader from sums of counters (`schemas/counters.py`) over a rolling window that ends now.

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
from dataclasses import dataclass

from schemas.counters import COUNTER_BY_NAME, DAY_S, HOUR_S, LIFETIME_S, MINUTE_S, EntityType


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
