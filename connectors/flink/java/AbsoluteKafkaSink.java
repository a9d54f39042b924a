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

import java.util.Map;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.types.logical.RowType;

public final class AbsoluteKafkaSink extends KafkaSinkFactory {
    public AbsoluteKafkaSink() {
        super("absolute", new String[] {"key", "schema", "url", "subject", "interval.ms"});
    }

    DynamicTableSink sink(DynamicTableFactory.Context context, RowType row, Map own, String connector, Map others) {
        LatestOperator latest = new LatestOperator(
                keyColumn(row, own, new String[] {TEXT}), AvroValues.of(row, own), number(own, "interval.ms"));
        return KafkaBehind.ofBytes(context, new OneBeforeKafka("keep latest", latest), connector, others);
    }
}
