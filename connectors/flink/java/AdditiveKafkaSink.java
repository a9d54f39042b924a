// The connector `additive-kafka`: a Kafka sink for additive rows, which adds up rows of equal keys before it writes them.
//
// Sums do not care where they are cut. So deltas need no window, no keyed state and no shuffle: each subtask adds up what
// passes by, and writes the sums before each checkpoint's barrier and at the end of a bounded input. No earlier: readers
// see what an exactly-once sink wrote when the checkpoint is complete. Nothing is held across a checkpoint.
//
// The value is JSON (AdditiveJson.java); the table has no format of its own.
// Options, columns separated by commas; all other columns are the key:
// `additive.sum`, `additive.max` (never null): BIGINT. `additive.union`: STRING, written as an array of the texts, which may repeat
// (sketches do not mind). `additive.count.column` is a STRING whose texts are counted, `additive.count` says where:
// `text:column,...`; those columns are written, the counted one is not. So a query hands over an event's type instead of
// a column per type of which all but one are 0. `additive.packed`: a BYTES column with all texts and INTs of the key, named in
// `additive.packed.texts` and `additive.packed.numbers` (PackedFields.java). `additive.absent`: what a key's text that is null is written as.
// Every other option is the `kafka` connector's own.
package headwater;

import java.util.Collections;
import java.util.Map;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.Column;
import org.apache.flink.table.catalog.ResolvedSchema;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.types.logical.RowType;

public final class AdditiveKafkaSink extends KafkaSinkFactory {
    public AdditiveKafkaSink() {
        super("additive", new String[0]);
    }

    DynamicTableSink sink(DynamicTableFactory.Context context, RowType row, Map own, String connector, Map others) {
        AddingOperator addUp = new AddingOperator(new AdditiveColumns(row, own));
        others.put("format", "raw");
        ResolvedSchema written =
                ResolvedSchema.of(Collections.singletonList(Column.physical("json", DataTypes.BYTES())));
        return KafkaBehind.of(context, new OneBeforeKafka("add up", addUp), written, connector, others);
    }
}
