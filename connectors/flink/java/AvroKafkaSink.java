// The connector `avro-kafka`: Flink's Kafka sink for Avro records, whose bytes are written straight from Flink's rows.
//
// Why not the `kafka` connector with avro-confluent. It makes an Avro record of every row, with a String of each text, and
// writes that: most of what writing a session cost.
//
// Options: `avro.key`, a STRING or BYTES column, the record's key; `avro.schema`, the value's Avro schema, whose fields are columns;
// `avro.url` and `avro.subject`, where the registry has it.
// Every other option is the `kafka` connector's own.
package headwater;

import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.DynamicTableSinkFactory;
import org.apache.flink.table.types.logical.RowType;

public final class AvroKafkaSink implements DynamicTableSinkFactory {
    public String factoryIdentifier() {
        return "avro-kafka";
    }

    public Set requiredOptions() {
        return new HashSet();
    }

    public Set optionalOptions() {
        return new HashSet();
    }

    public DynamicTableSink createDynamicTableSink(DynamicTableFactory.Context context) {
        Map kafka = new HashMap();
        Map own = KafkaBehind.options(context, "avro.", kafka);
        KafkaBehind.need(own, "avro.", new String[] {"key", "schema", "url", "subject"});
        RowType row = (RowType) context.getPhysicalRowDataType().getLogicalType();
        boolean textKey = KafkaBehind.isText(row, row.getFieldIndex((String) own.get("key")));
        WriteOperator write = new WriteOperator(
                KafkaBehind.keyColumn(row, own, textKey ? KafkaBehind.TEXT : KafkaBehind.BYTES),
                textKey,
                new RowAvroWriter(row, (String) own.get("schema")),
                RegistrySubject.of(own));
        return KafkaBehind.ofBytes(context, new OneBeforeKafka("write", write), KafkaBehind.KAFKA, kafka);
    }
}

/** Gives (key, value) as bytes; the value in the Confluent wire format. */
final class WriteOperator extends AbstractStreamOperator implements OneInputStreamOperator {
    private static final long serialVersionUID = 1L;

    private final int key;
    private final boolean textKey;
    private final RowAvroWriter writer;
    private final RegistrySubject subject;

    private transient AvroValues values;
    private transient StreamRecord out;

    WriteOperator(int key, boolean textKey, RowAvroWriter writer, RegistrySubject subject) {
        this.key = key;
        this.textKey = textKey;
        this.writer = writer;
        this.subject = subject;
    }

    public void open() throws Exception {
        super.open();
        this.values = new AvroValues(this.writer, this.subject.schemaId());
        this.out = new StreamRecord(null);
    }

    public void processElement(StreamRecord element) throws Exception {
        RowData row = (RowData) element.getValue();
        byte[] key = null;
        if (!row.isNullAt(this.key)) {
            key = this.textKey ? row.getString(this.key).toBytes() : row.getBinary(this.key);
        }
        this.output.collect(this.out.replace(GenericRowData.of(new Object[] {key, this.values.of(row)})));
    }
}
