// SQL function `counter_buckets`: the absolute counters of each entity, a row per bucket that an event has changed.
//
// The state of an entity is a map from bucket to its counters, packed as schemas/redis_layout.py has them, so a row is
// the state's own bytes and the materializer writes them through as they are.
package headwater;

import java.util.Arrays;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.StaticArgumentTrait;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

/**
 * `counter_buckets(input => TABLE updates PARTITION BY entity_key, bucket_kept_s => n, lifetime_kept_s => n)`.
 *
 * <p>In: entity_key, updates (of CounterUpdates), event_time_ms, published_time_ms. Out, after entity_key: counter_key,
 * entity_type, entity_id, bucket_s, bucket_start_ms, entries, updated_ms. `bucket_kept_s` is how long a bucket is kept
 * after its last change, `lifetime_kept_s` the same for buckets that never end.
 */
public final class CounterBuckets extends ProcessTableFunction {
    private static final long serialVersionUID = 1L;
    private static final int HEADER_BYTES = 8; // latest publish time, ms
    private static final int SCOPED_BYTES = 11;
    private static final int PLAIN_BYTES = 9;
    private static final int MOST_SCOPED = 0xffff;
    /** Buckets of at least this many seconds have no end: schemas/features.py LIFETIME_S. */
    private static final long LIFETIME_S = 1L << 32;

    public void eval(MapView buckets, MapView lifetimes, RowData input, Integer bucketKeptS, Integer lifetimeKeptS)
            throws Exception {
        byte[] updates = input.getBinary(1);
        long eventTimeMs = input.getLong(2);
        long publishedTimeMs = input.getLong(3);
        boolean scoped = updates[0] == 1;
        int at = 1;
        while (at < updates.length) { // the updates of one bucket length follow each other
            long bucketS = Packed.getLong(updates, at);
            long startS = Math.floorDiv(eventTimeMs, bucketS * 1000L) * bucketS;
            MapView state = bucketS >= LIFETIME_S ? lifetimes : buckets;
            Long key = Long.valueOf(bucketS << 32 | startS);
            byte[] packed = (byte[]) state.get(key);
            packed = packed == null ? new byte[HEADER_BYTES] : (byte[]) packed.clone();
            while (at < updates.length && Packed.getLong(updates, at) == bucketS) {
                packed = scoped ? addScoped(packed, updates, at) : addPlain(packed, updates, at);
                at += Packed.UPDATE_BYTES;
            }
            long updatedMs = Math.max(Packed.getLong(packed, 0), publishedTimeMs);
            Packed.putLong(packed, 0, updatedMs);
            state.put(key, packed);
            emit(input.getString(0), bucketS, startS, packed, updatedMs);
        }
    }

    private void emit(StringData entityKey, long bucketS, long startS, byte[] packed, long updatedMs) {
        String text = entityKey.toString();
        int middle = text.indexOf(Packed.SEPARATOR);
        String key = text + Packed.SEPARATOR + bucketS + Packed.SEPARATOR + startS;
        collect(GenericRowData.of(new Object[] {
            BinaryStringData.fromString(key),
            BinaryStringData.fromString(text.substring(0, middle)),
            BinaryStringData.fromString(text.substring(middle + 1)),
            Long.valueOf(bucketS),
            Long.valueOf(startS * 1000L),
            Arrays.copyOfRange(packed, HEADER_BYTES, packed.length),
            Long.valueOf(updatedMs)
        }));
    }

    /** Entry: code (u8), scope hash (u64), value (u16, which stays at its greatest). */
    private static byte[] addScoped(byte[] packed, byte[] updates, int at) {
        byte code = updates[at + 8];
        long scope = Packed.getLong(updates, at + 9);
        long delta = Packed.getLong(updates, at + 17);
        int entry = HEADER_BYTES;
        while (entry < packed.length && !(packed[entry] == code && Packed.getLong(packed, entry + 1) == scope)) {
            entry += SCOPED_BYTES;
        }
        if (entry == packed.length) {
            packed = Arrays.copyOf(packed, entry + SCOPED_BYTES);
            packed[entry] = code;
            Packed.putLong(packed, entry + 1, scope);
        }
        long value = Math.min(MOST_SCOPED, (packed[entry + 9] & 0xff | (packed[entry + 10] & 0xff) << 8) + delta);
        packed[entry + 9] = (byte) value;
        packed[entry + 10] = (byte) (value >> 8);
        return packed;
    }

    /** Entry: code (u8), value (u64). */
    private static byte[] addPlain(byte[] packed, byte[] updates, int at) {
        byte code = updates[at + 8];
        int entry = HEADER_BYTES;
        while (entry < packed.length && packed[entry] != code) {
            entry += PLAIN_BYTES;
        }
        if (entry == packed.length) {
            packed = Arrays.copyOf(packed, entry + PLAIN_BYTES);
            packed[entry] = code;
        }
        Packed.putLong(packed, entry + 1, Packed.getLong(packed, entry + 1) + Packed.getLong(updates, at + 17));
        return packed;
    }

    public TypeInference getTypeInference(DataTypeFactory factory) {
        DataType input = factory.createDataType("ROW<entity_key STRING, updates BYTES, event_time_ms BIGINT, "
                + "published_time_ms BIGINT> NOT NULL");
        DataType output = factory.createDataType("ROW<counter_key STRING NOT NULL, entity_type STRING NOT NULL, "
                + "entity_id STRING NOT NULL, bucket_s BIGINT NOT NULL, bucket_start_ms BIGINT NOT NULL, "
                + "entries BYTES NOT NULL, updated_ms BIGINT NOT NULL> NOT NULL");
        LinkedHashMap state = new LinkedHashMap();
        state.put("buckets", new MapKeptFor(DataTypes.BIGINT(), 1));
        state.put("lifetimes", new MapKeptFor(DataTypes.BIGINT(), 2));
        return TypeInference.newBuilder()
                .staticArguments(new StaticArgument[] {
                    StaticArgument.table(
                            "input",
                            (DataType) input.bridgedTo(RowData.class),
                            false,
                            EnumSet.of(StaticArgumentTrait.SET_SEMANTIC_TABLE)),
                    StaticArgument.scalar("bucket_kept_s", DataTypes.INT(), false),
                    StaticArgument.scalar("lifetime_kept_s", DataTypes.INT(), false)
                })
                .stateTypeStrategies(state)
                .outputTypeStrategy(TypeStrategies.explicit((DataType) output.bridgedTo(RowData.class)))
                .build();
    }
}
