"""The connector `absolute-kafka`: the bytes it writes, and which of a key's rows it writes when."""

from __future__ import annotations

import datetime
import io
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.flink.tables import columns
from schemas.codec import schema_text
from tests.samples.flink_java import FlinkJava
from tests.samples.one_id_registry import SCHEMA_ID, one_id_registry

#: A row's values by column -> the record's bytes.
Write = Callable[[Mapping[str, Any], str], bytes]

NULLABLE = json.dumps(
    {
        "type": "record",
        "name": "Some",
        "fields": [
            {"name": "text", "type": ["null", "string"]},
            {"name": "number", "type": ["long", "null"]},
            {"name": "flag", "type": "boolean"},
            {"name": "count", "type": {"type": "int", "logicalType": "date"}},
        ],
    }
)


#: What an operator runs in: a clock that the test moves, and a list of what it gives.
PROBE = """
package headwater;

import java.lang.reflect.Field;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ScheduledFuture;
import org.apache.flink.api.common.operators.ProcessingTimeService.ProcessingTimeCallback;
import org.apache.flink.runtime.event.WatermarkEvent;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.operators.Output;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.LatencyMarker;
import org.apache.flink.streaming.runtime.streamrecord.RecordAttributes;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.tasks.ProcessingTimeService;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.util.OutputTag;
import org.apache.flink.util.clock.Clock;

public final class OperatorProbe implements ProcessingTimeService, Output {
    private final List given = new ArrayList();
    private final List due = new ArrayList();
    private long nowMs = 1000;
    private ProcessingTimeCallback callback;

    public OperatorProbe(AbstractStreamOperator of) throws Exception {
        set(of, "output", this);
        set(of, "processingTimeService", this);
    }

    private static void set(Object of, String name, Object value) throws Exception {
        Field field = AbstractStreamOperator.class.getDeclaredField(name);
        field.setAccessible(true);
        field.set(of, value);
    }

    public void passTo(long timeMs) throws Exception {
        this.nowMs = timeMs;
        for (int i = this.due.size() - 1; i >= 0; i--) {
            Long at = (Long) this.due.get(i);
            if (at.longValue() <= timeMs) {
                this.due.remove(i);
                this.callback.onProcessingTime(at.longValue());
            }
        }
    }

    /** Rows of keys `k-0` and so on. */
    public void fill(OneInputStreamOperator of, int rows) throws Exception {
        for (int i = 0; i < rows; i++) {
            BinaryStringData key = BinaryStringData.fromString("k-" + i);
            of.processElement(new StreamRecord(GenericRowData.of(new Object[] {key, key, Long.valueOf(i)})));
        }
    }

    public List taken() {
        List taken = new ArrayList(this.given);
        this.given.clear();
        return taken;
    }

    public void collect(Object record) {
        this.given.add(((StreamRecord) record).getValue());
    }

    public long getCurrentProcessingTime() {
        return this.nowMs;
    }

    public ScheduledFuture registerTimer(long timeMs, ProcessingTimeCallback callback) {
        this.callback = callback;
        this.due.add(Long.valueOf(timeMs));
        return null;
    }

    public ScheduledFuture scheduleAtFixedRate(ProcessingTimeCallback callback, long first, long every) {
        throw new UnsupportedOperationException();
    }

    public ScheduledFuture scheduleWithFixedDelay(ProcessingTimeCallback callback, long first, long every) {
        throw new UnsupportedOperationException();
    }

    public Clock getClock() {
        throw new UnsupportedOperationException();
    }

    public CompletableFuture quiesce() {
        throw new UnsupportedOperationException();
    }

    public void collect(OutputTag tag, StreamRecord record) {
        throw new UnsupportedOperationException();
    }

    public void emitWatermark(Watermark mark) {}

    public void emitWatermarkStatus(WatermarkStatus status) {}

    public void emitLatencyMarker(LatencyMarker marker) {}

    public void emitRecordAttributes(RecordAttributes attributes) {}

    public void emitWatermark(WatermarkEvent event) {}

    public void close() {}
}
"""


@pytest.fixture(scope="module")
def java() -> FlinkJava:
    return FlinkJava([("OperatorProbe", PROBE)])


