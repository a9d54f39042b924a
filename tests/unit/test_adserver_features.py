"""Features and caps as the ad server reads them, against the plain reference reader of the contract."""

from __future__ import annotations

import math
from collections import Counter as Tally

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalog import FrequencyCap
from schemas.counters import COUNTER_BY_NAME, COUNTERS, GRAINS, LIFETIME_S, Counter, grain_of, window_buckets
from schemas.errors import ConfigError
from schemas.features import FEATURE_BY_NAME, FEATURES, feature_value, features_hash
from schemas.redis_layout import OpenWins, expired_fields, pack_counters, sum_counter
from serving.adserver.auction.entrants import places_of
from serving.adserver.decision import Decision
from serving.adserver.features.columns import COLUMNS, ENTITIES
from serving.adserver.features.counters import CounterBlob
from serving.adserver.features.inputs import InputPool
from serving.adserver.features.reader import DEFAULT, EXPIRED, MISSING, PRESENT, Asked, FeatureReader
from serving.adserver.features.snapshot import EntityCounters, Table, entity_counters, entity_ids
from serving.adserver.features.status import each_status
from serving.adserver.inventory import Inventory
from serving.adserver.limits import caps
from serving.adserver.limits.budget import in_flight
from tests.samples.adserver import NOW_S, catalog

READER = FeatureReader(60.0)
ADS = [{"id": n, "pricing": "cpm", "bid_micros": 1_000_000} for n in ("a", "b", "c")]
INVENTORY = Inventory(catalog(ADS))
IDS = {
    "creative": ["cr-a", "cr-b", "cr-c"],
    "campaign": ["cmp-a", "cmp-b", "cmp-c"],
    "advertiser": ["adv-a", "adv-b"],
    "category": ["IAB17", "IAB19"],
}


@st.composite
def _hash(draw: st.DrawFn, entity: str) -> dict[bytes, bytes]:
    """An entity's hash: any counters of its kind, any age up to nine days."""
    found = {}
    counters = [c for c in COUNTERS if c.entity == entity]
    for counter in draw(st.lists(st.sampled_from(counters), max_size=25)):
        at_s = NOW_S - draw(st.integers(0, 9 * 86_400))
        scope = draw(st.sampled_from(IDS[counter.scope])) if counter.scope else ""
        found[counter, scope, at_s - at_s % counter.bucket_s] = draw(st.integers(1, 50))
    return pack_counters(found)


def _reply(values: dict[bytes, bytes]) -> list[bytes]:
    return [part for pair in values.items() for part in pair]


def _reference(name: str, sources: dict[str, dict[bytes, bytes]], scopes: dict[str, str]) -> float:
    feature = FEATURE_BY_NAME[name]
    values = sources[feature.entity]

    def total(counter_name: str) -> int | None:
        counter = COUNTER_BY_NAME[counter_name]
        window = window_buckets(NOW_S, feature.window_s, counter.bucket_s)
        return sum_counter(values, counter, scopes[counter.scope], *window)

    below = total(feature.denominator) if feature.denominator else None
    parent = _reference(feature.parent, sources, scopes) if feature.parent else None
    return feature_value(feature, total(feature.numerator), below, parent)


