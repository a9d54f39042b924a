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
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamSink;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.Column;
import org.apache.flink.table.catalog.ResolvedCatalogTable;
import org.apache.flink.table.catalog.ResolvedSchema;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.ProviderContext;
import org.apache.flink.table.connector.sink.DataStreamSinkProvider;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.connector.sink.SinkV2Provider;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.DynamicTableSinkFactory;
import org.apache.flink.table.factories.FactoryUtil;
import org.apache.flink.table.runtime.typeutils.InternalTypeInfo;
import org.apache.flink.table.types.logical.RowType;

public final class AdditiveKafkaSink implements DynamicTableSinkFactory {
    private static final String PREFIX = "additive.";

    public String factoryIdentifier() {
        return "additive-kafka";
    }

    public Set requiredOptions() {
        return new HashSet();
    }

    public Set optionalOptions() {
        return new HashSet();
    }

    public DynamicTableSink createDynamicTableSink(DynamicTableFactory.Context context) {
        Map kafkaOptions = new HashMap();
        Map own = new HashMap();
        for (Iterator all = context.getCatalogTable().getOptions().entrySet().iterator(); all.hasNext();) {
            Map.Entry option = (Map.Entry) all.next();
            String name = (String) option.getKey();
            if (name.startsWith(PREFIX)) {
                own.put(name.substring(PREFIX.length()), option.getValue());
            } else {
                kafkaOptions.put(name, option.getValue());
            }
        }
        kafkaOptions.put("connector", "kafka");
        RowType row = (RowType) context.getPhysicalRowDataType().getLogicalType();
        AdditiveColumns columns = new AdditiveColumns(row, own);
        kafkaOptions.put("format", "raw");
        ResolvedCatalogTable kafkaTable = new ResolvedCatalogTable(
                context.getCatalogTable().getOrigin().copy(kafkaOptions),
                ResolvedSchema.of(Collections.singletonList(Column.physical("json", DataTypes.BYTES()))));
        DynamicTableFactory.Context kafkaContext = new FactoryUtil.DefaultDynamicTableContext(
                context.getObjectIdentifier(),
                kafkaTable,
                new HashMap(),
                context.getConfiguration(),
                context.getClassLoader(),
                context.isTemporary());
        DynamicTableSinkFactory kafka = (DynamicTableSinkFactory)
                FactoryUtil.discoverFactory(context.getClassLoader(), DynamicTableSinkFactory.class, "kafka");
        return new AdditiveSink(kafka.createDynamicTableSink(kafkaContext), columns);
    }
}

/** Adds up, then hands on to the Kafka sink. */
final class AdditiveSink implements DynamicTableSink {
    private final DynamicTableSink kafka;
    private final AdditiveColumns columns;

    AdditiveSink(DynamicTableSink kafka, AdditiveColumns columns) {
        this.kafka = kafka;
        this.columns = columns;
    }

    public ChangelogMode getChangelogMode(ChangelogMode requested) {
        return ChangelogMode.insertOnly();
    }

    public DynamicTableSink.SinkRuntimeProvider getSinkRuntimeProvider(DynamicTableSink.Context context) {
        return new AdditiveProvider(
                ((SinkV2Provider) this.kafka.getSinkRuntimeProvider(context)).createSink(), this.columns);
    }

    public DynamicTableSink copy() {
        return new AdditiveSink(this.kafka.copy(), this.columns);
    }

    public String asSummaryString() {
        return "additive Kafka sink";
    }
}

final class AdditiveProvider implements DataStreamSinkProvider {
    private static final RowType WRITTEN = (RowType)
            DataTypes.ROW(Collections.singletonList(DataTypes.FIELD("json", DataTypes.BYTES()))).getLogicalType();

    private final Sink kafka;
    private final AdditiveColumns columns;

    AdditiveProvider(Sink kafka, AdditiveColumns columns) {
        this.kafka = kafka;
        this.columns = columns;
    }

    public DataStreamSink consumeDataStream(ProviderContext context, DataStream rows) {
        SingleOutputStreamOperator summed =
                rows.transform("add up", InternalTypeInfo.of(WRITTEN), new AddingOperator(this.columns));
        summed.setParallelism(rows.getParallelism());
        DataStreamSink sink = summed.sinkTo(this.kafka);
        Optional uid = context.generateUid("add-up");
        if (uid.isPresent()) {
            summed.uid((String) uid.get());
            sink.uid((String) context.generateUid("kafka").get());
        }
        return sink;
    }
}