_FLINK = {
    "text": "STRING",
    "number": "BIGINT",
    "flag": "BOOLEAN NOT NULL",
    "count": "INT NOT NULL",
    "key": "STRING",
} | {column.name: column.type for schema in ("counter_bucket", "campaign_spend") for column in columns(schema)}


def row_type(java: FlinkJava, names: Iterable[str]) -> Any:
    fields = ", ".join(f"`{name}` {_FLINK[name]}" for name in names)
    loader = java.jvm.java.lang.ClassLoader.getSystemClassLoader()
    return java.jvm.org.apache.flink.table.types.logical.utils.LogicalTypeParser.parse(f"ROW<{fields}>", loader)


def row_data(java: FlinkJava, row: Mapping[str, Any]) -> Any:
    text = java.jvm.org.apache.flink.table.data.StringData.fromString
    values = java.array(java.jvm.Object, [text(v) if isinstance(v, str) else v for v in row.values()])
    for at, (name, value) in enumerate(row.items()):
        if _FLINK[name].startswith("BIGINT") and value is not None:  # py4j makes an Integer of a small number
            java.jvm.System.arraycopy(java.array(java.jvm.Long, [value]), 0, values, at, 1)
    return java.jvm.org.apache.flink.table.data.GenericRowData.of(values)


@pytest.fixture(scope="module")
def write(java: FlinkJava) -> Write:
    def written(row: Mapping[str, Any], schema: str) -> bytes:
        writer, out = java.new("RowAvroWriter", row_type(java, row), schema), java.new("PackedWriter", 8)
        java.call("RowAvroWriter", "write", writer, row_data(java, row), out)
        size = java.field("PackedWriter", "position", out)
        return bytes(java.field("PackedWriter", "bytes", out))[:size]

    return written


def read(record: bytes, schema: str) -> dict[str, Any]:
    """What the record says; fails when bytes are left."""
    source = io.BytesIO(record)
    found = fastavro.schemaless_reader(source, fastavro.parse_schema(json.loads(schema)), None)
    assert source.read() == b""
    assert isinstance(found, dict)
    return found


LONGS = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=60, deadline=None)
@given(text=st.text(), number=LONGS, entries=st.binary(max_size=300))
def test_a_record_is_what_another_reader_finds(write: Write, text: str, number: int, entries: bytes) -> None:
    fields = {"entity_type": "user", "entity_id": text, "bucket_s": number, "bucket_start_ms": -number - 1}
    fields |= {"entries": entries, "updated_ms": 0}
    schema = schema_text("counter_bucket")
    assert read(write({"key": "not in it", **fields}, schema), schema) == fields


@pytest.mark.parametrize("text", [None, "", "ä"])
@pytest.mark.parametrize("number", [None, 0, -1])
def test_null_is_where_the_schema_has_it(write: Write, text: str | None, number: int | None) -> None:
    fields = {"text": text, "number": number, "flag": text is None, "count": 70_000}
    found = read(write(fields, NULLABLE), NULLABLE)
    assert found == fields | {"count": datetime.date(1970, 1, 1) + datetime.timedelta(70_000)}