@settings(max_examples=60, deadline=None)
@given(
    user=_hash("user"),
    creatives=st.lists(_hash("creative"), min_size=3, max_size=3),
    campaigns=st.lists(_hash("campaign"), min_size=3, max_size=3),
    advertisers=st.lists(_hash("advertiser"), min_size=3, max_size=3),
    formats=st.lists(_hash("creative_format"), min_size=3, max_size=3),
    placement=_hash("placement"),
    category=_hash("category"),
)
def test_every_value_equals_the_reference_reader(
    user: dict[bytes, bytes],
    creatives: list[dict[bytes, bytes]],
    campaigns: list[dict[bytes, bytes]],
    advertisers: list[dict[bytes, bytes]],
    formats: list[dict[bytes, bytes]],
    placement: dict[bytes, bytes],
    category: dict[bytes, bytes],
) -> None:
    ids = entity_ids(INVENTORY)
    assert ids["creative_format"] == ["adv-a/video", "adv-b/video", "adv-c/video"]
    replies = {
        "creative": [_reply(v) for v in creatives],
        "campaign": [_reply(v) for v in campaigns],
        "advertiser": [_reply(v) for v in advertisers],
        "creative_format": [_reply(v) for v in formats],
        "placement": [_reply(placement) if name == "pl-video" else [] for name in ids["placement"]],
        "category": [_reply(category) if name == "IAB17" else [] for name in ids["category"]],
    }
    counters = entity_counters(INVENTORY, {e: Table(r) for e, r in replies.items()}, NOW_S)
    rows = list(reversed(INVENTORY.rows))
    blob = CounterBlob(_reply(user))
    for _ in range(2):  # the reader keeps arrays from one request to the next
        inputs, status = READER.read(
            INVENTORY, places_of(rows), Asked("pl-video", "IAB17", True), blob, counters, NOW_S
        )
        inputs.release()
    for row in rows:
        line = inputs.of(row)
        scopes = {"creative": row.creative.id, "campaign": row.campaign.id, "category": "IAB17", "": ""}
        scopes["advertiser"] = row.advertiser.id
        sources = {
            "user": user,
            "creative": creatives[row.row],
            "campaign": campaigns[row.row],
            "advertiser": advertisers[row.row],
            "creative_format": formats[row.row],
            "placement": placement,
            "category": category,
        }
        for feature in FEATURES:
            expected = _reference(feature.name, sources, scopes)
            assert line[COLUMNS.row[feature.name]] == pytest.approx(expected, abs=1e-15), feature.name
        assert line[-4:] == [12.0, 12.0, 1.0, 15.0]
    assert status == {"user": PRESENT if user else MISSING, **dict.fromkeys(ENTITIES, PRESENT)}


def test_what_the_request_names_and_nobody_knows_is_missing_and_falls_through() -> None:
    shown, clicks = (COUNTER_BY_NAME[f"advertiser_{what}_hour"] for what in ("impressions", "clicks"))
    hour_s = NOW_S - NOW_S % 3600
    replies: dict[str, list[list[bytes]]] = {entity: [[] for _ in ids] for entity, ids in entity_ids(INVENTORY).items()}
    replies["advertiser"][0] = _reply(pack_counters({(shown, "", hour_s): 300, (clicks, "", hour_s): 27}))
    counters = entity_counters(INVENTORY, {e: Table(r) for e, r in replies.items()}, NOW_S)
    inputs, status = READER.read(INVENTORY, places_of(INVENTORY.rows), Asked("elsewhere"), None, counters, NOW_S)
    values = inputs.values[:, :3]
    assert (status["placement"], status["category"], status["user"]) == (MISSING, MISSING, DEFAULT)
    assert values[COLUMNS.row["category_ctr_24h"], 0] == 0.01
    # (27 + 0.01 * 100) / (300 + 100), and the levels below have nothing to add to it
    for name in ("advertiser_ctr_24h", "creative_format_ctr_24h", "creative_shrunk_ctr_24h"):
        assert values[COLUMNS.row[name]] == pytest.approx([0.07, 0.01, 0.01])
    each = [each_status(dict(zip(COLUMNS.names, inputs.of(row), strict=True)), status) for row in INVENTORY.rows[:2]]
    assert [e["advertiser_ctr_24h"] for e in each] == [PRESENT, DEFAULT], "only the first advertiser was counted"
    assert each[0]["creative_shrunk_ctr_24h"] == DEFAULT, "all of it is its advertiser's"
    assert each[0]["category_ctr_24h"] == MISSING and each[0]["hour_of_day"] == PRESENT
    assert {e for name, e in each[0].items() if name.startswith("user_")} == {DEFAULT}
    assert each[0].keys() == set(COLUMNS.names)


