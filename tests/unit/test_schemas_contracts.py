"""The contracts keep their own rules: examples fit, changes stay compatible, topics are complete."""

from __future__ import annotations

import copy
import json
from importlib import resources
from pathlib import Path

import pytest

from schemas import codec, compat, events, features, redis_layout, topics
from schemas.errors import ContractError

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
    assert len(features.COUNTER_BY_CODE) == len(features.COUNTERS) == len(features.COUNTER_BY_NAME)


def test_features_are_made_of_declared_counters_of_their_entity() -> None:
    for feature in features.FEATURES:
        for name in filter(None, (feature.numerator, feature.denominator)):
            counter = features.COUNTER_BY_NAME[name]
            assert counter.entity == feature.entity, feature.name
            assert feature.window_s % counter.bucket_s == 0, feature.name
            assert counter.retention_s >= feature.window_s, feature.name
    event_columns = {f["name"] for f in _event_schema()["fields"]}
    assert set(features.ID_COLUMNS.values()) <= event_columns


def test_event_ids_differ_for_every_type_and_ordinal() -> None:
    from schemas.ids import event_id

    ids = {event_id(bytes(16), code, ordinal) for code in events.BY_CODE for ordinal in range(0, 101)}
    assert len(ids) == len(events.BY_CODE) * 101


def test_valkey_fields_round_trip_and_expire() -> None:
    counter = features.COUNTER_BY_NAME["user_campaign_impressions_hour"]
    field = redis_layout.counter_field(counter, "c-1", 7200)
    assert len(field) == redis_layout.FIELD_BYTES
    code, scope, bucket = redis_layout.parse_field(field)
    assert (code, bucket) == (counter.code, 7200) and scope != 0
    end = 7200 + counter.bucket_s + counter.retention_s
    assert redis_layout.expired_fields([field], end - 1) == []
    assert redis_layout.expired_fields([field], end) == [field]


def test_sum_counter_takes_only_its_scope_and_range() -> None:
    counter = features.COUNTER_BY_NAME["user_campaign_impressions_hour"]
    values = {
        redis_layout.counter_field(counter, "c-1", 0): b"1",
        redis_layout.counter_field(counter, "c-1", 3600): b"2",
        redis_layout.counter_field(counter, "c-2", 3600): b"40",
    }
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
