// The connector `avro-kafka`: Flink's Kafka sink for Avro records, whose bytes are written straight from Flink's rows.
//
// Why not the `kafka` connector with avro-confluent. It makes an Avro record of every row, with a String of each text, and
// writes that: most of what writing a session cost.
//
// Options: `avro.key`, a STRING or BYTES column, the record's key; `avro.schema`, the value's Avro schema, whose fields are columns;
// `avro.url` and `avro.subject`, where the registry has it.
// Every other option is the `kafka` connector's own.
package headwater;

import java.util.Map;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.types.logical.RowType;

public final class AvroKafkaSink extends KafkaSinkFactory {
    public AvroKafkaSink() {
        super("avro", new String[] {"key", "schema", "url", "subject"});
    }

    DynamicTableSink sink(DynamicTableFactory.Context context, RowType row, Map own, String connector, Map others) {
        int key = keyColumn(row, own, new String[] {TEXT, BYTES});
        boolean textKey = row.getTypeAt(key).getTypeRoot().name().equals(TEXT);
        WriteOperator write = new WriteOperator(key, textKey, AvroValues.of(row, own));
        return KafkaBehind.ofBytes(context, new OneBeforeKafka("write", write), connector, others);
    }
}

/** Gives (key, value) as bytes. */
final class WriteOperator extends AbstractStreamOperator implements OneInputStreamOperator {
    private static final long serialVersionUID = 1L;

    private final int key;
    private final boolean textKey;
    private final AvroValues values;

    WriteOperator(int key, boolean textKey, AvroValues values) {
        this.key = key;
        this.textKey = textKey;
        this.values = values;
    }

    public void open() throws Exception {
        super.open();
        this.values.open();
    }

    public void processElement(StreamRecord element) throws Exception {
        RowData row = (RowData) element.getValue();
        byte[] key = null;
        if (!row.isNullAt(this.key)) {
            key = this.textKey ? row.getString(this.key).toBytes() : row.getBinary(this.key);
        }
        this.output.collect(this.values.record(key, this.values.of(row)));
    }
}
