// SQL function `counter_buckets`: the absolute counters of each entity, a row per bucket that an event has changed.
//
// State, by the bucket and the hash of the entity's key (KeptByBucket.java): one array of bytes, its buckets from the newest
// to the oldest, each with its counters packed as schemas/redis_layout.py has them, so a row is cut out of the state and
// the materializer writes it through as it is. An event looks at the first few; what is over is cut off at the end when a
// new one is begun.
package headwater;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.StaticArgumentTrait;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

/**
 * `counter_buckets(input => TABLE updates PARTITION BY entity_bucket, kept_s => n, id_buckets => n)`.
 *
 * <p>In: entity_bucket, entity_key, updates (of CounterUpdates), event_time_ms, published_time_ms. Out, after
 * entity_bucket: counter_key, entity_type, entity_id, bucket_s, bucket_start_ms, entries, updated_ms. `kept_s` is how long
 * an entity is kept after its last event, in publish time.
 */
public final class CounterBuckets extends ProcessTableFunction {
    private static final long serialVersionUID = 1L;
    private static final long CLEARED_EVERY_MS = 86400000L;
    /** Of a bucket: length, start, end of use in seconds, latest publish time in ms, bytes of entries; each an i64. */
    private static final int HEADER_BYTES = 40;

    private static final int SCOPED_BYTES = 11;
    private static final int PLAIN_BYTES = 9;
    private static final int MOST_SCOPED = 0xffff;

    private transient KeptByBucket buckets;

    public void eval(MapView kept, RowData input, Integer keptS, Integer idBuckets) throws Exception {
        if (this.buckets == null) {
            this.buckets = new KeptByBucket(idBuckets.intValue(), CLEARED_EVERY_MS);
        }
        byte[] entity = input.getString(1).toBytes();
        byte[] updates = input.getBinary(2);
        long eventTimeMs = input.getLong(3);
        long publishedTimeMs = input.getLong(4);
        this.buckets.open(kept, input.getInt(0), publishedTimeMs);
        long key = EventBucket.hash(entity);
        byte[] packed = this.buckets.get(key);
        if (packed == null) {
            packed = new byte[KeptByBucket.HEADER_BYTES];
        }
        int middle = 0;
        while (entity[middle] != Packed.SEPARATOR) {
            middle++;
        }
        BinaryStringData type = BinaryStringData.fromBytes(entity, 0, middle);
        BinaryStringData id = BinaryStringData.fromBytes(entity, middle + 1, entity.length - middle - 1);
        boolean scoped = updates[0] == 1;
        int at = 1;
        while (at < updates.length) {
            long bucketS = Packed.getLong(updates, at);
            long startS = Math.floorDiv(eventTimeMs, bucketS * 1000L) * bucketS;
            int bucket = find(packed, bucketS, startS);
            if (bucket == packed.length) {
                long endOfUseS = startS + bucketS + Packed.getLong(updates, at + 8);
                packed = begun(packed, bucketS, startS, endOfUseS, publishedTimeMs / 1000L);
                bucket = KeptByBucket.HEADER_BYTES;
            }
            int count = updates[at + 16];
            at += Packed.GROUP_BYTES;
            for (int i = 0; i < count; i++) {
                packed = scoped ? addScoped(packed, bucket, updates, at) : addPlain(packed, bucket, updates, at);
                at += scoped ? Packed.SCOPED_UPDATE_BYTES : Packed.UPDATE_BYTES;
            }
            Packed.putLong(packed, bucket + 24, Math.max(Packed.getLong(packed, bucket + 24), publishedTimeMs));
            emit(entity, type, id, packed, bucket);
        }
        KeptByBucket.keepUntil(packed, publishedTimeMs + keptS.longValue() * 1000L);
        this.buckets.put(key, packed);
    }

    /** Where a bucket begins; the end when it is not there. */
    private static int find(byte[] packed, long bucketS, long startS) {
        int at = KeptByBucket.HEADER_BYTES;
        while (at < packed.length
                && !(Packed.getLong(packed, at + 8) == startS && Packed.getLong(packed, at) == bucketS)) {
            at += HEADER_BYTES + (int) Packed.getLong(packed, at + 32);
        }
        return at;
    }