def test_without_counters_every_feature_has_its_default() -> None:
    defaults = [[f.default] * 3 for f in FEATURES]
    for counters, state in ((EntityCounters(0.0), MISSING), (EntityCounters(NOW_S - 61.0), EXPIRED)):
        inputs, status = READER.read(
            INVENTORY, places_of(INVENTORY.rows), Asked("pl-video", "IAB17"), None, counters, NOW_S
        )
        assert np.array_equal(inputs.values[: len(FEATURES), :3], defaults)
        assert status == {"user": DEFAULT, **dict.fromkeys(ENTITIES, state)}
        inputs.release()


def test_an_array_is_lent_to_one_at_a_time_and_reused() -> None:
    pool = InputPool(3)
    first, second = pool.lease(INVENTORY, np.arange(2)), pool.lease(INVENTORY, np.arange(2))
    assert first.values is not second.values
    kept = first.values
    first.release()
    first.release()  # a second time changes nothing
    third, fourth = pool.lease(INVENTORY, np.arange(3)), pool.lease(INVENTORY, np.arange(3))
    assert third.values is kept and fourth.values is not kept
    assert pool.lease(INVENTORY, np.arange(300)).values.shape == (3, 320)


def test_the_hash_of_inputs_is_that_of_their_bits() -> None:
    inputs, _ = READER.read(INVENTORY, places_of(INVENTORY.rows), Asked("pl-video"), None, EntityCounters(0.0), NOW_S)
    values = inputs.of(INVENTORY.rows[1])
    assert len(values) == len(COLUMNS.names)
    kept = Decision(opportunity=None)  # type: ignore[arg-type]  # its inputs need none
    kept.keep_inputs(values)
    assert list(kept.features) == list(COLUMNS.names)
    assert kept.features_hash == features_hash(list(kept.features.values()))
    for n in range(len(values)):
        changed = [*values[:n], math.nextafter(values[n], 1e9), *values[n + 1 :]]
        assert features_hash(changed) != kept.features_hash
    not_scored = Decision(opportunity=None)  # type: ignore[arg-type]
    not_scored.keep_inputs([])
    assert not_scored.features_hash is None


def test_fields_that_are_not_ours_are_left_out() -> None:
    counter = COUNTER_BY_NAME["user_campaign_impressions_minute"]
    blob = CounterBlob([b"odd", b"3", *_reply(pack_counters({(counter, "cmp-a", NOW_S): 4})), b"sixsix", b"odd"])
    assert sum(blob.sums(counter.code, NOW_S, NOW_S).values()) == 4


ANY_WINDOW = st.one_of(st.none(), st.integers(1, GRAINS[-1].longest_window_s))


