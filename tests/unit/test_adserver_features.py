"""Features and caps as the ad server reads them, against the plain reference reader of the contract."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalog import FrequencyCap
from schemas.errors import ConfigError
from schemas.features import (
    COUNTER_BY_NAME,
    COUNTERS,
    FEATURES,
    feature_value,
    window_buckets,
)
from schemas.redis_layout import counter_field, sum_counter
from serving.adserver import caps
from serving.adserver.counters import CounterBlob
from serving.adserver.features import (
    DEFAULT,
    EXPIRED,
    MISSING,
    NUMERIC,
    PRESENT,
    EntityCounters,
    FeatureReader,
    entity_counters,
    entity_ids,
)
from serving.adserver.inventory import Inventory
from tests.samples.adserver import NOW_S, catalog

ADS = [{"id": n, "pricing": "cpm", "bid_micros": 1_000_000} for n in ("a", "b", "c")]
INVENTORY = Inventory(catalog(ADS))
IDS = {
    "creative": ["cr-a", "cr-b", "cr-c"],
    "campaign": ["cmp-a", "cmp-b", "cmp-c"],
    "advertiser": ["adv-a", "adv-b"],
    "category": ["IAB17", "IAB19"],
}


@st.composite
def _hash(draw: st.DrawFn, entity: str) -> dict[bytes, int]:
    """An entity's hash: any counters of its kind, any age up to nine days."""
    found: dict[bytes, int] = {}
    counters = [c for c in COUNTERS if c.entity == entity]
    for counter in draw(st.lists(st.sampled_from(counters), max_size=25)):
        at_s = NOW_S - draw(st.integers(0, 9 * 86_400))
        scope = draw(st.sampled_from(IDS[counter.scope])) if counter.scope else ""
        found[counter_field(counter, scope, at_s - at_s % counter.bucket_s)] = draw(st.integers(0, 50))
    return found


def _reply(values: dict[bytes, int]) -> list[bytes]:
    return [x for field, value in values.items() for x in (field, str(value).encode())]


def _reference(name: str, values: dict[bytes, int], scope: str) -> float:
    feature = next(f for f in FEATURES if f.name == name)

    def total(counter_name: str) -> int | None:
        counter = COUNTER_BY_NAME[counter_name]
        return sum_counter(
            values,
            counter,
            scope if counter.scope else "",
            *window_buckets(NOW_S, feature.window_s, counter.bucket_s),
        )

    below = total(feature.denominator) if feature.denominator else None
    return feature_value(feature, total(feature.numerator), below)


@settings(max_examples=60, deadline=None)
@given(
    user=_hash("user"),
    creatives=st.lists(_hash("creative"), min_size=3, max_size=3),
    campaigns=st.lists(_hash("campaign"), min_size=3, max_size=3),
    placement=_hash("placement"),
)
def test_every_value_equals_the_reference_reader(
    user: dict[bytes, int],
    creatives: list[dict[bytes, int]],
    campaigns: list[dict[bytes, int]],
    placement: dict[bytes, int],
) -> None:
    ids = entity_ids(INVENTORY)
    replies = {
        "creative": [_reply(v) for v in creatives],
        "campaign": [_reply(v) for v in campaigns],
        "placement": [_reply(placement), []],
    }
    counters = entity_counters(ids, replies, NOW_S)
    rows = list(reversed(INVENTORY.rows))
    values, status = FeatureReader(60.0).matrix(
        INVENTORY, rows, "pl-video", "IAB17", CounterBlob(_reply(user)), counters, NOW_S
    )
    for line, row in zip(values, rows, strict=True):
        scopes = {"creative": row.creative.id, "campaign": row.campaign.id, "category": "IAB17", "": ""}
        sources = {
            "user": user,
            "creative": creatives[row.row],
            "campaign": campaigns[row.row],
            "placement": placement,
        }
        for feature in FEATURES:
            scope = scopes[COUNTER_BY_NAME[feature.numerator].scope]
            expected = _reference(feature.name, sources[feature.entity], scope)
            assert line[NUMERIC.index(feature.name)] == pytest.approx(expected, abs=1e-15), feature.name
        assert line[NUMERIC.index("hour_of_day")] == 12
    assert status == {
        "user": PRESENT if user else MISSING,
        "creative": PRESENT,
        "campaign": PRESENT,
        "placement": PRESENT,
    }


def test_without_counters_every_feature_has_its_default() -> None:
    reader = FeatureReader(60.0)
    defaults = [f.default for f in FEATURES]
    for counters, state in ((EntityCounters(0.0), MISSING), (EntityCounters(NOW_S - 61.0), EXPIRED)):
        values, status = reader.matrix(INVENTORY, INVENTORY.rows, "pl-video", "IAB17", None, counters, NOW_S)
        assert np.array_equal(values[:, : len(FEATURES)], [defaults] * 3)
        assert status == {"user": DEFAULT, "creative": state, "campaign": state, "placement": state}


def test_fields_that_are_not_ours_are_left_out() -> None:
    counter = COUNTER_BY_NAME["user_campaign_impressions_hour"]
    blob = CounterBlob([b"odd", b"3", counter_field(counter, "cmp-a", NOW_S), b"4"])
    assert sum(blob.sums(counter.code, NOW_S, NOW_S).values()) == 4


@settings(max_examples=100, deadline=None)
@given(
    user=_hash("user"),
    scope=st.sampled_from(caps.SCOPES),
    window_s=st.integers(60, 7 * 86_400),
    limit=st.integers(0, 60),
)
def test_a_cap_never_allows_more_than_its_limit_in_any_window(
    user: dict[bytes, int], scope: str, window_s: int, limit: int
) -> None:
    """Whatever impressions could lie inside the window are counted: those of every bucket that it touches."""
    ids = {"creative": "cr-a", "campaign": "cmp-a", "advertiser": "adv-a"}
    (rule,) = caps.cap_rules([FrequencyCap(scope, limit, window_s)], ids)
    counter = rule.counter
    oldest = NOW_S - window_s
    seen = sum_counter(user, counter, ids[scope], oldest - oldest % counter.bucket_s, NOW_S) or 0
    allowed = caps.allowed([rule], CounterBlob(_reply(user)), {}, NOW_S)
    if seen >= limit:
        assert not allowed
    assert not caps.allowed([rule], CounterBlob(_reply(user)), {rule.scope: limit}, NOW_S)


@pytest.mark.parametrize(
    "cap",
    [FrequencyCap("galaxy", 1, 60), FrequencyCap("campaign", 1, 90 * 86_400), FrequencyCap("campaign", 1, 0)],
)
def test_a_cap_that_can_not_be_kept_is_refused_with_the_catalogue(cap: FrequencyCap) -> None:
    with pytest.raises(ConfigError, match="frequency cap"):
        caps.cap_rules([cap], {"campaign": "c", "creative": "c", "advertiser": "a"})