    /** A copy with a new bucket, its first one, and without those whose use has ended. */
    private static byte[] begun(byte[] packed, long bucketS, long startS, long endOfUseS, long nowS) {
        byte[] more = new byte[packed.length + HEADER_BYTES];
        System.arraycopy(packed, 0, more, 0, KeptByBucket.HEADER_BYTES);
        int at = KeptByBucket.HEADER_BYTES;
        Packed.putLong(more, at, bucketS);
        Packed.putLong(more, at + 8, startS);
        Packed.putLong(more, at + 16, endOfUseS);
        int end = at + HEADER_BYTES;
        while (at < packed.length) {
            int bytes = HEADER_BYTES + (int) Packed.getLong(packed, at + 32);
            if (Packed.getLong(packed, at + 16) > nowS) {
                System.arraycopy(packed, at, more, end, bytes);
                end += bytes;
            }
            at += bytes;
        }
        return end == more.length ? more : Arrays.copyOf(more, end);
    }

    private void emit(byte[] entity, BinaryStringData type, BinaryStringData id, byte[] packed, int bucket) {
        long bucketS = Packed.getLong(packed, bucket);
        long startS = Packed.getLong(packed, bucket + 8);
        int first = bucket + HEADER_BYTES;
        collect(GenericRowData.of(new Object[] {
            BinaryStringData.fromBytes(counterKey(entity, bucketS, startS)),
            type,
            id,
            Long.valueOf(bucketS),
            Long.valueOf(startS * 1000L),
            Arrays.copyOfRange(packed, first, first + (int) Packed.getLong(packed, bucket + 32)),
            Long.valueOf(Packed.getLong(packed, bucket + 24))
        }));
    }

    private static byte[] counterKey(byte[] entity, long bucketS, long startS) {
        byte[] length = Long.toString(bucketS).getBytes(StandardCharsets.ISO_8859_1);
        byte[] start = Long.toString(startS).getBytes(StandardCharsets.ISO_8859_1);
        byte[] key = Arrays.copyOf(entity, entity.length + length.length + start.length + 2);
        key[entity.length] = Packed.SEPARATOR;
        System.arraycopy(length, 0, key, entity.length + 1, length.length);
        key[entity.length + 1 + length.length] = Packed.SEPARATOR;
        System.arraycopy(start, 0, key, key.length - start.length, start.length);
        return key;
    }

    /** Entry: code (u8), scope hash (u64), value (u16, which stays at its greatest). */
    private static byte[] addScoped(byte[] packed, int bucket, byte[] updates, int update) {
        byte code = updates[update];
        long scope = Packed.getLong(updates, update + 1);
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
        long value = Math.min((long) MOST_SCOPED, before + Packed.getLong(updates, update + 9));
        packed[entry + 9] = (byte) value;
        packed[entry + 10] = (byte) (value >> 8);
        return packed;
    }

    /** Entry: code (u8), value (u64). */
    private static byte[] addPlain(byte[] packed, int bucket, byte[] updates, int update) {
        byte code = updates[update];
        int entry = bucket + HEADER_BYTES;
        int end = entry + (int) Packed.getLong(packed, bucket + 32);
        while (entry < end && packed[entry] != code) {
            entry += PLAIN_BYTES;
        }
        if (entry == end) {
            packed = grown(packed, bucket, end, PLAIN_BYTES);
            packed[entry] = code;
        }
        Packed.putLong(packed, entry + 1, Packed.getLong(packed, entry + 1) + Packed.getLong(updates, update + 1));
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
        DataType input = factory.createDataType("ROW<entity_bucket INT, entity_key STRING, updates BYTES, "
                + "event_time_ms BIGINT, published_time_ms BIGINT> NOT NULL");
        DataType output = factory.createDataType("ROW<counter_key STRING NOT NULL, entity_type STRING NOT NULL, "
                + "entity_id STRING NOT NULL, bucket_s BIGINT NOT NULL, bucket_start_ms BIGINT NOT NULL, "
                + "entries BYTES NOT NULL, updated_ms BIGINT NOT NULL> NOT NULL");
        LinkedHashMap state = new LinkedHashMap();
        state.put("buckets", KeptByBucket.state());
        return TypeInference.newBuilder()
                .staticArguments(new StaticArgument[] {
                    StaticArgument.table(
                            "input",
                            (DataType) input.bridgedTo(RowData.class),
                            false,
                            EnumSet.of(StaticArgumentTrait.SET_SEMANTIC_TABLE)),
                    StaticArgument.scalar("kept_s", DataTypes.INT(), false),
                    StaticArgument.scalar("id_buckets", DataTypes.INT(), false)
                })
                .stateTypeStrategies(state)
                .outputTypeStrategy(TypeStrategies.explicit((DataType) output.bridgedTo(RowData.class)))
                .build();
    }
}
