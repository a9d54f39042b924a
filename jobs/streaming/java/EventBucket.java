// event_bucket(event_id, buckets): which of so many parts of all event ids an id belongs to.
package headwater;

import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.functions.ScalarFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

public class EventBucket extends ScalarFunction {
    public TypeInference getTypeInference(DataTypeFactory types) {
        return TypeInference.newBuilder()
                .staticArguments(new StaticArgument[] {
                    StaticArgument.scalar("event_id", DataTypes.BYTES(), false),
                    StaticArgument.scalar("buckets", (DataType) DataTypes.INT().notNull(), false),
                })
                .outputTypeStrategy(TypeStrategies.explicit(DataTypes.INT()))
                .build();
    }

    public Integer eval(byte[] eventId, Integer buckets) {
        return of(hash(eventId), buckets);
    }

    /** The upper half of a product: every bit of the hash has a say, and no division is needed. */
    static Integer of(long hash, Integer buckets) {
        return Integer.valueOf((int) ((hash >>> 32) * buckets.intValue() >>> 32));
    }

    /** 64 bits of an id (any length): those of its two halves, mixed. Source: Steele et al. 2014, SplitMix64. */
    static long hash(byte[] id) {
        return hash(id, 0, id.length);
    }

    /** The same of an id that lies among other bytes. */
    static long hash(byte[] bytes, int from, int size) {
        long bits = size;
        int at = from;
        int end = from + size;
        for (; at + 8 <= end; at += 8) {
            bits = mixed(bits ^ Long.reverseBytes(Packed.getLong(bytes, at)));
        }
        for (; at < end; at++) {
            bits = mixed(bits ^ bytes[at]);
        }
        return bits;
    }

    /** A permutation of 64 bits in which each bit of the result depends on all. */
    static long mixed(long z) {
        z += 0x9e3779b97f4a7c15L;
        z = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L;
        z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL;
        return z ^ (z >>> 31);
    }
}
