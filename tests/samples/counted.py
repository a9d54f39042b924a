"""The connector `counters-kafka` with a file in the place of Kafka: its operators, their state and what they write."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connectors.flink.java_jar import Source
from connectors.flink.tables import Cluster
from jobs.streaming.counters import COUNTERS_KAFKA
from jobs.streaming.job import Output
from jobs.streaming.own_java import own_java
from jobs.streaming.settings import Settings
from jobs.streaming.tables import SINKS, insert_statement
from schemas.codec import decode, parsed_schema, split_header
from tests.samples.one_id_registry import SCHEMA_ID, one_id_registry

if TYPE_CHECKING:
    from pyflink.table import StreamTableEnvironment

_KEPT = "counters-kept"
_JAVA: tuple[Source, ...] = (
    (
        "CountersKept",
        f"""
package headwater;

import java.util.HashSet;
import java.util.Set;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.DynamicTableSinkFactory;

public final class CountersKept implements DynamicTableSinkFactory {{
    public String factoryIdentifier() {{
        return "{_KEPT}";
    }}

    public Set requiredOptions() {{
        return new HashSet();
    }}

    public Set optionalOptions() {{
        return new HashSet();
    }}

    public DynamicTableSink createDynamicTableSink(DynamicTableFactory.Context context) {{
        return new CountersKafkaSink().sink(context, "kept");
    }}
}}
""",
    ),
    (
        "Kept",
        """
package headwater;

import java.io.DataOutputStream;
import java.io.FileOutputStream;
import java.util.HashSet;
import java.util.Set;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.connector.sink.SinkV2Provider;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.DynamicTableSinkFactory;

public final class Kept implements DynamicTableSinkFactory {
    public String factoryIdentifier() {
        return "kept";
    }

    public Set requiredOptions() {
        return new HashSet();
    }

    public Set optionalOptions() {
        return new HashSet();
    }

    public DynamicTableSink createDynamicTableSink(DynamicTableFactory.Context context) {
        return new KeptTable((String) context.getCatalogTable().getOptions().get("topic"));
    }
}

final class KeptTable implements DynamicTableSink {
    private final String path;

    KeptTable(String path) {
        this.path = path;
    }

    public ChangelogMode getChangelogMode(ChangelogMode requested) {
        return ChangelogMode.insertOnly();
    }

    public DynamicTableSink.SinkRuntimeProvider getSinkRuntimeProvider(DynamicTableSink.Context context) {
        return new KeptProvider(this.path);
    }

    public DynamicTableSink copy() {
        return this;
    }

    public String asSummaryString() {
        return "kept";
    }
}

final class KeptProvider implements SinkV2Provider {
    private final String path;

    KeptProvider(String path) {
        this.path = path;
    }

    public Sink createSink() {
        return new KeptSink(this.path);
    }
}

/** Each row is two values of bytes, their lengths before them. */
final class KeptSink implements Sink {
    private static final long serialVersionUID = 1L;
    private final String path;

    KeptSink(String path) {
        this.path = path;
    }

    public SinkWriter createWriter(WriterInitContext context) throws java.io.IOException {
        return new KeptWriter(new DataOutputStream(new FileOutputStream(this.path, true)));
    }
}

final class KeptWriter implements SinkWriter {
    private final DataOutputStream out;

    KeptWriter(DataOutputStream out) {
        this.out = out;
    }

    public void write(Object element, SinkWriter.Context context) throws java.io.IOException {
        RowData row = (RowData) element;
        for (int i = 0; i < 2; i++) {
            this.out.writeInt(row.getBinary(i).length);
            this.out.write(row.getBinary(i));
        }
    }

    public void flush(boolean end) throws java.io.IOException {
        this.out.flush();
    }

    public void close() throws java.io.IOException {
        this.out.close();
    }
}
""",
    ),
)


def java() -> tuple[Source, ...]:
    """The Java of a session that can be asked for `counted_rows`."""
    return (*own_java(), *_JAVA)


def counted_rows(
    session: StreamTableEnvironment, output: Output, settings: Settings, folder: Path
) -> list[dict[str, Any]]:
    """What a table of kind `counted` writes, in its order; the Kafka key as `counter_key`. One subtask."""
    sink = SINKS[output.table]
    path = folder / f"{output.table}.kept"
    path.unlink(missing_ok=True)
    with one_id_registry() as registry:
        ddl = sink.ddl("test", Cluster("nobody:1", registry.url), settings)
        ddl = ddl.replace(f"'{COUNTERS_KAFKA}'", f"'{_KEPT}'").replace(f"'{sink.topic.name}'", f"'{path}'")
        session.execute_sql(ddl)
        session.execute_sql(insert_statement(output)).wait()
    found, source = [], io.BytesIO(path.read_bytes())
    while size := source.read(4):
        key = source.read(int.from_bytes(size, "big")).decode()
        schema_id, value = split_header(source.read(int.from_bytes(source.read(4), "big")))
        assert schema_id == SCHEMA_ID
        found.append({"counter_key": key, **decode(value, parsed_schema("counter_bucket"))})
    return found
