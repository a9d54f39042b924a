"""The decoder that is compiled for a writer's schema (connectors/flink/java/RowAvroLayout.java), called directly."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import fastavro
import pytest

from schemas.campaign_metrics import PACKED_NUMBERS, PACKED_TEXTS
from schemas.codec import schema_text
from tests.samples.additive import packed
from tests.samples.flink_java import FlinkJava
from tests.samples.stream_io import DEFAULTS

COLUMNS = ("event_id", "campaign_id", "event_time_ms", "watch_percent", "quality_reasons")
#: What columns behind them say of arrays and maps.
TEXTS = ("reasons=quality_reasons", "opt_out_flag=consent.opt_out")
#: Event, and the writer's schema -> (columns, packed dimensions), or None for what does not decode.
Decode = Callable[[bytes, dict[str, Any]], tuple[list[Any], bytes] | None]


def event(**changes: Any) -> dict[str, Any]:
    values = {
        "event_id": b"\x07" * 16,
        "record_id": "R" * 22,
        "event_type": "impression",
        "event_time_ms": 1_780_000_000_123,
        "received_time_ms": 1_780_000_000_163,
        "published_time_ms": 1_780_000_000_213,
        "advertiser_id": "adv",
        "campaign_id": "cmp",
        "creative_id": "cre",
        "consent": {"tcf": "C" * 70, "us_privacy": "1YNN"},
        "experiments": {"a": "b"},
    }
    return {**DEFAULTS, **values, **changes}


def encoded(record: dict[str, Any], schema: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), record)
    return out.getvalue()


def newest() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(schema_text("ad_event"))
    return schema


@pytest.fixture(scope="module")
def decode() -> Iterator[Decode]:
    java = FlinkJava()
    jvm = java.jvm
    mapper = jvm.org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper()

    def texts(names: Sequence[str]) -> Any:
        return java.array(jvm.String, names)

    def decoder(message: bytes, writer: dict[str, Any]) -> tuple[list[Any], bytes] | None:
        packing = java.new("RowAvroPacking", texts(PACKED_TEXTS), texts(PACKED_NUMBERS))
        wide = java.array(jvm.boolean, [name == "event_time_ms" for name in COLUMNS])
        schemas = [mapper.readTree(json.dumps(writer)), mapper.readTree(schema_text("ad_event"))]
        said = java.new("RowAvroTexts", texts(TEXTS))
        behind = java.array(jvm.int, [len(COLUMNS), len(COLUMNS) + 1])
        layout = java.new("RowAvroLayout", *schemas, texts(COLUMNS), wide, packing, said, behind)
        plan = java.call("RowAvroLayout", "plan", layout)
        row = jvm.org.apache.flink.table.data.GenericRowData(len(COLUMNS) + len(TEXTS))
        if not java.call("RowAvroPlan", "decode", plan, message, 0, row):
            return None
        found = [row.getField(i) for i in range(len(COLUMNS) + len(TEXTS))]
        return found, bytes(java.call("RowAvroPlan", "packed", plan))

    yield decoder


@pytest.mark.parametrize(
    "record",
    [
        event(),
        event(country=None, device_type=None, platform=None, creative_format=None, deal_type=None, bidder_id=None),
        event(line_item_id="Größe — 大きさ", platform="ö", experiment_cell="abcdefgö", country="ДЕ"),
        event(placement_id="p" * 300, publisher_id="é" * 300, creative_version=70_000),
        event(creative_version=-3, watch_percent=75, quality_reasons=["ivt_data_center", "ü", ""], consent={}),
        event(quality_reasons=["token_expired"], consent={"tcf": "ö", "opt_out": "1", "opt_out_": "2"}),
    ],
)
def test_columns_and_packed_dimensions_are_the_events(decode: Decode, record: dict[str, Any]) -> None:
    decoded = decode(encoded(record, newest()), newest())
    assert decoded is not None
    (event_id, campaign_id, time_ms, watched, reasons, joined, opt_out), dimensions = decoded
    assert dimensions == packed(record)
    assert (bytes(event_id), str(campaign_id), time_ms) == (record["event_id"], "cmp", record["event_time_ms"])
    assert watched == record["watch_percent"]
    assert [str(reasons.getString(i)) for i in range(reasons.size())] == record["quality_reasons"]
    assert str(joined) == ",".join(record["quality_reasons"])
    assert (None if opt_out is None else str(opt_out)) == record["consent"].get("opt_out")


def test_a_writer_that_knows_less_gets_the_readers_defaults(decode: Decode) -> None:
    older = newest()
    without = ("creative_version", "currency", "platform", "watch_percent", "quality_reasons", "consent")
    older["fields"] = [field for field in older["fields"] if field["name"] not in without]
    record = event()
    decoded = decode(encoded(record, older), older)
    assert decoded is not None
    assert (str(decoded[0][-2]), decoded[0][-1]) == ("", None)
    assert decoded[1] == packed(record | {"creative_version": 1, "currency": "USD", "platform": None})


@pytest.mark.parametrize("name", ["advertiser_id", "campaign_id", "currency"])
def test_a_text_that_is_no_utf8_does_not_decode(decode: Decode, name: str) -> None:
    message = encoded(event(**{name: "before-XX-after"}), newest()).replace(b"-XX-", b"-\xc3\x28-")
    assert decode(message, newest()) is None


@pytest.mark.parametrize("name", ["quality_reasons", "consent"])
def test_a_text_of_many_that_is_no_utf8_does_not_decode(decode: Decode, name: str) -> None:
    value = ["before-XX-after"] if name == "quality_reasons" else {"opt_out": "before-XX-after"}
    message = encoded(event(**{name: value}), newest())
    assert decode(message, newest()) is not None
    assert decode(message.replace(b"-XX-", b"-\xc3\x28-"), newest()) is None


def test_a_record_that_is_cut_off_does_not_decode(decode: Decode) -> None:
    message = encoded(event(), newest())
    assert not any(decode(message[:size], newest()) for size in (0, 1, 40, len(message) // 2, len(message) - 1))
    assert decode(message + b"\x00", newest()) is None
