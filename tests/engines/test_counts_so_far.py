"""How much has come of a visitor in a window, beside a plain count: over buckets shared by several, users repeated."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.samples.flink_java import FlinkJava

T0_MS = 1_780_000_000_000
DAY_MS = 86_400_000
#: Users of one address: more than there is room for at first.
MANY = 40
TWO_ROWS = (
    "3000000000000000efcdab89674523011c00000080f6196a020000000100000000000000000100ffefcdab8967452301000000000000"
)


@pytest.fixture(scope="module")
def flink() -> FlinkJava:
    return FlinkJava()


def test_numbers_so_far(flink: FlinkJava) -> None:
    draw = random.Random(1)
    state = flink.jvm.org.apache.flink.table.api.dataview.MapView()
    buckets, count = flink.new("KeptByBucket", 1, DAY_MS), flink.new("CountSoFar")
    keys = [2**40 + n for n in range(3)]
    rows: Counter[int] = Counter()
    marked_rows: Counter[int] = Counter()
    users: dict[int, set[int]] = {key: set() for key in keys}
    for _ in range(200):
        key, user, marked = draw.choice(keys), draw.choice((0, *(2**50 + n for n in range(MANY)))), draw.random() < 0.2
        rows[key] += 1
        marked_rows[key] += marked
        users[key] |= {user} - {0}
        flink.call("KeptByBucket", "open", buckets, state, 0, T0_MS)
        flink.call("CountSoFar", "read", count, buckets, key)
        flink.call("CountSoFar", "add", count, marked, user != 0, user or 2**50, T0_MS + DAY_MS)
        flink.call("CountSoFar", "write", count, buckets, key)
        found = [flink.call("CountSoFar", number, count) for number in ("rows", "users", "markedRows")]
        assert found == [rows[key], len(users[key]), marked_rows[key]]


def test_the_bytes_of_a_count(flink: FlinkJava) -> None:
    """Golden, as in test_state_bytes.py: two rows of two users, one of them marked."""
    state = flink.jvm.org.apache.flink.table.api.dataview.MapView()
    buckets, count = flink.new("KeptByBucket", 1, DAY_MS), flink.new("CountSoFar")
    for user, marked in ((-(2**56) + 2**40, True), (0x0123456789ABCDEF, False)):
        flink.call("KeptByBucket", "open", buckets, state, 0, T0_MS)
        flink.call("CountSoFar", "read", count, buckets, 0x0123456789ABCDEF)
        flink.call("CountSoFar", "add", count, marked, True, user, T0_MS + DAY_MS)
        flink.call("CountSoFar", "write", count, buckets, 0x0123456789ABCDEF)
    assert bytes(state.get(0)).hex() == TWO_ROWS
