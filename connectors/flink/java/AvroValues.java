// Rows as values of Kafka records: Avro (RowAvroWriter.java) in the Confluent wire format (RegistrySubject.java).
package headwater;

import java.io.IOException;
import java.io.Serializable;
import java.util.Arrays;
import java.util.Map;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.RowType;

/** One per operator, which opens it before anything else. */
final class AvroValues implements Serializable {
    private static final long serialVersionUID = 1L;

    private final RowAvroWriter writer;
    private final RegistrySubject subject;

    private transient PackedWriter value;
    private transient StreamRecord out;

    AvroValues(RowAvroWriter writer, RegistrySubject subject) {
        this.writer = writer;
        this.subject = subject;
    }

    /** Of rows with these columns, by a connector's options `schema`, `url` and `subject`. */
    static AvroValues of(RowType row, Map options) {
        String schema = (String) options.get("schema");
        return new AvroValues(
                new RowAvroWriter(row, schema),
                new RegistrySubject((String) options.get("url"), (String) options.get("subject"), schema));
    }

    /** Asks the registry for the schema's id. Errors: IOException when it does not answer, or refuses. */
    void open() throws IOException {
        this.value = new PackedWriter(256);
        this.value.put(RegistrySubject.header(this.subject.schemaId()), 0, RegistrySubject.HEADER_BYTES);
        this.out = new StreamRecord(null);
    }

    byte[] of(RowData row) {
        this.value.position = RegistrySubject.HEADER_BYTES;
        this.writer.write(row, this.value);
        return Arrays.copyOf(this.value.bytes, this.value.position);
    }

    /** What an operator gives for the sink: a row (key, value), in a record that is used again. */
    StreamRecord record(byte[] key, byte[] value) {
        return this.out.replace(GenericRowData.of(new Object[] {key, value}));
    }
}
