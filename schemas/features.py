"""Counters and features, declared once: Flink job, Spark job, materializer and reader all come from here.

A `Counter` counts events of some types for an entity in buckets of event time. A `Feature` is computed by the reader
from sums of counters over a rolling window that ends now. Sums of buckets do not depend on the order of arrival, so
stream, batch and replays agree exactly; a window's edge is as fine as its counter's bucket.
Shrinkage of rates: Beta-Binomial posterior mean (clicks + a) / (impressions + a + b).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EntityType = Literal["user", "creative", "campaign", "placement"]
Scope = Literal["", "creative", "campaign", "advertiser", "category"]

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400

#: AdEvent column that holds an entity's or a scope's id.
ID_COLUMNS: dict[str, str] = {
    "user": "user_pseudonym",
    "creative": "creative_id",
    "campaign": "campaign_id",
    "placement": "placement_id",
    "advertiser": "advertiser_id",
    "category": "content_category",
}


@dataclass(frozen=True, slots=True)
class Counter:
    """Counts events of `event_types` per entity, scope and bucket. `code` names it in packed fields, for ever."""

    name: str
    code: int
    entity: EntityType
    scope: Scope
    event_types: tuple[str, ...]
    bucket_s: int
    retention_s: int


@dataclass(frozen=True, slots=True)
class Feature:
    """A model input. `numerator` and `denominator` are counters summed over `window_s`; without a denominator it is
    the plain sum. Rates are shrunk with the prior (`prior_clicks`, `prior_impressions`).
    `default` is used when no counter is present.
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


FREQUENCY_COUNTERS: tuple[Counter, ...] = (
    Counter("user_creative_impressions_hour", 1, "user", "creative", ("impression",), HOUR_S, 25 * HOUR_S),
    Counter("user_creative_impressions_day", 2, "user", "creative", ("impression",), DAY_S, 31 * DAY_S),
    Counter("user_campaign_impressions_hour", 3, "user", "campaign", ("impression",), HOUR_S, 25 * HOUR_S),
    Counter("user_campaign_impressions_day", 4, "user", "campaign", ("impression",), DAY_S, 31 * DAY_S),
    Counter("user_advertiser_impressions_hour", 5, "user", "advertiser", ("impression",), HOUR_S, 25 * HOUR_S),
    Counter("user_advertiser_impressions_day", 6, "user", "advertiser", ("impression",), DAY_S, 31 * DAY_S),
)

FEATURE_COUNTERS: tuple[Counter, ...] = (
    Counter("creative_impressions_5m", 20, "creative", "", ("impression",), 5 * MINUTE_S, 2 * HOUR_S),
    Counter("creative_clicks_5m", 21, "creative", "", ("click",), 5 * MINUTE_S, 2 * HOUR_S),
    Counter("creative_impressions_hour", 22, "creative", "", ("impression",), HOUR_S, 25 * HOUR_S),
    Counter("creative_clicks_hour", 23, "creative", "", ("click",), HOUR_S, 25 * HOUR_S),
    Counter("campaign_impressions_hour", 24, "campaign", "", ("impression",), HOUR_S, 25 * HOUR_S),
    Counter("campaign_clicks_hour", 25, "campaign", "", ("click",), HOUR_S, 25 * HOUR_S),
    Counter("campaign_completes_hour", 26, "campaign", "", ("complete",), HOUR_S, 25 * HOUR_S),
    Counter("placement_impressions_hour", 27, "placement", "", ("impression",), HOUR_S, 25 * HOUR_S),
    Counter("placement_clicks_hour", 28, "placement", "", ("click",), HOUR_S, 25 * HOUR_S),
    Counter("user_category_impressions_hour", 29, "user", "category", ("impression",), HOUR_S, 25 * HOUR_S),
    Counter("user_category_clicks_hour", 30, "user", "category", ("click",), HOUR_S, 25 * HOUR_S),
)

