"""What the Java functions keep, byte for byte, so that no change of it goes unnoticed: a savepoint would be misread.

When a change is meant: the layout's byte goes up, where there is one, the bytes here are replaced, and CHANGELOG.md
says that a savepoint of before does not fit.
"""

from __future__ import annotations

import pytest

from jobs.streaming.job import IDS
from tests.samples.additive import packed, packed_texts
from tests.samples.flink_java import FlinkJava
from tests.samples.stream_io import DEFAULTS

T0_MS = 1_780_000_000_000
HOUR_MS = 3_600_000
TABLE_OF_IDS = (
    "010000000201234567000000006a18a5010000000000000000000000000000000000000000000000000000000000000000000000"
    "000123456789abcdef6a18a500000000000000000000000000000000000000000000000000000000000000000000000000"
)
OPEN_LIFE = (
    "81df216a063da5186a20c1186a02000000010101010101010102020202020202026fc003000282a0a484ce6784a0a484"
    "ce6784a0a484ce6702023c20048080808080e2090661640a757365723e0861647608636d700208637265020200000000"
    "00020863706d000855534402"
)
CLOSED_LIFE = (
    "81df216a060000000020c1186a02000000010101010101010102020202020202026fc017000282a0a484ce6784a0a484"
    "ce6784a0a484ce6702023c20048080808080e2090202"
)
OPEN_ADS = "efcdab896745230103018844709e010000214365870000000002008844709e010000ff8744709e0100000000000002000000"
MOMENTS = "38199c6a0480a0a484ce67808080802080808080401e060101010a80a0a484ce67808080802080808080401e06020202"
COUNTERS = (
    "62010000000000008b719bc17a721aaa6600000090041a6a100e000000000000d0ac186a00000000f06b1b6a00000000"
    "80767b709e0100000900000000000000260100000000000000100e000000000000c09e186a00000000e05d1b6a000000"
    "00028844709e0100000900000000000000260200000000000000b7eeeae81c303ff66600000090041a6a2c0100000000"
    "0000acb2186a0000000078211a6a0000000080767b709e01000009000000000000002400000000c40900002c01000000"
    "0000009ca4186a0000000068131a6a00000000028844709e01000009000000000000002400000000881300005a3f2be4"
    "1a56e68d6a00000090041a6a100e000000000000d0ac186a00000000f06b1b6a0000000080767b709e0100000b000000"
    "000000001e109e3945b5072c8e0100100e000000000000c09e186a00000000e05d1b6a00000000028844709e0100000b"
    "000000000000001e109e3945b5072c8e0200000000000000000000000000000000000000000000000000000000000000"
    "00"
)
CLOCKS = "018844709e010000008844709e010000"


@pytest.fixture(scope="module")
def flink() -> FlinkJava:
    return FlinkJava()


def test_a_table_of_ids(flink: FlinkJava) -> None:
    one = flink.call("SeenIds", "add", None, None, 0x0123456789ABCDEF, T0_MS, 0)
    two = flink.call("SeenIds", "add", None, bytes(one), 0x0123456700000000, T0_MS + 1, 0)
    assert bytes(two).hex() == TABLE_OF_IDS


def life_of_two_events(flink: FlinkJava) -> bytes:
    """What is kept of an ad after its impression and its click, and the look at it when its gap has passed."""
    jvm = flink.jvm
    text = jvm.org.apache.flink.table.data.binary.BinaryStringData.fromString
    event = {
        "event_id": b"",
        "packed_ids": packed_texts({"record_id": "ad", "user_pseudonym": "user", "source": "vast"}.get(n) for n in IDS),
        "event_type": text(""),
        "event_time_ms": 0,
        "published_time_ms": 0,
        "cost_micros": 2_500 * 2**32,
        "watch_percent": None,
        "creative_length_s": 30,
        "packed_dimensions": packed(DEFAULTS | {"advertiser_id": "adv", "campaign_id": "cmp", "creative_id": "cre"}),
    }
    names = jvm.java.util.ArrayList()
    for name in event:
        names.add(name)
    columns = flink.new("AdLifeColumns", names)
    life, out = flink.new("AdLife"), flink.new("PackedWriter", 16)
    flink.call("AdLife", "begin", life)
    kept = b""
    for number, event_type in enumerate(("impression", "click"), 1):
        if kept:
            flink.call("AdLife", "read", life, kept, 0, len(kept))
        assert flink.call("AdLife", "sees", life, bytes([number] * 16))
        flink.call("AdLife", "remember", life, T0_MS + number * HOUR_MS)
        row = jvm.org.apache.flink.table.data.GenericRowData(len(event))
        for at, value in enumerate((event | {"event_time_ms": T0_MS + number}).values()):
            row.setField(at, value)
        row.setField(3, jvm.java.lang.Long.valueOf(T0_MS + number))
        row.setField(4, jvm.java.lang.Long.valueOf(T0_MS + number))
        kind = flink.call("LifeEvent", "of", None, text(event_type))
        flink.call("AdLife", "add", life, row, kind, columns, 60_000)
        flink.call("AdLife", "write", life, out)
        kept = bytes(flink.field("PackedWriter", "bytes", out))[: flink.field("PackedWriter", "position", out)]
    return kept


