"""What a function keeps of the keys of a bucket, beside a dictionary: the same, until it is over."""

from __future__ import annotations

import random

import pytest

from tests.samples.flink_java import FlinkJava

T0_MS = 1_780_000_000_000
#: Numbers of 32 bits would be an int in Java; these are a long.
STEP_MS, EVERY_MS = 1_000_000_000, 4_000_000_000
FIRST_KEY = 2**40
#: Two keys of one bucket, of which the first was written again, longer.
TWO_KEYS = "2f0000000000000000000000000100000700000000a5186a0102030100000000010000080000008057ff7804050607"


@pytest.fixture(scope="module")
def flink() -> FlinkJava:
    return FlinkJava()


def value(until_ms: int, rest: bytes) -> bytes:
    return (until_ms // 1_000).to_bytes(4, "little") + rest


@pytest.mark.parametrize("seed", range(3))
def test_a_bucket_keeps_what_is_of_use(flink: FlinkJava, seed: int) -> None:
    draw = random.Random(seed)
    state = flink.jvm.org.apache.flink.table.api.dataview.MapView()
    buckets = flink.new("KeptByBucket", 1, EVERY_MS)
    model: dict[int, bytes] = {}
    next_ms, largest = T0_MS + EVERY_MS, 0
    for step in range(40):
        now_ms = T0_MS + step * STEP_MS
        flink.call("KeptByBucket", "open", buckets, state, 0, now_ms)
        if now_ms >= next_ms:
            next_ms = now_ms + EVERY_MS
            model = {k: v for k, v in model.items() if int.from_bytes(v[:4], "little") * 1_000 > now_ms}
            largest = 8 + sum(12 + len(kept) for kept in model.values())
        key = FIRST_KEY + draw.randrange(8)
        found = flink.call("KeptByBucket", "get", buckets, key)
        assert (None if found is None else bytes(found)) == model.get(key)
        model[key] = value(now_ms + draw.choice((3, 8, 40)) * STEP_MS, draw.randbytes(draw.choice((0, 5, 5, 30))))
        flink.call("KeptByBucket", "put", buckets, key, model[key])
        bucket = bytes(state.get(0))
        end = 8 + sum(12 + len(kept) for kept in model.values())
        assert int.from_bytes(bucket[:4], "little") == end
        largest = max(largest, end)  # since it was cleared
        assert end <= len(bucket) <= largest + largest // 8


def test_the_bytes_of_a_bucket(flink: FlinkJava) -> None:
    state = flink.jvm.org.apache.flink.table.api.dataview.MapView()
    buckets = flink.new("KeptByBucket", 1, EVERY_MS)
    later_ms = T0_MS + 250 * STEP_MS
    for key, kept in ((0, value(T0_MS, b"\x09")), (1, value(later_ms, b"\4\5\6\7")), (0, value(T0_MS, b"\1\2\3"))):
        flink.call("KeptByBucket", "open", buckets, state, 0, T0_MS)
        flink.call("KeptByBucket", "put", buckets, FIRST_KEY + key, kept)
    bucket = bytes(state.get(0))
    assert bucket[: int.from_bytes(bucket[:4], "little")].hex() == TWO_KEYS