@settings(max_examples=200, deadline=None)
@given(
    ages_s=st.lists(st.integers(0, 40 * 86_400), max_size=60),
    scope=st.sampled_from(caps.SCOPES),
    window_s=ANY_WINDOW,
    limit=st.integers(0, 60),
    now_s=st.integers(NOW_S - 86_400, NOW_S),
)
def test_a_window_is_never_counted_short_and_less_than_a_bucket_long(
    ages_s: list[int], scope: str, window_s: int | None, limit: int, now_s: int
) -> None:
    """Against a plain list of impressions, kept in the buckets that the stream keeps."""
    ids = {"creative": "cr-a", "campaign": "cmp-a", "advertiser": "adv-a"}
    times_s = [now_s - age for age in ages_s]
    values = Tally[tuple[Counter, str, int]]()
    for counter in COUNTERS:
        if counter.entity == "user" and counter.family == "frequency":
            values.update((counter, ids[counter.scope], t - t % counter.bucket_s) for t in times_s)
    packed = pack_counters(values)
    for field in expired_fields(packed, now_s):  # what is pruned is never missed
        del packed[field]
    blob = CounterBlob(_reply(packed))
    (rule,) = caps.cap_rules([FrequencyCap(scope, limit, window_s)], ids)
    seen = caps.seen(rule, blob, now_s)
    reach_s = LIFETIME_S if window_s is None else window_s
    assert seen >= sum(t > now_s - reach_s for t in times_s)
    assert seen <= sum(t > now_s - reach_s - grain_of(window_s).bucket_s for t in times_s)
    lives = caps.Lives(120_000, 3_600_000, now_s * 1000)
    request = caps.RequestCaps(blob, caps.PendingRead(), lives, now_s * 1000)
    assert request.allowed([rule]) == (seen < limit)
    watched = caps.watched([rule])
    suspects = request.suspects({rule.kind})
    assert suspects is not None and (watched is None) == (limit < 1), "a limit of 0 is always looked at"
    if watched is not None:
        assert suspects.isdisjoint(watched) == (seen < limit), "who is not looked at has room, who has none is"
    for _ in range(limit):
        request.won([rule.pending_scope])
    assert not request.allowed([rule])
    if watched is not None:
        assert not (request.suspects({rule.kind}) or set()).isdisjoint(watched), "what it has won is looked at"
    assert caps.seen(caps.cap_rules([FrequencyCap(scope, 1, None)], ids)[0], blob, now_s) == len(times_s)


@given(
    minutes=st.dictionaries(
        st.integers(0, 300).map(lambda m: NOW_S - 60 * m),
        st.tuples(st.integers(1, 10_000), st.integers(0, 20), st.integers(1, 20)),
        max_size=20,
    ),
    win_open_s=st.integers(60, 7_200),
)
def test_what_is_predicted_lies_between_nothing_and_all_that_is_open(
    minutes: dict[int, tuple[int, int, int]], win_open_s: int
) -> None:
    wins = {
        start_s: OpenWins(price * n, price * min(confirmed, n), n, min(confirmed, n))
        for start_s, (price, confirmed, n) in minutes.items()
    }
    found = in_flight(wins, NOW_S, win_open_s)
    young = [m for start_s, m in wins.items() if NOW_S - start_s < win_open_s + 60]
    assert found.open_micros == sum(m.won_micros - m.confirmed_micros for m in young)
    assert 0 <= found.predicted_micros <= found.open_micros
    assert in_flight(wins, NOW_S + 86_400, win_open_s).open_micros == 0


@pytest.mark.parametrize(
    "cap",
    [FrequencyCap("galaxy", 1, 60), FrequencyCap("campaign", 1, 90 * 86_400), FrequencyCap("campaign", 1, 0)],
)
def test_a_cap_that_can_not_be_kept_is_refused_with_the_catalogue(cap: FrequencyCap) -> None:
    with pytest.raises(ConfigError, match="frequency cap"):
        caps.cap_rules([cap], {"campaign": "c", "creative": "c", "advertiser": "a"})


def test_what_is_kept_of_a_snapshot_ends_with_it() -> None:
    asked, own = Asked("pl-video", "IAB17"), places_of(INVENTORY.rows)
    for clicks in (3, 7):
        replies = {e: [[] for _ in ids] for e, ids in entity_ids(INVENTORY).items()}
        counter = COUNTER_BY_NAME["creative_clicks_5m"]
        at_s = NOW_S - NOW_S % counter.bucket_s
        replies["creative"][0] = [
            part for pair in pack_counters({(counter, "", at_s): clicks}).items() for part in pair
        ]
        counters = entity_counters(INVENTORY, {e: Table(found) for e, found in replies.items()}, NOW_S)
        for _ in range(2):
            inputs, _status = READER.read(INVENTORY, own, asked, None, counters, NOW_S)
            assert inputs.values[COLUMNS.row["creative_clicks_1h"], 0] == clicks
            inputs.values[:] = -1.0  # what a request does to its array stays its own
            inputs.release()
