"""The contracts keep their own rules: examples fit, changes stay compatible, topics are complete."""

from __future__ import annotations

import copy
import hashlib
import json
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec, compat, counters, events, features, redis_layout, topics
from schemas.errors import ContractError
from schemas.ids import scope_hash

ROOT = Path(str(resources.files("schemas")))
NAMES = sorted(p.stem for p in (ROOT / "avro").glob("*.avsc"))
EXAMPLES = sorted((ROOT / "examples").glob("*/*/*.json"))
RELEASED = sorted((ROOT / "released").glob("*/*.avsc"))


def _bytes_fields(record: dict, schema: dict) -> dict:
    """JSON has no bytes: fields of that type are hex in the examples."""
    out = dict(record)
    for field in schema["fields"]:
        kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
        if "bytes" in kinds and isinstance(out.get(field["name"]), str):
            out[field["name"]] = bytes.fromhex(out[field["name"]])
    return out


def _contains(whole: object, part: object) -> bool:
    """Whether `part` is in `whole`, which may have more fields (defaults)."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(k in whole and _contains(whole[k], v) for k, v in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(whole) == len(part) and all(map(_contains, whole, part))
    return whole == part


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: "/".join(p.parts[-3:]))
def test_example(path: Path) -> None:
    name, verdict = path.parts[-3], path.parts[-2]
    case = json.loads(path.read_text())
    assert set(case) == {"why", "record"}
    schema = json.loads(codec.schema_text(name))
    encode = codec.Encoder(name, schema_id=7)
    if verdict == "fail":
        with pytest.raises(ContractError):
            encode(_bytes_fields(case["record"], schema))
        return
    message = encode(_bytes_fields(case["record"], schema))
    schema_id, payload = codec.split_header(message)
    assert schema_id == 7
    decoded = codec.decode(payload, codec.parsed_schema(name))
    assert _contains(decoded, _bytes_fields(case["record"], schema))


@pytest.mark.parametrize("name", NAMES)
def test_every_schema_has_examples_and_is_released(name: str) -> None:
    kinds = {p.parts[-2] for p in EXAMPLES if p.parts[-3] == name}
    assert kinds == {"pass", "fail"}
    assert any(p.parent.name == name for p in RELEASED)


@pytest.mark.parametrize("path", RELEASED, ids=lambda p: "/".join(p.parts[-2:]))
def test_change_is_compatible_with_every_release(path: Path) -> None:
    verdict = compat.compare(json.loads(path.read_text()), json.loads(codec.schema_text(path.parent.name)))
    assert verdict.full, f"{path.parent.name}: {verdict.words}"


def _event_schema() -> dict:
    return json.loads(codec.schema_text("ad_event"))


def _field(schema: dict, name: str) -> dict:
    return next(f for f in schema["fields"] if f["name"] == name)


def test_refuses_a_new_field_without_default_and_names_the_side() -> None:
    changed = _event_schema()
    changed["fields"].append({"name": "brand_lift", "type": "long"})
    verdict = compat.compare(_event_schema(), changed)
    assert not verdict.full
    assert verdict.words.startswith("writers must roll out first")
    assert "$.brand_lift" in verdict.words


def test_refuses_removing_a_field_without_default_and_names_the_side() -> None:
    changed = _event_schema()
    changed["fields"] = [f for f in changed["fields"] if f["name"] != "record_id"]
    verdict = compat.compare(_event_schema(), changed)
    assert not verdict.full
    assert verdict.words.startswith("readers must roll out first")
    assert "$.record_id" in verdict.words


def test_refuses_a_change_of_type_in_any_order() -> None:
    changed = _event_schema()
    _field(changed, "event_time_ms")["type"] = "string"
    assert compat.compare(_event_schema(), changed).words.startswith("no order of roll-out works")


def test_widening_needs_readers_first() -> None:
    old, new = _event_schema(), _event_schema()
    _field(new, "ordinal")["type"] = "long"
    assert compat.compare(old, new).words.startswith("readers must roll out first")


def test_a_new_field_with_default_breaks_nobody() -> None:
    changed = copy.deepcopy(_event_schema())
    changed["fields"].append({"name": "brand_lift", "type": ["null", "long"], "default": None})
    assert compat.compare(_event_schema(), changed).full


def test_no_enum_or_fixed_in_any_schema() -> None:
    """Flink's sink can't write them, and an enum breaks old readers when a symbol is added."""
    for name in NAMES:
        text = codec.schema_text(name)
        assert '"enum"' not in text and '"fixed"' not in text, name


def test_topics() -> None:
    assert len({t.name for t in topics.TOPICS}) == len(topics.TOPICS)
    for topic in topics.TOPICS:
        assert "." not in topic.name and "_" not in topic.name
        base = topic.name.removesuffix("-dlq")
        assert base.rsplit("-v", 1)[1].isdigit()
        assert topic.schema is None or topic.schema in NAMES
        if topic.dead_letter is not None:
            assert topics.BY_NAME[topic.dead_letter].schema == "dead_letter"
        if topic.schema is not None:
            assert topic.compatibility == "FULL_TRANSITIVE"
    assert {t.schema for t in topics.TOPICS} - {None} == set(NAMES)


def test_event_codes_and_counter_codes_are_unique() -> None:
    assert len(events.BY_CODE) == len(events.EVENT_TYPES) == len(events.BY_NAME)
    codes = {(c.entity, c.code) for c in counters.COUNTERS}
    assert len(codes) == len(counters.COUNTERS) == len(counters.COUNTER_BY_NAME)
    assert all(0 < c.code < 256 for c in counters.COUNTERS)


def test_codes_and_buckets_of_counters_stay_what_they_are() -> None:
    """They are in topics, in Valkey and in checkpoints: a new counter gets a new line here, no line ever changes."""
    found = {
        c.name: (c.code, c.entity, c.scope, c.event_types, c.bucket_s, c.family, c.measure) for c in counters.COUNTERS
    }
    golden = json.loads((Path(__file__).parents[1] / "golden" / "counter_codes.json").read_text())
    assert json.loads(json.dumps(found)) == golden


def test_features_of_a_version_stay_what_they_are() -> None:
    """A model names the version of its inputs; whoever changes the list or a meaning must count it up."""
    described = []
    for f in features.FEATURES:
        counted = [counters.COUNTER_BY_NAME[name] for name in (f.numerator, f.denominator) if name]
        made_of = [(c.entity, c.scope, c.event_types, c.bucket_s, c.measure) for c in counted]
        described.append(repr((f.name, f.window_s, f.default, f.prior_clicks, f.prior_impressions, f.parent, made_of)))
    described += [repr(features.CONTEXT_FEATURES), repr(features.CATEGORIES)]
    digests = {3: "bb2e46d00f59fc91"}
    assert max(digests) == features.FEATURES_VERSION
    assert hashlib.sha256("\n".join(described).encode()).hexdigest()[:16] == digests[features.FEATURES_VERSION]


def test_a_parent_comes_before_its_children_and_is_a_rate() -> None:
    names = [f.name for f in features.FEATURES]
    children = [f for f in features.FEATURES if f.parent is not None]
    assert children
    for feature in children:
        parent = features.FEATURE_BY_NAME[feature.parent or ""]
        assert names.index(parent.name) < names.index(feature.name)
        assert parent.denominator is not None and parent.window_s >= feature.window_s


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 10_000)), min_size=4, max_size=4),
    st.integers(0, 3),
)
def test_shrunk_rates_lie_between_parent_and_own_rate_and_fall_through(
    counts: list[tuple[int, int]], missing: int
) -> None:
    chain = ["category_ctr_24h", "advertiser_ctr_24h", "creative_format_ctr_24h", "creative_shrunk_ctr_24h"]
    above: float | None = None
    for level, (name, (clicks, more)) in enumerate(zip(chain, counts, strict=True)):
        impressions = clicks + more
        feature = features.FEATURE_BY_NAME[name]
        if level == missing:
            value = features.feature_value(feature, None, None, above)
            assert value == pytest.approx(feature.default if above is None else above)
        else:
            value = features.feature_value(feature, clicks, impressions, above)
            prior = features.PRIOR_RATE if above is None else above
            low, high = sorted((prior, clicks / impressions))
            assert low - 1e-12 <= value <= high + 1e-12
        above = value


def test_features_are_made_of_declared_counters_of_their_entity() -> None:
    for feature in features.FEATURES:
        for name in filter(None, (feature.numerator, feature.denominator)):
            counter = counters.COUNTER_BY_NAME[name]
            assert counter.entity == feature.entity, feature.name
            assert feature.window_s % counter.bucket_s == 0, feature.name
            assert counter.retention_s >= feature.window_s or counter.bucket_s == counters.LIFETIME_S, feature.name
    event_columns = {f["name"] for f in _event_schema()["fields"]}
    assert {column for columns in counters.ID_COLUMNS.values() for column in columns} <= event_columns


def test_event_ids_differ_for_every_type_and_ordinal() -> None:
    from schemas.ids import event_id

    ids = {event_id(bytes(16), code, ordinal) for code in events.BY_CODE for ordinal in range(0, 101)}
    assert len(ids) == len(events.BY_CODE) * 101


def test_packed_counters_round_trip_and_have_golden_bytes() -> None:
    hour = counters.COUNTER_BY_NAME["user_campaign_impressions_hour"]
    ever = counters.COUNTER_BY_NAME["user_campaign_impressions_lifetime"]
    packed = redis_layout.pack_counters({(hour, "c1", 7200): 2, (ever, "c1", 0): 70_000})
    assert {field.hex(): value.hex() for field, value in packed.items()} == {
        "0103201c0000": "03d0f631ca1ddba8db0200",
        "010500000000": "0bd0f631ca1ddba8dbffff",  # it stays at its greatest
    }
    assert [tuple(e) for e in redis_layout.unpack_counters("user", packed)] == [
        (hour.code, scope_hash("c1"), 3600, 7200, 2),
        (ever.code, scope_hash("c1"), counters.LIFETIME_S, 0, 65_535),
    ]
    spend = counters.COUNTER_BY_NAME["creative_cost_micros_5m"]
    (entry,) = redis_layout.unpack_counters("creative", redis_layout.pack_counters({(spend, "", 300): 2**40}))
    assert tuple(entry) == (spend.code, 0, 300, 300, 2**40)


def test_buckets_expire_after_their_retention_and_lifetimes_never() -> None:
    counter = counters.COUNTER_BY_NAME["user_campaign_impressions_hour"]
    field = redis_layout.counter_field(counter.family, counter.bucket_s, 7200)
    end = 7200 + counter.bucket_s + counter.retention_s
    assert redis_layout.expired_fields([field], end - 1) == []
    assert redis_layout.expired_fields([field, b"odd", b"\x09" * 6], end) == [field, b"odd", b"\x09" * 6]
    lifetime = redis_layout.counter_field("frequency", counters.LIFETIME_S, 0)
    assert redis_layout.expired_fields([lifetime], 2**32 - 1) == []
    assert redis_layout.entity_ttl_s("user") == counters.LIFETIME_KEPT_S


def test_sum_counter_takes_only_its_scope_and_range() -> None:
    counter = counters.COUNTER_BY_NAME["user_campaign_impressions_hour"]
    other = counters.COUNTER_BY_NAME["user_creative_impressions_hour"]
    values = redis_layout.pack_counters(
        {(counter, "c-1", 0): 1, (counter, "c-1", 3600): 2, (counter, "c-2", 3600): 40, (other, "c-1", 3600): 500}
    )
    assert redis_layout.sum_counter(values, counter, "c-1", 3600, 7200) == 2
    assert redis_layout.sum_counter(values, counter, "c-1", 0, 7200) == 3
    assert redis_layout.sum_counter(values, counter, "c-3", 0, 7200) is None


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\x01\x00\x00\x00\x01abc", b"{}"])
def test_no_header(payload: bytes) -> None:
    with pytest.raises(ContractError):
        codec.split_header(payload)


def test_truncated_and_padded_records_are_refused() -> None:
    case = json.loads(next(p for p in EXAMPLES if p.parts[-3:-1] == ("ad_event", "pass")).read_text())
    record = _bytes_fields(case["record"], _event_schema())
    _, payload = codec.split_header(codec.Encoder("ad_event", 1)(record))
    schema = codec.parsed_schema("ad_event")
    for hostile in (payload[:-1], payload + b"\x00", payload[: len(payload) // 2]):
        with pytest.raises(ContractError):
            codec.decode(hostile, schema)
