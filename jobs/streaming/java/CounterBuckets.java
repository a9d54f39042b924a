// SQL function `counter_buckets`: the absolute counters of each entity, a row per bucket that an event has changed.
//
// The state of an entity is one array of bytes: its buckets, each with its counters packed as schemas/redis_layout.py
// has them, so a row is cut out of the state and the materializer writes it through as it is. One value and no map,
// because Flink looks for expired state at each access, and of a map it looks at every entry.
package headwater;

import java.time.Duration;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.StateTypeStrategy;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.StaticArgumentTrait;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;
import org.apache.flink.types.Row;

/**
 * `counter_buckets(input => TABLE updates PARTITION BY entity_key, kept_s => n)`.
 *
 * <p>In: entity_key, updates (of CounterUpdates), event_time_ms, published_time_ms. Out, after entity_key: counter_key,
 * entity_type, entity_id, bucket_s, bucket_start_ms, entries, updated_ms. `kept_s` is how long an entity is kept after
 * its last event; a bucket is dropped at the first event that is published after it is of no use any more.
 */
public final class CounterBuckets extends ProcessTableFunction {
    private static final long serialVersionUID = 1L;
    static final int KEPT_S = 1;
    private static final byte[] NOTHING = new byte[0];
    /** Of a bucket: length, start, end of use in seconds, latest publish time in ms, bytes of entries; each an i64. */
    private static final int HEADER_BYTES = 40;
    private static final int SCOPED_BYTES = 11;
    private static final int PLAIN_BYTES = 9;
    private static final int MOST_SCOPED = 0xffff;

    public void eval(Row state, RowData input, Integer keptS) {
        byte[] updates = input.getBinary(1);
        long eventTimeMs = input.getLong(2);
        long publishedTimeMs = input.getLong(3);
        boolean scoped = updates[0] == 1;
        byte[] packed = useful(state.getField(0) == null ? NOTHING : (byte[]) state.getField(0), publishedTimeMs / 1000L);
        int at = 1;
        while (at < updates.length) { // the updates of one bucket length follow each other
            long bucketS = Packed.getLong(updates, at);
            long startS = Math.floorDiv(eventTimeMs, bucketS * 1000L) * bucketS;
            int bucket = find(packed, bucketS, startS);
            if (bucket == packed.length) {
                packed = Arrays.copyOf(packed, bucket + HEADER_BYTES);
                Packed.putLong(packed, bucket, bucketS);
                Packed.putLong(packed, bucket + 8, startS);
                Packed.putLong(packed, bucket + 16, startS + bucketS + Packed.getLong(updates, at + 8));
            }
            while (at < updates.length && Packed.getLong(updates, at) == bucketS) {
                packed = scoped ? addScoped(packed, bucket, updates, at) : addPlain(packed, bucket, updates, at);
                at += Packed.UPDATE_BYTES;
            }
            Packed.putLong(packed, bucket + 24, Math.max(Packed.getLong(packed, bucket + 24), publishedTimeMs));
            emit(input.getString(0), packed, bucket);
        }
        state.setField(0, packed);
    }

    /** A copy without the buckets whose use has ended. */
    private static byte[] useful(byte[] packed, long nowS) {
        byte[] kept = new byte[packed.length];
        int end = 0;
        int at = 0;
        while (at < packed.length) {
            int bytes = HEADER_BYTES + (int) Packed.getLong(packed, at + 32);
            if (Packed.getLong(packed, at + 16) > nowS) {
                System.arraycopy(packed, at, kept, end, bytes);
                end += bytes;
            }
            at += bytes;
        }
        return end == kept.length ? kept : Arrays.copyOf(kept, end);
    }

    private static int find(byte[] packed, long bucketS, long startS) {
        int at = 0;
        while (at < packed.length
                && !(Packed.getLong(packed, at) == bucketS && Packed.getLong(packed, at + 8) == startS)) {
            at += HEADER_BYTES + (int) Packed.getLong(packed, at + 32);
        }
        return at;
    }

    private void emit(StringData entityKey, byte[] packed, int bucket) {
        String text = entityKey.toString();
        int middle = text.indexOf(Packed.SEPARATOR);
        long bucketS = Packed.getLong(packed, bucket);
        long startS = Packed.getLong(packed, bucket + 8);
        int first = bucket + HEADER_BYTES;
        String key = text + Packed.SEPARATOR + bucketS + Packed.SEPARATOR + startS;
        collect(GenericRowData.of(new Object[] {
            BinaryStringData.fromString(key),
            BinaryStringData.fromString(text.substring(0, middle)),
            BinaryStringData.fromString(text.substring(middle + 1)),
            Long.valueOf(bucketS),
            Long.valueOf(startS * 1000L),
            Arrays.copyOfRange(packed, first, first + (int) Packed.getLong(packed, bucket + 32)),
            Long.valueOf(Packed.getLong(packed, bucket + 24))
        }));
    }

