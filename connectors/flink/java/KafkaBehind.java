// What the connectors of this package have in common: a table that an operator of ours takes, with Flink's Kafka sink behind it.
package headwater;

import java.util.HashMap;
import java.util.Iterator;
import java.util.Map;
import java.util.Optional;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamSink;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
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

/** Insert-only rows go to the operator, and what it gives to the Kafka sink. Its uid is its name with hyphens. */
final class KafkaBehind implements DynamicTableSink {
    private final String name;
    private final OneInputStreamOperator operator;
    private final RowType written;
    private final DynamicTableSink kafka;

    private KafkaBehind(String name, OneInputStreamOperator operator, RowType written, DynamicTableSink kafka) {
        this.name = name;
        this.operator = operator;
        this.written = written;
        this.kafka = kafka;
    }

    /** `written` are the columns that the operator gives; `options` those of the `kafka` connector for them. */
    static KafkaBehind of(
            DynamicTableFactory.Context context,
            String name,
            OneInputStreamOperator operator,
            ResolvedSchema written,
            Map options) {
        options.put("connector", "kafka");
        ResolvedCatalogTable table =
                new ResolvedCatalogTable(context.getCatalogTable().getOrigin().copy(options), written);
        DynamicTableFactory.Context behind = new FactoryUtil.DefaultDynamicTableContext(
                context.getObjectIdentifier(),
                table,
                new HashMap(),
                context.getConfiguration(),
                context.getClassLoader(),
                context.isTemporary());
        DynamicTableSinkFactory kafka = (DynamicTableSinkFactory)
                FactoryUtil.discoverFactory(context.getClassLoader(), DynamicTableSinkFactory.class, "kafka");
        return new KafkaBehind(
                name,
                operator,
                (RowType) written.toPhysicalRowDataType().getLogicalType(),
                kafka.createDynamicTableSink(behind));
    }

    /** The table's options that begin with `prefix`, without it; all others are added to `others`. */
    static Map options(DynamicTableFactory.Context context, String prefix, Map others) {
        Map own = new HashMap();
        for (Iterator all = context.getCatalogTable().getOptions().entrySet().iterator(); all.hasNext();) {
            Map.Entry option = (Map.Entry) all.next();
            String name = (String) option.getKey();
            if (name.startsWith(prefix)) {
                own.put(name.substring(prefix.length()), option.getValue());
            } else {
                others.put(name, option.getValue());
            }
        }
        return own;
    }

    public ChangelogMode getChangelogMode(ChangelogMode requested) {
        return ChangelogMode.insertOnly();
    }

    public DynamicTableSink.SinkRuntimeProvider getSinkRuntimeProvider(DynamicTableSink.Context context) {
        Sink sink = ((SinkV2Provider) this.kafka.getSinkRuntimeProvider(context)).createSink();
        return new KafkaBehindProvider(this.name, this.operator, this.written, sink);
    }

    public DynamicTableSink copy() {
        return new KafkaBehind(this.name, this.operator, this.written, this.kafka.copy());
    }

    public String asSummaryString() {
        return this.name + ", then Kafka";
    }
}

final class KafkaBehindProvider implements DataStreamSinkProvider {
    private final String name;
    private final OneInputStreamOperator operator;
    private final RowType written;
    private final Sink kafka;

    KafkaBehindProvider(String name, OneInputStreamOperator operator, RowType written, Sink kafka) {
        this.name = name;
        this.operator = operator;
        this.written = written;
        this.kafka = kafka;
    }

    public DataStreamSink consumeDataStream(ProviderContext context, DataStream rows) {
        SingleOutputStreamOperator before = rows.transform(this.name, InternalTypeInfo.of(this.written), this.operator);
        before.setParallelism(rows.getParallelism());
        DataStreamSink sink = before.sinkTo(this.kafka);
        Optional uid = context.generateUid(this.name.replace(' ', '-'));
        if (uid.isPresent()) {
            before.uid((String) uid.get());
            sink.uid((String) context.generateUid("kafka").get());
        }
        return sink;
    }
}
