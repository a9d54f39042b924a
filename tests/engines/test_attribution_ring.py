"""What attribution keeps under a key, beside a plain list: whichever rows go, each touch left is whole."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest

from tests.samples.flink_java import FlinkJava

T0_MS = 1_780_000_000_000
CONVERSION, VIEW, CLICK = 0, 1, 2
MOST = 4
DIMENSIONS = (b"ad of one campaign", b"ad of another campaign", b"", None)
#: A view and a click of the same ad: the click has no dimensions and no record id of its own.
VIEW_AND_CLICK = (
    "02a5186a0101a5186a30166f66206f6e652061640c61642d3180a0a484ce670402010202a5186a16000082a0a484ce67040202"
)


@dataclass(frozen=True)
class Moment:
    kind: int
    event_id: bytes
    time_ms: int
    published_ms: int
    record_id: str | None
    dimensions: bytes | None
    until_ms: int


class Rings:
    """Makes moments into rows, and rings into lists."""

    def __init__(self) -> None:
        self.flink = FlinkJava()
        jvm = self.flink.jvm
        kinds = jvm.org.apache.flink.table.types.logical
        text, many = kinds.VarCharType(2**31 - 1), kinds.VarBinaryType(2**31 - 1)
        number, small = kinds.BigIntType(), kinds.IntType()
        columns = [small, small, many, number, number, text, text, text, number, text, many]
        types = self.flink.array(kinds.LogicalType, columns)
        self._binary = jvm.org.apache.flink.table.runtime.typeutils.RowDataSerializer(types)
        self._text = jvm.org.apache.flink.table.data.StringData.fromString

    def row(self, of: Moment) -> Any:
        row = self.flink.jvm.org.apache.flink.table.data.GenericRowData(11)
        ad = None if of.record_id is None else self._text(of.record_id)
        nobody = self._text("someone")
        names = (ad, nobody, self._text(""))
        values = (of.kind, 2, of.event_id, of.time_ms, of.published_ms, *names, 2**33, self._text("advertiser"))
        for column, value in enumerate((*values, of.dimensions)):
            row.setField(column, value)
        return self._binary.toBinaryRow(row).copy()

    def ring(self, kept: bytes | None) -> Any:
        return self.flink.new("AttributionRing", kept)

    def added(self, kept: bytes | None, moment: Moment, now_ms: int) -> bytes:
        arguments = (self.row(moment), moment.until_ms, now_ms, MOST)
        return bytes(self.flink.call("AttributionRing", "with", self.ring(kept), *arguments))

    def found(self, kept: bytes) -> list[tuple[Any, ...]]:
        """Of a touch all that is kept; of a conversion its kind, id and time."""
        ring, found = self.ring(kept), []
        while self.flink.call("AttributionRing", "advance", ring):
            if self.flink.call("AttributionRing", "isTouch", ring):
                touch = self.flink.call("AttributionRing", "touch", ring)
                dimensions = None if touch.isNullAt(5) else bytes(touch.getBinary(5))
                times = (touch.getLong(2), touch.getLong(3))
                record_id = None if touch.isNullAt(4) else str(touch.getString(4))
                found.append((touch.getInt(0), bytes(touch.getBinary(1)), *times, record_id, dimensions))
            else:
                row = self.flink.call("AttributionRing", "conversion", ring)
                found.append((row.getInt(0), bytes(row.getBinary(2)), row.getLong(3)))
        return found


def told(moment: Moment) -> tuple[Any, ...]:
    if moment.kind == CONVERSION:
        return (moment.kind, moment.event_id, moment.time_ms)
    times = (moment.time_ms, moment.published_ms)
    return (moment.kind, moment.event_id, *times, moment.record_id, moment.dimensions)


@pytest.fixture(scope="module")
def rings() -> Rings:
    return Rings()


@pytest.mark.parametrize("seed", range(4))
def test_what_is_of_use_stays_whole_and_in_order(rings: Rings, seed: int) -> None:
    draw = random.Random(seed)
    kept: bytes | None = None
    model: list[Moment] = []
    dimensions = DIMENSIONS[0]
    for step in range(40):
        now_ms = T0_MS + step * 1_000
        kind = draw.choice((CONVERSION, VIEW, VIEW, CLICK))
        dimensions = draw.choice((dimensions, dimensions, *DIMENSIONS))
        of_use_ms = draw.choice((2, 5, 30)) * 1_000
        at_ms = now_ms - draw.choice((0, 1, 86_400_000, -3))
        record_id = draw.choice(("ad-1", "ad-1", "ad-2", None))
        moment = Moment(kind, draw.randbytes(16), at_ms, now_ms, record_id, dimensions, now_ms + of_use_ms)
        kept = rings.added(kept, moment, now_ms)
        model = [m for m in model if m.until_ms > now_ms]
        same = [m for m in model if m.kind == kind]
        model = [m for m in model if m not in same[: max(len(same) - MOST + 1, 0)]] + [moment]
        assert rings.found(kept) == [told(m) for m in model]
        last_s = int.from_bytes(kept[:4], "little")
        assert last_s * 1_000 == max(m.until_ms for m in model), "until when something in it is of use"


def test_what_two_touches_share_is_kept_once(rings: Rings) -> None:
    view = Moment(VIEW, b"\x01", T0_MS, T0_MS + 2, "ad-1", b"of one ad", T0_MS + 1_000)
    click = Moment(CLICK, b"\x02", T0_MS + 1, T0_MS + 3, "ad-1", b"of one ad", T0_MS + 2_000)
    kept = rings.added(rings.added(None, view, T0_MS), click, T0_MS)
    assert (kept.count(b"of one ad"), kept.count(b"ad-1")) == (1, 1)
    assert kept.hex() == VIEW_AND_CLICK