def test_a_life(flink: FlinkJava) -> None:
    kept = life_of_two_events(flink)
    assert kept.hex() == OPEN_LIFE
    life, out = flink.new("AdLife"), flink.new("PackedWriter", 16)
    flink.call("AdLife", "read", life, kept, 0, len(kept))
    assert not flink.call("AdLife", "sees", life, bytes([2] * 16)), "a copy"
    flink.call("AdLife", "close", life)
    flink.call("AdLife", "write", life, out)
    closed = bytes(flink.field("PackedWriter", "bytes", out))[: flink.field("PackedWriter", "position", out)]
    assert closed.hex() == CLOSED_LIFE


def test_a_campaigns_spend(flink: FlinkJava) -> None:
    ads = flink.new("OpenAds", None)
    flink.call("OpenAds", "putWin", ads, 0x0123456789ABCDEF, T0_MS, T0_MS - 1, 2**33)
    flink.call("OpenAds", "put", ads, 0x0123456789ABCDEF, 3, T0_MS + 1)
    flink.call("OpenAds", "putWin", ads, 0x87654321, T0_MS, T0_MS - 1, 2**33)
    assert bytes(flink.field("OpenAds", "bytes", ads)).hex() == OPEN_ADS
    clocks = flink.new("SpendClocks", None)
    flink.call("SpendClocks", "hear", clocks, True, T0_MS)
    flink.call("SpendClocks", "hear", clocks, False, T0_MS + 1)
    kept = bytes(flink.call("SpendClocks", "packed", clocks))
    assert kept.hex() == CLOCKS
    again = flink.new("SpendClocks", kept)
    assert flink.call("SpendClocks", "bothMs", again, 86_400_000) == T0_MS


def test_the_moments_of_an_ad(flink: FlinkJava) -> None:
    day_ms = 86_400_000 * 50
    kept = None
    for number, listed in ((1, False), (2, True)):
        moment = flink.new("AdMoment", number, bytes([number] * 3), T0_MS, T0_MS + 2**32, 2**33, 15, listed)
        kept = bytes(flink.call("AdMoments", "with", flink.new("AdMoments", kept), moment, day_ms))
    assert kept is not None and kept.hex() == MOMENTS
    moments = flink.new("AdMoments", kept)
    found = [flink.call("AdMoments", "next", moments) for _ in range(2)]
    assert [(flink.field("AdMoment", "number", m), flink.field("AdMoment", "listed", m)) for m in found] == [
        (1, False),
        (2, True),
    ]
    assert flink.call("AdMoments", "next", moments) is None


def counted(flink: FlinkJava, text: str, times_ms: list[tuple[int, int]]) -> bytes:
    """What a bucket keeps of the entities of clicks, each with its event time and publish time."""
    jvm = flink.jvm
    rules = flink.new("CounterRules", text)
    gathered = flink.new("GatheredCounts", rules, 1)
    buckets = flink.new("CountedBuckets", rules, 1, 86_400_000)
    state = jvm.org.apache.flink.table.api.dataview.MapView()
    binary = jvm.org.apache.flink.table.data.binary.BinaryStringData.fromString
    ids = packed_texts("user" if name == "user_pseudonym" else None for name in IDS)
    dimensions = packed(DEFAULTS | {"advertiser_id": "adv", "campaign_id": "cmp", "creative_id": "cre"})
    for event_time_ms, published_time_ms in times_ms:
        row = jvm.org.apache.flink.table.data.GenericRowData(6)
        numbers = (event_time_ms, published_time_ms, 2_500 * 2**32)
        for at, value in enumerate((binary("click"), *numbers, ids, dimensions)):
            row.setField(at, value)
        flink.call("GatheredCounts", "add", gathered, row)
    for message in flink.call("GatheredCounts", "taken", gathered):
        flink.call("CountedBuckets", "add", buckets, state, bytes(message))
    return bytes(state.get(0))


def test_counters(flink: FlinkJava) -> None:
    """Of an advertiser, a user with a scope, and a creative with its cost: two clicks in an hour, one in the next."""
    rules = (
        "38 advertiser 6 - - click 3600 90000 0",
        "30 user 1 - 9 click 3600 90000 0",
        "36 creative 9 - - click 300 7200 1",
    )
    times_ms = [(T0_MS, T0_MS + 1), (T0_MS + 1, T0_MS + 2), (T0_MS + HOUR_MS, T0_MS + HOUR_MS)]
    assert counted(flink, "\n".join(rules), times_ms).hex() == COUNTERS
