// What a function remembers of the keys of one bucket: bytes, of which the first four are the second (Seconds.java) after
// which they are of no use. What is over is cleared now and then, when something comes to the bucket.
//
// State: a map with one entry, whose value has all keys of the bucket, one behind the other: 64 bits of the key's hash, the
// length of its bytes (i32), the bytes.
//
// Why not Flink's own time to live: it copies a value at each access and looks at several other keys each time, which was
// nearly half of what attribution cost. Why buckets: a key of state, with an entry and timers of its own, costs more than
// what is remembered under it. Why not a map by key in each: a checkpoint went through a million small objects, and copied
// those of a bucket one by one at its next change. So there are as many buckets as leave some keys to each.
package headwater;

import java.util.Arrays;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StateTypeStrategy;

/** One per function and subtask: the bucket that is open, and when each was last cleared. */
final class KeptByBucket {
    static final int HEADER_BYTES = 4;
    private static final int KEY_BYTES = 8 + 4;
    private static final Integer ALL = Integer.valueOf(0);
    private static final byte[] NOTHING = new byte[0];

    private final long everyMs;
    private final long[] nextMs;
    private MapView kept;
    private byte[] bytes;

    /** Buckets are cleared when `everyMs` have passed since the last time. */
    KeptByBucket(int buckets, long everyMs) {
        this.nextMs = new long[buckets];
        this.everyMs = everyMs;
    }

    /** The type of such a state. */
    static StateTypeStrategy state() {
        return new MapWithoutEnd((DataType) DataTypes.INT().notNull());
    }

    static long key(StringData text) {
        return EventBucket.hash(text.toBytes());
    }

    /** Goes to a bucket, whose state this is, and clears it of what is over, if it is time for it. */
    void open(MapView kept, int bucket, long nowMs) throws Exception {
        this.kept = kept;
        byte[] found = (byte[]) kept.get(ALL);
        this.bytes = found == null ? NOTHING : found;
        if (nowMs < this.nextMs[bucket]) {
            return;
        }
        if (this.nextMs[bucket] == 0) { // after a start all are due at once: each waits for its turn
            this.nextMs[bucket] = nowMs + this.everyMs * (bucket + 1) / this.nextMs.length;
            return;
        }
        this.nextMs[bucket] = nowMs + this.everyMs;
        this.bytes = without(this.bytes, nowMs);
    }

    /** A copy of what the open bucket has of a key; null for nothing. */
    byte[] get(long key) {
        int at = find(key);
        if (at == this.bytes.length) {
            return null;
        }
        return Arrays.copyOfRange(this.bytes, at + KEY_BYTES, at + KEY_BYTES + sizeOf(this.bytes, at));
    }

    /** Writes a key's bytes, and the open bucket. In place if they are as long as before. */
    void put(long key, byte[] value) throws Exception {
        int at = find(key);
        int before = at == this.bytes.length ? 0 : KEY_BYTES + sizeOf(this.bytes, at);
        if (before != KEY_BYTES + value.length) {
            byte[] more = new byte[this.bytes.length - before + KEY_BYTES + value.length];
            int rest = this.bytes.length - at - before;
            System.arraycopy(this.bytes, 0, more, 0, at);
            System.arraycopy(this.bytes, at + before, more, at, rest);
            at += rest;
            Packed.putLong(more, at, key);
            PackedFields.put(more, at + 8, value.length);
            this.bytes = more;
        }
        System.arraycopy(value, 0, this.bytes, at + KEY_BYTES, value.length);
        this.kept.put(ALL, this.bytes);
    }

    /** Where a key begins in the open bucket; the end when it has none. */
    private int find(long key) {
        int at = 0;
        while (at < this.bytes.length && Packed.getLong(this.bytes, at) != key) {
            at += KEY_BYTES + sizeOf(this.bytes, at);
        }
        return at;
    }

    private static int sizeOf(byte[] bytes, int at) {
        return PackedFields.get(bytes, at + 8);
    }

    private static byte[] without(byte[] bytes, long overMs) {
        byte[] left = new byte[bytes.length];
        int end = 0;
        for (int at = 0; at < bytes.length; at += KEY_BYTES + sizeOf(bytes, at)) {
            if (Seconds.ms(PackedFields.get(bytes, at + KEY_BYTES)) > overMs) {
                int size = KEY_BYTES + sizeOf(bytes, at);
                System.arraycopy(bytes, at, left, end, size);
                end += size;
            }
        }
        return end == bytes.length ? bytes : Arrays.copyOf(left, end);
    }

    /** Puts off the time at which a value is over, if that is later than what it says. */
    static void keepUntil(byte[] value, long untilMs) {
        if (Seconds.ms(PackedFields.get(value, 0)) < untilMs) {
            PackedFields.put(value, 0, Seconds.of(untilMs));
        }
    }
}
