"""Counter values and spend as commands: absolute, coalesced, with the life of their entity."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobs.transforms.valkey_writes import PendingWrites
from schemas.counters import COUNTERS, LIFETIME_S
from schemas.errors import Reject
from schemas.redis_layout import (
    OPEN_WINS_TTL_S,
    PROGRESS_KEY,
    OpenWins,
    counter_field,
    entity_key,
    entity_ttl_s,
    entry_bytes,
    open_wins_key,
    open_wins_value,
    spend_key,
)
from schemas.topics import FREQUENCY_COUNTS, STREAMING_FEATURES

CAPS = FREQUENCY_COUNTS.name
TOPIC_OF_FAMILY = {"frequency": CAPS, "features": STREAMING_FEATURES.name}


def bucket(**changes: Any) -> dict[str, Any]:
    return {
        "entity_type": "user",
        "entity_id": "v1:u",
        "bucket_s": 3_600,
        "bucket_start_ms": 3_600_000,
        "entries": b"0123456789a",
        **changes,
    }


def test_the_last_value_of_a_field_is_written_once() -> None:
    writes = PendingWrites()
    for entries in (b"0123456789a", b"0123456789b", b"0123456789c"):
        assert writes.add_counters(CAPS, bucket(entries=entries)) is None
    assert writes.add_spend({"campaign_id": "c-1", "day": "20261122", "spend_micros": 7_500}) is None
    key = entity_key("user", "v1:u")
    assert writes.commands() == [
        ("HSET", key, counter_field("frequency", 3_600, 3_600), b"0123456789c"),
        ("HSET", spend_key("c-1"), "20261122", 7_500),
        ("EXPIRE", key, entity_ttl_s("user")),
    ]
    assert writes.fields == 2
    assert writes.counter_keys() == [key]


def test_progress_is_told_after_what_it_speaks_of() -> None:
    writes = PendingWrites()
    for at_ms in (7_000, 5_000):
        assert writes.add_spend({"campaign_id": "c", "day": "20261122", "spend_micros": 1, "updated_ms": at_ms}) is None
        assert writes.add_counters(CAPS, bucket(updated_ms=at_ms + 1)) is None
    assert writes.add_counters(STREAMING_FEATURES.name, bucket(updated_ms=9_000)) is None
    assert set(writes.commands()[-2:]) == {
        ("HSET", PROGRESS_KEY, b"spend", 7_000),
        ("HSET", PROGRESS_KEY, b"frequency", 7_001),
    }


def test_both_families_of_a_user_are_in_one_hash_and_never_in_one_field() -> None:
    writes = PendingWrites()
    for topic in TOPIC_OF_FAMILY.values():
        assert writes.add_counters(topic, bucket()) is None
    (name, key, *pairs), _expire = writes.commands()
    assert (name, key) == ("HSET", entity_key("user", "v1:u"))
    assert pairs[::2] == [counter_field(family, 3_600, 3_600) for family in TOPIC_OF_FAMILY]


def test_open_wins_are_kept_by_minute_and_for_a_day() -> None:
    writes = PendingWrites()
    row = {"campaign_id": "c-1", "day": "open", "spend_micros": 0, "decision_minute_ms": 120_000}
    assert writes.add_spend(row | {"won_micros": 9, "confirmed_micros": 4, "wins": 3, "confirmed_wins": 1}) is None
    key = open_wins_key("c-1")
    assert writes.commands() == [
        ("HSET", key, "120", open_wins_value(OpenWins(9, 4, 3, 1))),
        ("EXPIRE", key, OPEN_WINS_TTL_S),
    ]
    assert writes.counter_keys() == [], "only counters are pruned"


def test_what_no_counter_declares_is_refused() -> None:
    writes = PendingWrites()
    for wrong in (
        bucket(entity_type="galaxy"),
        bucket(bucket_s=7),
        bucket(entries=b""),
        bucket(entries=b"cut short"),
        bucket(bucket_start_ms=2**63 - 1),
        bucket(bucket_start_ms=-1_000),
    ):
        assert isinstance(writes.add_counters(CAPS, wrong), Reject)
    assert writes.commands() == []


buckets = st.builds(
    lambda counter, entity, start, entries: (
        TOPIC_OF_FAMILY[counter.family],
        {
            "entity_type": counter.entity,
            "entity_id": entity,
            "bucket_s": counter.bucket_s,
            "bucket_start_ms": 0 if counter.bucket_s == LIFETIME_S else start * counter.bucket_s * 1_000,
            "entries": bytes([entries]) * entry_bytes(counter.entity),
        },
    ),
    st.sampled_from(COUNTERS),
    st.sampled_from(["a", "b"]),
    st.integers(0, 3),
    st.integers(0, 9),
)


def state(batches: list[list[tuple[str, dict[str, Any]]]]) -> dict[object, dict[object, object]]:
    """What Valkey holds after these batches."""
    held: dict[object, dict[object, object]] = {}
    for batch in batches:
        writes = PendingWrites()
        for topic, record in batch:
            assert writes.add_counters(topic, record) is None
        for name, key, *pairs in writes.commands():
            if name == "HSET":
                held.setdefault(key, {}).update(zip(pairs[::2], pairs[1::2], strict=True))
    return held


@given(records=st.lists(buckets, max_size=30), size=st.integers(1, 30), again=st.integers(0, 30))
def test_batches_and_repeated_batches_do_not_matter(
    records: list[tuple[str, dict[str, Any]]], size: int, again: int
) -> None:
    batches = [records[i : i + size] for i in range(0, len(records), size)]
    assert state(batches) == state([records])
    restart = min(again, len(batches))
    assert state(batches + batches[restart:]) == state([records])
