// first_copies(input => TABLE ..., on_time => DESCRIPTOR(rowtime), remember_ms => ...)
//
// Has this event been seen before? For deployments that keep no sessions: with them, AdLives.java answers it as well.
//
// The input is partitioned by `id_bucket` (EventBucket.java), a few ten thousand parts of all event ids, so that all copies
// of an event meet in one of them. Out: the input's row, in a column `event`, for the first copy of each.
//
// State: of each bucket a hash table in an array of bytes (SeenIds.java). A key of its own for each event or ad took an
// entry, a key, a timer and half a dozen objects on the heap for every few bytes that are remembered, and was most of what
// deduplication cost. Nothing is registered to forget: an id whose time is over counts as not seen, and its place is used
// again when its bucket's table is full. The table is the one value of a map, because Flink compares a plain value, every
// byte of it, with what it was before each event.
package headwater;

import java.util.LinkedHashMap;
import java.util.List;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.logical.RowType;

public class FirstCopies extends HandingOnFunction {
    private static final Integer TABLE = Integer.valueOf(0);

    private transient boolean ready;
    private transient WrittenInPlace written;
    private transient int eventId;
    private transient int publishedTimeMs;

    HandingOnFunction another() {
        return new FirstCopies();
    }

    public TypeInference getTypeInference(DataTypeFactory types) {
        LinkedHashMap state = new LinkedHashMap();
        state.put("seen", new MapWithoutEnd((DataType) DataTypes.INT().notNull()));
        StaticArgument[] arguments = new StaticArgument[] {
            input(BY_KEY_IN_TIME),
            StaticArgument.scalar("remember_ms", (DataType) DataTypes.BIGINT().notNull(), false),
        };
        return TypeInference.newBuilder()
                .staticArguments(arguments)
                .stateTypeStrategies(state)
                .outputTypeStrategy(new EventOutput(new DataTypes.Field[0]))
                .build();
    }

    public void eval(ProcessTableFunction.Context context, MapView seen, RowData input, Long rememberMs) throws Exception {
        if (!this.ready) {
            DataType row = context.tableSemanticsFor("input").dataType();
            List names = ((RowType) row.getLogicalType()).getFieldNames();
            this.eventId = names.indexOf("event_id");
            this.publishedTimeMs = names.indexOf("published_time_ms");
            this.written = new WrittenInPlace();
            this.ready = true;
        }
        Long watermarkMs = (Long) context.timeContext(Long.class).currentWatermark();
        byte[] before = (byte[]) seen.get(TABLE);
        byte[] after = SeenIds.add(
                before,
                EventBucket.hash(input.getBinary(this.eventId)),
                input.getLong(this.publishedTimeMs) + rememberMs.longValue(),
                watermarkMs == null ? Long.MIN_VALUE : watermarkMs.longValue());
        if (after != null) {
            this.written.put(seen, TABLE, before, after);
            collect(GenericRowData.of(new Object[] {input}));
        }
    }
}
