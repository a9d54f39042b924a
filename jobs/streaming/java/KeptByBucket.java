// What a function remembers of the keys of one bucket, as bytes that begin with the second (Seconds.java) after which all
// of them are of no use. What is over is cleared now and then, when something comes to the bucket.
//
// Why not Flink's own time to live: it copies a value at each access and looks at several other keys each time, which was
// nearly half of what attribution cost. Why buckets: a key of state, with an entry and timers of its own, costs more than
// what is remembered under it.
package headwater;

import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StateTypeStrategy;

/** One per function and subtask: when each bucket was last cleared. */
final class KeptByBucket {
    static final int HEADER_BYTES = 4;

    private final long everyMs;
    private final long[] nextMs;

    /** Buckets are cleared when `everyMs` have passed since the last time. */
    KeptByBucket(int buckets, long everyMs) {
        this.nextMs = new long[buckets];
        this.everyMs = everyMs;
    }

    /** The type of such a state: hashes of keys to bytes. */
    static StateTypeStrategy state() {
        return new MapWithoutEnd((DataType) DataTypes.BIGINT().notNull());
    }

    static Long key(StringData text) {
        return Long.valueOf(EventBucket.hash(text.toBytes()));
    }

    /** Clears a bucket of what is over, if it is time for it. */
    void clear(MapView kept, int bucket, long nowMs) throws Exception {
        if (nowMs < this.nextMs[bucket]) {
            return;
        }
        if (this.nextMs[bucket] == 0) { // after a start all are due at once: each waits for its turn
            this.nextMs[bucket] = nowMs + this.everyMs * (bucket + 1) / this.nextMs.length;
            return;
        }
        this.nextMs[bucket] = nowMs + this.everyMs;
        List over = new ArrayList();
        for (Iterator each = kept.entries().iterator(); each.hasNext();) {
            Map.Entry entry = (Map.Entry) each.next();
            if (isOver((byte[]) entry.getValue(), nowMs)) {
                over.add(entry.getKey());
            }
        }
        for (int i = 0; i < over.size(); i++) {
            kept.remove(over.get(i));
        }
    }

    static boolean isOver(byte[] value, long nowMs) {
        return Seconds.ms(PackedFields.get(value, 0)) <= nowMs;
    }

    /** Puts off the time at which a value is over, if that is later than what it says. */
    static void keepUntil(byte[] value, long untilMs) {
        if (Seconds.ms(PackedFields.get(value, 0)) < untilMs) {
            PackedFields.put(value, 0, Seconds.of(untilMs));
        }
    }
}