@pytest.mark.parametrize(
    ("names", "schema", "told"),
    [
        (("text", "number", "flag"), NULLABLE, "no column for field count"),
        (("number", "flag", "count", "text"), NULLABLE.replace('"boolean"', '"double"'), "field flag: no way"),
        (("text", "number", "flag", "count"), NULLABLE.replace('["null", "string"]', '"string"'), "field text: no way"),
        (("text",), "{", "no Avro schema"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_before_anything_runs(
    java: FlinkJava, names: tuple[str, ...], schema: str, told: str
) -> None:
    with pytest.raises(Exception, match=told):
        java.new("RowAvroWriter", row_type(java, names), schema)


class Latest:
    """The operator with an interval of 100 ms, at 1,000 ms on its clock; rows are (key, text, number)."""

    def __init__(self, java: FlinkJava, registry_url: str) -> None:
        self._java = java
        schema = json.dumps(
            {
                "type": "record",
                "name": "Some",
                "fields": [{"name": "text", "type": "string"}, {"name": "number", "type": ["null", "long"]}],
            }
        )
        self._schema = schema
        row = java.jvm.org.apache.flink.table.types.logical.utils.LogicalTypeParser.parse(
            "ROW<`key` STRING NOT NULL, `text` STRING NOT NULL, `number` BIGINT>",
            java.jvm.java.lang.ClassLoader.getSystemClassLoader(),
        )
        subject = java.new("RegistrySubject", registry_url, "some-value", schema)
        values = java.new("AvroValues", java.new("RowAvroWriter", row, schema), subject)
        self._operator = java.new("LatestOperator", 0, values, 100)
        self._probe = java.new("OperatorProbe", self._operator)
        java.call("LatestOperator", "begin", self._operator)

    def take(self, key: str, text: str, number: int | None) -> None:
        row = row_data(self._java, {"key": key, "text": text, "number": number})
        record = self._java.jvm.org.apache.flink.streaming.runtime.streamrecord.StreamRecord(row)
        self._java.call("LatestOperator", "processElement", self._operator, record)

    def fill(self, rows: int) -> None:
        """Rows of so many keys."""
        self._java.call("OperatorProbe", "fill", self._probe, self._operator, rows)

    def pass_to(self, time_ms: int) -> None:
        self._java.call("OperatorProbe", "passTo", self._probe, time_ms)

    def barrier(self) -> None:
        self._java.call("HoldingOperator", "prepareSnapshotPreBarrier", self._operator, 1)

    def end(self) -> None:
        self._java.call("HoldingOperator", "finish", self._operator)

    def given(self) -> dict[str, tuple[str, int | None]]:
        """What was written since the last call; fails when a key is there twice."""
        found = {}
        for row in self._java.call("OperatorProbe", "taken", self._probe):
            key, value = bytes(row.getField(0)).decode(), bytes(row.getField(1))
            assert value[:5] == b"\x00\x00\x00\x01\x07"  # the id 263
            assert key not in found
            found[key] = tuple(read(value[5:], self._schema).values())
        return found


@pytest.fixture
def latest(java: FlinkJava) -> Latest:
    with one_id_registry() as registry:
        return Latest(java, registry.url)


def test_the_last_row_of_each_key_is_written_when_the_interval_is_over(latest: Latest) -> None:
    latest.take("a", "first", 1)
    latest.take("b", "only", None)
    latest.take("a", "second", 2)
    latest.pass_to(1_099)
    assert latest.given() == {}
    latest.pass_to(1_100)
    assert latest.given() == {"a": ("second", 2), "b": ("only", None)}
    latest.pass_to(1_250)
    latest.take("a", "third", 3)
    latest.pass_to(1_299)
    assert latest.given() == {}
    latest.pass_to(1_300)
    assert latest.given() == {"a": ("third", 3)}


def test_what_waits_is_written_before_a_barrier_and_at_the_end(latest: Latest) -> None:
    latest.take("a", "before", 1)
    latest.barrier()
    assert latest.given() == {"a": ("before", 1)}
    latest.take("a", "after", 2)
    latest.end()
    assert latest.given() == {"a": ("after", 2)}
    latest.pass_to(1_100)
    assert latest.given() == {}


def test_many_keys_do_not_wait(latest: Latest) -> None:
    latest.fill(9_999)
    assert latest.given() == {}
    latest.fill(10_000)  # all but one for the second time
    assert len(latest.given()) == 10_000


def test_the_registry_is_asked_for_the_id_of_the_schema(java: FlinkJava) -> None:
    with one_id_registry() as registry:
        subject = java.new("RegistrySubject", registry.url, "some-value", NULLABLE)
        assert java.call("RegistrySubject", "schemaId", subject) == SCHEMA_ID
    assert registry.asked == [("/subjects/some-value/versions", {"schema": NULLABLE})]


def test_what_the_registry_says_of_a_schema_that_it_refuses_is_told(java: FlinkJava) -> None:
    with one_id_registry(refusal="field text has another type") as registry:
        subject = java.new("RegistrySubject", registry.url, "some-value", NULLABLE)
        with pytest.raises(Exception, match=r"some-value/versions with 409: .*field text has another type"):
            java.call("RegistrySubject", "schemaId", subject)