COUNTERS: tuple[Counter, ...] = FREQUENCY_COUNTERS + FEATURE_COUNTERS
COUNTER_BY_NAME: dict[str, Counter] = {c.name: c for c in COUNTERS}
COUNTER_BY_CODE: dict[int, Counter] = {c.code: c for c in COUNTERS}

_PRIOR = {"prior_clicks": 1.0, "prior_impressions": 100.0}

FEATURES: tuple[Feature, ...] = (
    Feature(
        "creative_ctr_1h",
        "creative",
        "creative_clicks_5m",
        "creative_impressions_5m",
        HOUR_S,
        0.01,
        "ranking",
        **_PRIOR,
    ),
    Feature(
        "creative_ctr_24h",
        "creative",
        "creative_clicks_hour",
        "creative_impressions_hour",
        DAY_S,
        0.01,
        "ranking",
        **_PRIOR,
    ),
    Feature("creative_impressions_1h", "creative", "creative_impressions_5m", None, HOUR_S, 0.0, "ranking"),
    Feature(
        "campaign_ctr_24h",
        "campaign",
        "campaign_clicks_hour",
        "campaign_impressions_hour",
        DAY_S,
        0.01,
        "ranking",
        **_PRIOR,
    ),
    Feature(
        "placement_ctr_24h",
        "placement",
        "placement_clicks_hour",
        "placement_impressions_hour",
        DAY_S,
        0.01,
        "ranking",
        **_PRIOR,
    ),
    Feature("user_category_impressions_24h", "user", "user_category_impressions_hour", None, DAY_S, 0.0, "ranking"),
    Feature(
        "user_category_ctr_24h",
        "user",
        "user_category_clicks_hour",
        "user_category_impressions_hour",
        DAY_S,
        0.01,
        "ranking",
        **_PRIOR,
    ),
    Feature("user_creative_fatigue_7d", "user", "user_creative_impressions_day", None, 7 * DAY_S, 0.0, "ranking"),
    Feature("user_campaign_impressions_24h", "user", "user_campaign_impressions_hour", None, DAY_S, 0.0, "ranking"),
)
FEATURE_BY_NAME: dict[str, Feature] = {f.name: f for f in FEATURES}

#: Categorical model inputs, known at decision time, in model order after FEATURES.
CATEGORICAL_FEATURES: tuple[str, ...] = (
    "creative_id",
    "campaign_id",
    "placement_id",
    "content_category",
    "device_type",
    "country",
)
#: Other numeric inputs: the hour of day (0-23, UTC) of the decision.
CONTEXT_FEATURES: tuple[str, ...] = ("hour_of_day",)


def model_inputs() -> tuple[str, ...]:
    """Names of the model's columns in order: counters' features, context, categories."""
    return tuple(f.name for f in FEATURES) + CONTEXT_FEATURES + CATEGORICAL_FEATURES


def feature_value(feature: Feature, numerator: int | None, denominator: int | None) -> float:
    """The value of a feature from sums of its counters; None means that no bucket was present.

    Example:
    >>> feature_value(FEATURE_BY_NAME["creative_ctr_24h"], 3, 200)
    0.013333333333333334
    >>> feature_value(FEATURE_BY_NAME["creative_ctr_24h"], None, None)
    0.01
    """
    if feature.denominator is None:
        return feature.default if numerator is None else float(numerator)
    if denominator is None:
        return feature.default
    return ((numerator or 0) + feature.prior_clicks) / (denominator + feature.prior_impressions)


def window_buckets(now_s: int, window_s: int, bucket_s: int) -> tuple[int, int]:
    """First and last bucket start (inclusive, epoch s) that a rolling window ending at `now_s` sums.

    The window takes the running bucket and as many whole ones before it as fit: `window_s / bucket_s` in all.

    Example:
    >>> window_buckets(7200 + 10, 3600, 300)
    (3900, 7200)
    """
    last = now_s - now_s % bucket_s
    return last - window_s + bucket_s, last
