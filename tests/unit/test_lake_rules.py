"""What the lake does with single records: decoding, refusing, offsets, and Delta's exactly-once on a local folder."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from connectors.delta import ProgressTable, arrow_schema, sql
from connectors.registry import NotRegistered
from jobs.batch.settings import BatchSettings
from jobs.lake.buffer import TableBuffer
from jobs.lake.decoding import RowDecoder
from jobs.lake.tables import BRONZE, HOUR_COLUMN, event_hour
from jobs.streaming.settings import Settings
from schemas.codec import Encoder, parsed_schema, schema_text
from schemas.errors import Fenced, Refused, Reject, RejectReason, Unavailable
from schemas.events import OLDEST_MS
from tests.samples.ad_traffic import traffic

EVENTS = BRONZE[0]


def known(schema_id: int) -> object:
    if schema_id != 7:
        raise NotRegistered("no such schema")
    return json.loads(schema_text("ad_event"))


def test_every_bronze_table_has_its_contracts_columns_and_where_they_came_from() -> None:
    for table in BRONZE:
        names = table.arrow_schema().names
        contract = [f["name"] for f in parsed_schema(table.schema_name)["fields"]]
        assert names[: len(contract)] == contract
        assert {"kafka_partition", "kafka_offset", "kafka_time_ms", "ingest_time_ms", HOUR_COLUMN} <= set(names)
        assert table.time_column in contract


def test_a_valid_record_becomes_a_row_with_its_hour() -> None:
    event = traffic(ads=1).events[0]
    schema_id, row = RowDecoder(EVENTS, known)(Encoder("ad_event", 7)(event))
    assert schema_id == 7
    assert isinstance(row, dict)
    assert {k: row[k] for k in event} == event
    assert row[HOUR_COLUMN] == event_hour(event["event_time_ms"])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, RejectReason.UNDECODABLE),
        (b"", RejectReason.UNDECODABLE),
        (b"rubbish", RejectReason.UNDECODABLE),
        (b"\x00\x00\x00\x00\x07\x02", RejectReason.UNDECODABLE),
        (b"\x00\x00\x00\x00\x09abc", RejectReason.UNKNOWN_SCHEMA),
    ],
)
def test_what_is_no_record_is_refused_with_its_reason(value: bytes | None, reason: RejectReason) -> None:
    _, row = RowDecoder(EVENTS, known)(value)
    assert isinstance(row, Reject)
    assert row.reason == reason


def test_a_truncated_record_and_an_absurd_time_are_refused() -> None:
    encode, decode = Encoder("ad_event", 7), RowDecoder(EVENTS, known)
    event = traffic(ads=1).events[0]
    for value, reason in (
        (encode(event)[:-3], RejectReason.UNDECODABLE),
        (encode(event) + b"x", RejectReason.UNDECODABLE),
        (encode(event | {"event_time_ms": 10**17}), RejectReason.ABSURD_TIME),
        (encode(event | {"event_time_ms": -5}), RejectReason.ABSURD_TIME),
    ):
        assert decode(value)[1].reason == reason


def test_a_record_is_not_judged_while_the_registry_is_away() -> None:
    def away(_: int) -> object:
        raise Unavailable("registry")

    with pytest.raises(Unavailable):
        RowDecoder(EVENTS, away)(Encoder("ad_event", 7)(traffic(ads=1).events[0]))


def test_a_writer_of_another_version_is_read_as_our_contract() -> None:
    newer = json.loads(schema_text("ad_event"))
    newer["fields"].append({"name": "from_the_future", "type": "string", "default": ""})
    older = json.loads(schema_text("ad_event"))
    older["fields"] = [f for f in older["fields"] if f["name"] != "captions"]
    event = traffic(ads=1).events[0]
    for writer in (newer, older):
        import io

        import fastavro

        out = io.BytesIO(b"\x00\x00\x00\x00\x07")
        out.seek(5)
        fastavro.schemaless_writer(out, fastavro.parse_schema(writer), event)
        _, row = RowDecoder(EVENTS, lambda _, w=writer: w)(out.getvalue())
        assert isinstance(row, dict), row
        assert row["record_id"] == event["record_id"]
        assert row["captions"] is None
        assert "from_the_future" not in row


def _buffer(first_offset: int, events: list[dict], committed: int | None) -> TableBuffer:
    decode, encode = RowDecoder(EVENTS, known), Encoder("ad_event", 7)
    buffer = TableBuffer(EVENTS, EVENTS.arrow_schema())
    buffer.begin(0, committed)
    for offset, event in enumerate(events, first_offset):
        row = decode(encode(event))[1]
        assert isinstance(row, dict)
        row |= {"kafka_partition": 0, "kafka_offset": offset, "kafka_time_ms": 1, "ingest_time_ms": 2}
        buffer.add(row)
        buffer.advance(0, offset)
    return buffer


def _append(table: ProgressTable, buffer: TableBuffer) -> None:
    table.append(buffer.arrow(), buffer.expected(), buffer.progress(), buffer.lineage("test"))


def test_rows_and_offsets_are_one_commit_and_a_repeat_changes_nothing(tmp_path: Path) -> None:
    events = traffic(ads=5).events
    uri = str(tmp_path / "t")
    table = ProgressTable(uri, EVENTS.arrow_schema(), [HOUR_COLUMN], {})
    buffer = _buffer(0, events, None)
    _append(table, buffer)
    _append(table, buffer)  # as after an error that hid a commit that did happen
    again = ProgressTable(uri, EVENTS.arrow_schema(), [HOUR_COLUMN], {})
    assert again.progress(EVENTS.app_id(0)) == len(events)
    counted = sql("SELECT count(*) AS n, count(DISTINCT kafka_offset) AS d FROM t", t=DeltaTable(uri))
    assert counted.to_pylist() == [{"n": len(events), "d": len(events)}]
    lineage = json.loads(DeltaTable(uri).history(1)[0]["userMetadata"])
    assert lineage["offsets"] == {"0": [None, len(events)]}
    assert lineage["rows"] == len(events)


def test_a_writer_that_was_overtaken_is_fenced(tmp_path: Path) -> None:
    events = traffic(ads=5).events
    uri = str(tmp_path / "t")
    old = ProgressTable(uri, EVENTS.arrow_schema(), [HOUR_COLUMN], {})
    new = ProgressTable(uri, EVENTS.arrow_schema(), [HOUR_COLUMN], {})
    _append(new, _buffer(0, events, None))
    with pytest.raises(Fenced):
        _append(old, _buffer(0, events, None))
    assert sql("SELECT count(*) AS n FROM t", t=DeltaTable(uri)).to_pylist() == [{"n": len(events)}]


def test_progress_moves_with_refused_records_alone(tmp_path: Path) -> None:
    table = ProgressTable(str(tmp_path / "t"), EVENTS.arrow_schema(), [HOUR_COLUMN], {})
    buffer = _buffer(0, [], None)
    buffer.advance(0, 41)
    _append(table, buffer)
    assert table.progress(EVENTS.app_id(0)) == 42


def test_bronze_refuses_to_be_changed_and_asks_for_no_feature_that_a_reader_lacks(tmp_path: Path) -> None:
    from jobs.lake.tables import CONFIGURATION

    uri = str(tmp_path / "t")
    table = ProgressTable(uri, EVENTS.arrow_schema(), [HOUR_COLUMN], CONFIGURATION)
    _append(table, _buffer(0, traffic(ads=2).events, None))
    with pytest.raises(Exception, match="append"):
        DeltaTable(uri).delete()
    protocol = DeltaTable(uri).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)


def test_sql_refuses_a_table_that_is_not_there() -> None:
    with pytest.raises(Refused):
        sql("SELECT 1 FROM t", t="bronze/nothing_here")


def test_arrow_types_of_nested_contracts() -> None:
    schema = arrow_schema("ad_decision")
    assert pa.types.is_map(schema.field("features").type)
    assert pa.types.is_struct(schema.field("candidates").type.value_type)


def test_a_batch_of_some_hours_looks_for_the_copies_that_the_stream_let_through() -> None:
    within_ms = BatchSettings().copies_within_h * 3_600_000
    assert within_ms >= OLDEST_MS > Settings().deduplication_ttl_s * 1000
