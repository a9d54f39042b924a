// The connector `absolute-kafka`: a Kafka sink for absolute values, of which only the last of each key counts.
//
// Each subtask collects what passes by, and every `absolute.interval.ms` writes the last row of each key, and before each
// checkpoint's barrier. At least once; nothing is held across a checkpoint. All rows of a key must be in one subtask.
//
// Why not upsert-kafka with avro-confluent. It copies each row field by field, and makes an Avro record of it when it
// writes; for a row of a few numbers and some bytes both cost more than what the row says. Here a row is Avro bytes at
// once (RowAvroWriter.java), and what waits is two arrays.
//
// Options: `absolute.key`, a STRING column, the record's key, which is not in the value; `absolute.schema`, the value's Avro
// schema, whose fields are columns; `absolute.url` and `absolute.subject`, where the registry has it.
// Every other option is the `kafka` connector's own.
package headwater;

import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.catalog.Column;
import org.apache.flink.table.catalog.ResolvedSchema;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.DynamicTableSinkFactory;
import org.apache.flink.table.types.logical.RowType;

public final class AbsoluteKafkaSink implements DynamicTableSinkFactory {
    public String factoryIdentifier() {
        return "absolute-kafka";
    }

    public Set requiredOptions() {
        return new HashSet();
    }

    public Set optionalOptions() {
        return new HashSet();
    }

    public DynamicTableSink createDynamicTableSink(DynamicTableFactory.Context context) {
        Map kafka = new HashMap();
        Map own = KafkaBehind.options(context, "absolute.", kafka);
        RowType row = (RowType) context.getPhysicalRowDataType().getLogicalType();
        String[] needed = {"key", "schema", "url", "subject", "interval.ms"};
        for (int i = 0; i < needed.length; i++) {
            if (own.get(needed[i]) == null) {
                throw new ValidationException("absolute-kafka: no option absolute." + needed[i]);
            }
        }
        int key = row.getFieldIndex((String) own.get("key"));
        if (key < 0 || !row.getTypeAt(key).getTypeRoot().name().equals("VARCHAR")) {
            throw new ValidationException("absolute-kafka: the key is no STRING column: " + own.get("key"));
        }
        String schema = (String) own.get("schema");
        LatestOperator latest = new LatestOperator(
                key,
                new RowAvroWriter(row, schema),
                new RegistrySubject((String) own.get("url"), (String) own.get("subject"), schema),
                Long.parseLong((String) own.get("interval.ms")));
        kafka.put("key.format", "raw");
        kafka.put("key.fields", "key");
        kafka.put("value.format", "raw");
        kafka.put("value.fields-include", "EXCEPT_KEY");
        ResolvedSchema written = ResolvedSchema.of(Arrays.asList(new Column[] {
            Column.physical("key", DataTypes.BYTES()), Column.physical("value", DataTypes.BYTES())
        }));
        return KafkaBehind.of(context, "keep latest", latest, written, kafka);
    }
}
