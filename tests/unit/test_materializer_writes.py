"""Counter values and spend as commands: absolute, coalesced, with the life of their entity."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobs.transforms.valkey_writes import PendingWrites
from schemas.errors import Reject
from schemas.features import COUNTER_BY_NAME, COUNTERS
from schemas.redis_layout import counter_field, entity_key, entity_ttl_s, spend_key


def value(**changes: Any) -> dict[str, Any]:
    return {
        "entity_type": "user",
        "entity_id": "v1:u",
        "counter": "user_campaign_impressions_hour",
        "scope_id": "c-1",
        "bucket_start_ms": 3_600_000,
        "value": 4,
        **changes,
    }


def test_the_last_value_of_a_field_is_written_once() -> None:
    writes = PendingWrites()
    for count in (4, 5, 6):
        assert writes.add_counter(value(value=count)) is None
    assert writes.add_spend({"campaign_id": "c-1", "day": "20261122", "spend_micros": 7_500}) is None
    field = counter_field(COUNTER_BY_NAME["user_campaign_impressions_hour"], "c-1", 3_600)
    key = entity_key("user", "v1:u")
    assert writes.commands() == [
        ("HSET", key, field, 6),
        ("HSET", spend_key("c-1"), "20261122", 7_500),
        ("EXPIRE", key, entity_ttl_s("user")),
    ]
    assert writes.fields == 2


def test_what_no_counter_declares_is_refused() -> None:
    writes = PendingWrites()
    for wrong in (
        value(counter="user_sneezes_hour"),
        value(entity_type="creative"),
        value(bucket_start_ms=2**63 - 1),
        value(bucket_start_ms=-1_000),
    ):
        assert isinstance(writes.add_counter(wrong), Reject)
    assert writes.commands() == []


counter_values = st.builds(
    lambda counter, entity, scope, bucket, count: {
        "entity_type": counter.entity,
        "entity_id": entity,
        "counter": counter.name,
        "scope_id": scope if counter.scope else "",
        "bucket_start_ms": bucket * counter.bucket_s * 1_000,
        "value": count,
    },
    st.sampled_from(COUNTERS),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["x", "y"]),
    st.integers(0, 3),
    st.integers(0, 9),
)


def state(batches: list[list[dict[str, Any]]]) -> dict[object, dict[object, object]]:
    """What Valkey holds after these batches."""
    held: dict[object, dict[object, object]] = {}
    for batch in batches:
        writes = PendingWrites()
        for record in batch:
            writes.add_counter(record)
        for name, key, *pairs in writes.commands():
            if name == "HSET":
                held.setdefault(key, {}).update(zip(pairs[::2], pairs[1::2], strict=True))
    return held


@given(records=st.lists(counter_values, max_size=30), size=st.integers(1, 30), again=st.integers(0, 30))
def test_batches_and_repeated_batches_do_not_matter(records: list[dict[str, Any]], size: int, again: int) -> None:
    batches = [records[i : i + size] for i in range(0, len(records), size)]
    assert state(batches) == state([records])
    restart = min(again, len(batches))
    assert state(batches + batches[restart:]) == state([records])
