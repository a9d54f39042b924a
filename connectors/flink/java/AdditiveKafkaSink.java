// The connector `additive-kafka`: a Kafka sink for additive rows, which adds up rows of equal keys before it writes them.
//
// Sums do not care where they are cut. So deltas need no window, no keyed state and no shuffle: each subtask adds up what
// passes by, and writes the sums when `additive.interval` has passed, before each checkpoint's barrier, and at the end of
// a bounded input. Nothing is held across a checkpoint, so an exactly-once sink behind it stays exactly once.
//
// Options: `additive.sum`, `additive.max` (BIGINT NOT NULL), `additive.union` (ARRAY<STRING>): columns separated by
// commas; all others are the key. `additive.interval`. Every other option is the `kafka` connector's own.
package headwater;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamSink;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.catalog.ResolvedCatalogTable;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.ProviderContext;
import org.apache.flink.table.connector.sink.DataStreamSinkProvider;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.DynamicTableSinkFactory;
import org.apache.flink.table.factories.FactoryUtil;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.util.TimeUtils;

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
        ResolvedCatalogTable kafkaTable = context.getCatalogTable().copy(kafkaOptions);
        DynamicTableFactory.Context kafkaContext = new FactoryUtil.DefaultDynamicTableContext(
                context.getObjectIdentifier(),
                kafkaTable,
                new HashMap(),
                context.getConfiguration(),
                context.getClassLoader(),
                context.isTemporary());
        DynamicTableSinkFactory kafka = (DynamicTableSinkFactory)
                FactoryUtil.discoverFactory(context.getClassLoader(), DynamicTableSinkFactory.class, "kafka");
        RowType row = (RowType) context.getPhysicalRowDataType().getLogicalType();
        AdditiveColumns columns = AdditiveColumns.of(row, own);
        long intervalMs = TimeUtils.parseDuration((String) own.get("interval")).toMillis();
        return new AdditiveSink(kafka.createDynamicTableSink(kafkaContext), columns, intervalMs);
    }
}

/** Adds up, then hands on to the Kafka sink. */
final class AdditiveSink implements DynamicTableSink {
    private final DynamicTableSink kafka;
    private final AdditiveColumns columns;
    private final long intervalMs;

    AdditiveSink(DynamicTableSink kafka, AdditiveColumns columns, long intervalMs) {
        this.kafka = kafka;
        this.columns = columns;
        this.intervalMs = intervalMs;
    }

    public ChangelogMode getChangelogMode(ChangelogMode requested) {
        return ChangelogMode.insertOnly();
    }

    public DynamicTableSink.SinkRuntimeProvider getSinkRuntimeProvider(DynamicTableSink.Context context) {
        return new AdditiveProvider(
                (DataStreamSinkProvider) this.kafka.getSinkRuntimeProvider(context), this.columns, this.intervalMs);
    }

    public DynamicTableSink copy() {
        return new AdditiveSink(this.kafka.copy(), this.columns, this.intervalMs);
    }

    public String asSummaryString() {
        return "additive Kafka sink";
    }
}

final class AdditiveProvider implements DataStreamSinkProvider {
    private final DataStreamSinkProvider kafka;
    private final AdditiveColumns columns;
    private final long intervalMs;

    AdditiveProvider(DataStreamSinkProvider kafka, AdditiveColumns columns, long intervalMs) {
        this.kafka = kafka;
        this.columns = columns;
        this.intervalMs = intervalMs;
    }

    public DataStreamSink consumeDataStream(ProviderContext context, DataStream rows) {
        SingleOutputStreamOperator summed =
                rows.transform("add up", rows.getType(), new AddingOperator(this.columns, this.intervalMs));
        summed.setParallelism(rows.getParallelism());
        Optional uid = context.generateUid("add-up");
        if (uid.isPresent()) {
            summed.uid((String) uid.get());
        }
        return this.kafka.consumeDataStream(context, summed);
    }
}
