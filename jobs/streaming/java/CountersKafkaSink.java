// The connector `counters-kafka`: a Kafka sink that counts. Rows are events, what it writes are the absolute values of the
// counters that they change.
//
// Each subtask gathers what its events add (GatheredCounts.java) for `gather.ms`, then sends it to the subtask that keeps
// the entity's counters (CountedBuckets.java), which writes the buckets that have changed every `interval.ms`. Both give all
// they hold before each checkpoint's barrier. At least once: the values are absolute, the last one of a key counts.
//
// Why a sink and not a query. Counters are sums, which may be made in two steps, as Flink's own aggregates are; but to hold
// rows for a moment takes an operator that hears of the barrier, and a function in a query does not. As two functions in
// the query, a row per entity of an event crossed the network, found its state, and became a record for each bucket, of
// which the sink threw away all but the last.
//
// Options `counters.*`: declaration (CounterRules.java), kept.s (how long an entity is kept after its last event),
// buckets (keys of state), gather.ms, interval.ms; url, subject and schema, where the registry has the values' schema.
// Columns: event_type, event_time_ms, published_time_ms, cost_micros, packed ids, packed dimensions.
// Every other option is the `kafka` connector's own.
package headwater;

import java.util.Map;
import org.apache.flink.api.common.state.State;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.BasicTypeInfo;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.connector.ProviderContext;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.types.logical.RowType;

public final class CountersKafkaSink extends KafkaSinkFactory {
    public CountersKafkaSink() {
        super("counters", new String[] {
            "declaration", "kept.s", "buckets", "gather.ms", "interval.ms", "url", "subject", "schema"
        });
    }

    DynamicTableSink sink(DynamicTableFactory.Context context, RowType row, Map own, String connector, Map others) {
        String declaration = (String) own.get("declaration");
        int buckets = (int) number(own, "buckets");
        CountingBeforeKafka before = new CountingBeforeKafka(
                new GatherOperator(declaration, buckets, number(own, "gather.ms")),
                new CountOperator(
                        declaration,
                        buckets,
                        number(own, "kept.s") * 1000L,
                        AvroValues.of(CountedBuckets.rowType(), own),
                        number(own, "interval.ms")),
                "_" + buckets);
        return KafkaBehind.ofBytes(context, before, connector, others);
    }
}

final class CountingBeforeKafka extends BeforeKafka {
    private final GatherOperator gather;
    private final CountOperator count;
    private final String layout;

    CountingBeforeKafka(GatherOperator gather, CountOperator count, String layout) {
        super("count");
        this.gather = gather;
        this.count = count;
        this.layout = layout;
    }

    DataStream of(ProviderContext context, String table, DataStream rows, TypeInformation written) {
        TypeInformation bytes = PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;
        DataStream gathered = operator(context, table, rows, "gather", "", bytes, this.gather);
        DataStream byBucket = gathered.keyBy(new BucketOfMessage(), BasicTypeInfo.INT_TYPE_INFO);
        return operator(context, table, byBucket, this.name, this.layout, written, this.count);
    }
}

final class BucketOfMessage implements KeySelector {
    private static final long serialVersionUID = 1L;

    public Object getKey(Object message) {
        return Integer.valueOf(Packed.getInt((byte[]) message, GatheredCounts.BUCKET));
    }
}

/** Gives messages of GatheredCounts. */
final class GatherOperator extends HoldingOperator {
    private static final long serialVersionUID = 1L;
    /** Entities of which messages are given though it is not time yet: a bound of memory. */
    private static final int MOST_ENTITIES = 20000;

    private final String declaration;
    private final int buckets;

    private transient GatheredCounts gathered;
    private transient StreamRecord out;

    GatherOperator(String declaration, int buckets, long gatherMs) {
        super(gatherMs);
        this.declaration = declaration;
        this.buckets = buckets;
    }

    public void open() throws Exception {
        super.open();
        this.gathered = new GatheredCounts(new CounterRules(this.declaration), this.buckets);
        this.out = new StreamRecord(null);
    }

    public void processElement(StreamRecord element) throws Exception {
        this.gathered.add((RowData) element.getValue());
        if (this.gathered.count() >= MOST_ENTITIES) {
            flush();
        } else {
            hold();
        }
    }

    void flush() {
        byte[][] messages = this.gathered.taken();
        for (int i = 0; i < messages.length; i++) {
            this.output.collect(this.out.replace(messages[i]));
        }
    }
}

/** Takes messages of GatheredCounts, gives (key, value) as bytes. */
final class CountOperator extends HoldingOperator {
    private static final long serialVersionUID = 1L;
    /** Buckets that are written though it is not time yet: a bound of memory. */
    private static final int MOST_BUCKETS = 20000;

    private final String declaration;
    private final int buckets;
    private final long keptMs;
    private final AvroValues values;

    private transient CountedBuckets counted;
    private transient OneValue state;

    CountOperator(String declaration, int buckets, long keptMs, AvroValues values, long intervalMs) {
        super(intervalMs);
        this.declaration = declaration;
        this.buckets = buckets;
        this.keptMs = keptMs;
        this.values = values;
    }

    public void open() throws Exception {
        super.open();
        this.values.open();
        this.counted = new CountedBuckets(new CounterRules(this.declaration), this.buckets, this.keptMs);
        this.state = new OneValue(getPartitionedState(
                new ValueStateDescriptor("buckets", BytePrimitiveArraySerializer.INSTANCE)));
    }

    public void processElement(StreamRecord element) throws Exception {
        this.counted.add(this.state, (byte[]) element.getValue());
        if (this.counted.changes() >= MOST_BUCKETS) {
            flush();
        } else {
            hold();
        }
    }

    void flush() {
        ChangedBucket[] changed = this.counted.taken();
        for (int i = 0; i < changed.length; i++) {
            this.output.collect(this.values.record(changed[i].key(), this.values.of(changed[i].row())));
        }
    }
}

/** The one value of a state as the map with one entry that KeptByBucket knows. */
final class OneValue extends MapView {
    private final ValueState state;

    OneValue(State state) {
        this.state = (ValueState) state;
    }

    public Object get(Object key) throws Exception {
        return this.state.value();
    }

    public void put(Object key, Object value) throws Exception {
        this.state.update(value);
    }
}
