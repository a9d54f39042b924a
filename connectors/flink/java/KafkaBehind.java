// What the connectors of this package have in common: a table that an operator of ours takes, with Flink's Kafka sink behind it.
package headwater;

import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamSink;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
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

/** Insert-only rows go to our operators, and what they give to the Kafka sink. */
final class KafkaBehind implements DynamicTableSink {
    private final String table;
    private final BeforeKafka before;
    private final RowType written;
    private final DynamicTableSink kafka;

    private KafkaBehind(String table, BeforeKafka before, RowType written, DynamicTableSink kafka) {
        this.table = table;
        this.before = before;
        this.written = written;
        this.kafka = kafka;
    }

    /**
     * `written` are the columns that the operators give; `connector` is what takes them, `kafka` but in tests, and
     * `options` are its.
     */
    static KafkaBehind of(
            DynamicTableFactory.Context context,
            BeforeKafka before,
            ResolvedSchema written,
            String connector,
            Map options) {
        options.put("connector", connector);
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
                FactoryUtil.discoverFactory(context.getClassLoader(), DynamicTableSinkFactory.class, connector);
        return new KafkaBehind(
                context.getObjectIdentifier().getObjectName(),
                before,
                (RowType) written.toPhysicalRowDataType().getLogicalType(),
                kafka.createDynamicTableSink(behind));
    }

    /** The same of rows (key, value), both bytes. */
    static KafkaBehind ofBytes(
            DynamicTableFactory.Context context, BeforeKafka before, String connector, Map options) {
        options.put("key.format", "raw");
        options.put("key.fields", "key");
        options.put("value.format", "raw");
        options.put("value.fields-include", "EXCEPT_KEY");
        ResolvedSchema written = ResolvedSchema.of(Arrays.asList(new Column[] {
            Column.physical("key", DataTypes.BYTES()), Column.physical("value", DataTypes.BYTES())
        }));
        return of(context, before, written, connector, options);
    }

    public ChangelogMode getChangelogMode(ChangelogMode requested) {
        return ChangelogMode.insertOnly();
    }

    public DynamicTableSink.SinkRuntimeProvider getSinkRuntimeProvider(DynamicTableSink.Context context) {
        Sink sink = ((SinkV2Provider) this.kafka.getSinkRuntimeProvider(context)).createSink();
        return new KafkaBehindProvider(this.table, this.before, this.written, sink);
    }

    public DynamicTableSink copy() {
        return new KafkaBehind(this.table, this.before, this.written, this.kafka.copy());
    }

    public String asSummaryString() {
        return this.before.name + ", then Kafka";
    }
}

/** What happens to rows of a table before the Kafka sink has them. The uid of an operator is its name with hyphens. */
abstract class BeforeKafka {
    final String name;

    BeforeKafka(String name) {
        this.name = name;
    }

    /** The stream of the rows to be written, of type `written`. */
    abstract DataStream of(ProviderContext context, String table, DataStream rows, TypeInformation written);

    /** A stream's operator, of as many subtasks; `layout` ends its uid, so that state of another layout is not taken for its own. */
    static SingleOutputStreamOperator operator(
            ProviderContext context,
            String table,
            DataStream of,
            String name,
            String layout,
            TypeInformation given,
            OneInputStreamOperator operator) {
        SingleOutputStreamOperator made = of.transform(name + " " + table, given, operator);
        made.setParallelism(of.getParallelism());
        Optional uid = context.generateUid(name.replace(' ', '-'));
        if (uid.isPresent()) {
            made.uid((String) uid.get() + layout);
        }
        return made;
    }
}

/** One operator beside each subtask that gives rows. */
final class OneBeforeKafka extends BeforeKafka {
    private final OneInputStreamOperator operator;

    OneBeforeKafka(String name, OneInputStreamOperator operator) {
        super(name);
        this.operator = operator;
    }

    DataStream of(ProviderContext context, String table, DataStream rows, TypeInformation written) {
        return operator(context, table, rows, this.name, "", written, this.operator);
    }
}

final class KafkaBehindProvider implements DataStreamSinkProvider {
    private final String table;
    private final BeforeKafka before;
    private final RowType written;
    private final Sink kafka;

    KafkaBehindProvider(String table, BeforeKafka before, RowType written, Sink kafka) {
        this.table = table;
        this.before = before;
        this.written = written;
        this.kafka = kafka;
    }

    public DataStreamSink consumeDataStream(ProviderContext context, DataStream rows) {
        DataStream written = this.before.of(context, this.table, rows, InternalTypeInfo.of(this.written));
        DataStreamSink sink = written.sinkTo(this.kafka).name(this.table);
        Optional uid = context.generateUid("kafka");
        if (uid.isPresent()) {
            sink.uid((String) uid.get());
        }
        return sink;
    }
}