    /** Entry: code (u8), scope hash (u64), value (u16, which stays at its greatest). */
    private static byte[] addScoped(byte[] packed, int bucket, byte[] updates, int update) {
        byte code = updates[update + 16];
        long scope = Packed.getLong(updates, update + 17);
        int entry = bucket + HEADER_BYTES;
        int end = entry + (int) Packed.getLong(packed, bucket + 32);
        while (entry < end && !(packed[entry] == code && Packed.getLong(packed, entry + 1) == scope)) {
            entry += SCOPED_BYTES;
        }
        if (entry == end) {
            packed = grown(packed, bucket, end, SCOPED_BYTES);
            packed[entry] = code;
            Packed.putLong(packed, entry + 1, scope);
        }
        long before = packed[entry + 9] & 0xff | (packed[entry + 10] & 0xff) << 8;
        long value = Math.min((long) MOST_SCOPED, before + Packed.getLong(updates, update + 25));
        packed[entry + 9] = (byte) value;
        packed[entry + 10] = (byte) (value >> 8);
        return packed;
    }

    /** Entry: code (u8), value (u64). */
    private static byte[] addPlain(byte[] packed, int bucket, byte[] updates, int update) {
        byte code = updates[update + 16];
        int entry = bucket + HEADER_BYTES;
        int end = entry + (int) Packed.getLong(packed, bucket + 32);
        while (entry < end && packed[entry] != code) {
            entry += PLAIN_BYTES;
        }
        if (entry == end) {
            packed = grown(packed, bucket, end, PLAIN_BYTES);
            packed[entry] = code;
        }
        Packed.putLong(packed, entry + 1, Packed.getLong(packed, entry + 1) + Packed.getLong(updates, update + 25));
        return packed;
    }

    /** A copy with room for one more entry at the end of a bucket. */
    private static byte[] grown(byte[] packed, int bucket, int end, int bytes) {
        byte[] more = new byte[packed.length + bytes];
        System.arraycopy(packed, 0, more, 0, end);
        System.arraycopy(packed, end, more, end + bytes, packed.length - end);
        Packed.putLong(more, bucket + 32, Packed.getLong(packed, bucket + 32) + bytes);
        return more;
    }

    public TypeInference getTypeInference(DataTypeFactory factory) {
        DataType input = factory.createDataType(
                "ROW<entity_key STRING, updates BYTES, event_time_ms BIGINT, published_time_ms BIGINT> NOT NULL");
        DataType output = factory.createDataType("ROW<counter_key STRING NOT NULL, entity_type STRING NOT NULL, "
                + "entity_id STRING NOT NULL, bucket_s BIGINT NOT NULL, bucket_start_ms BIGINT NOT NULL, "
                + "entries BYTES NOT NULL, updated_ms BIGINT NOT NULL> NOT NULL");
        LinkedHashMap state = new LinkedHashMap();
        state.put("buckets", new CounterBucketsState());
        return TypeInference.newBuilder()
                .staticArguments(new StaticArgument[] {
                    StaticArgument.table(
                            "input",
                            (DataType) input.bridgedTo(RowData.class),
                            false,
                            EnumSet.of(StaticArgumentTrait.SET_SEMANTIC_TABLE)),
                    StaticArgument.scalar("kept_s", DataTypes.INT(), false)
                })
                .stateTypeStrategies(state)
                .outputTypeStrategy(TypeStrategies.explicit((DataType) output.bridgedTo(RowData.class)))
                .build();
    }
}

/** The type of the state, and how long it is kept: as long as the call says. */
final class CounterBucketsState implements StateTypeStrategy {
    public Optional inferType(CallContext call) {
        DataType packed = DataTypes.ROW(Arrays.asList(new Object[] {DataTypes.FIELD("buckets", DataTypes.BYTES())}));
        return Optional.of(packed);
    }

    public Optional getTimeToLive(CallContext call) {
        Optional keptS = call.getArgumentValue(CounterBuckets.KEPT_S, Integer.class);
        return keptS.isPresent()
                ? Optional.of(Duration.ofSeconds(((Integer) keptS.get()).longValue()))
                : Optional.empty();
    }
}
