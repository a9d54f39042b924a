// What a function remembers of the keys of one bucket: bytes, of which the first four are the second (Seconds.java) after
// which they are of no use. What is over is cleared now and then, when something comes to the bucket.
//
// State: a map with one entry, whose value has all keys of the bucket: where they end (i32), what the function notes of the
// bucket (i32), and then one behind the other 64 bits of the key's hash, the length of its bytes (i32), the bytes. What lies
// behind the end is room to grow: a state on the heap is written in place as long as there is any, which makes nothing new
// for the collector to look after.
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
    /** Of a bucket: where its keys end, and its note. */
    private static final int BEGIN = 4 + 4;
    private static final int KEY_BYTES = 8 + 4;
    /** A bucket that is too small gets room for an eighth more than it needs. */
    private static final int ROOM = 8;
    private static final Integer ALL = Integer.valueOf(0);
    private static final byte[] NOTHING = new byte[BEGIN];
    private static final Forgetting WHOLE = new Forgetting();

    /** A number that the function keeps of the open bucket; 0 at first. Written with the next key. */
    int note;

    private final long everyMs;
    private final Forgetting forgetting;
    private final long[] nextMs;
    private final WrittenInPlace written = new WrittenInPlace();
    private MapView kept;
    private byte[] found;
    private byte[] bytes;
    private int end;

    /** Buckets are cleared when `everyMs` have passed since the last time. */
    KeptByBucket(int buckets, long everyMs) {
        this(buckets, everyMs, WHOLE);
    }

    /** The same, of what is over of a value as well. */
    KeptByBucket(int buckets, long everyMs, Forgetting forgetting) {
        this.nextMs = new long[buckets];
        this.everyMs = everyMs;
        this.forgetting = forgetting;
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
        open(kept);
        if (nowMs < this.nextMs[bucket]) {
            return;
        }
        if (this.nextMs[bucket] == 0) { // after a start all are due at once: each waits for its turn
            this.nextMs[bucket] = nowMs + this.everyMs * (bucket + 1) / this.nextMs.length;
            return;
        }
        this.nextMs[bucket] = nowMs + this.everyMs;
        clear(nowMs);
    }

    /** Goes to a bucket as it is. */
    void open(MapView kept) throws Exception {
        this.kept = kept;
        this.found = (byte[]) kept.get(ALL);
        this.bytes = this.found == null ? NOTHING : this.found;
        this.end = Math.max(BEGIN, Packed.getInt(this.bytes, 0));
        this.note = Packed.getInt(this.bytes, 4);
    }

    // The open bucket as it lies, until the next `put` or `replace`: where a key begins, and where its value does.

    byte[] bytes() {
        return this.bytes;
    }

    int first() {
        return BEGIN;
    }

    int end() {
        return this.end;
    }

    int next(int at) {
        return at + size(at);
    }

    long key(int at) {
        return Packed.getLong(this.bytes, at);
    }

    static int value(int at) {
        return at + KEY_BYTES;
    }

    /** Where a key begins in the open bucket; the end when it has none. */
    int find(long key) {
        int at = BEGIN;
        while (at < this.end && Packed.getLong(this.bytes, at) != key) {
            at += size(at);
        }
        return at;
    }

    /** A copy of what the open bucket has of a key; null for nothing. */
    byte[] get(long key) {
        int at = find(key);
        if (at == this.end) {
            return null;
        }
        return Arrays.copyOfRange(this.bytes, at + KEY_BYTES, at + size(at));
    }

    /** Writes a key's bytes, and the open bucket. */
    void put(long key, byte[] value) throws Exception {
        replace(find(key), key, value, value.length);
        write();
    }

    /** Puts the first bytes of a value where `find` has found the key; not written yet. */
    void replace(int at, long key, byte[] value, int size) {
        int before = at == this.end ? 0 : size(at);
        move(at + before, KEY_BYTES + size - before);
        Packed.putLong(this.bytes, at, key);
        Packed.putInt(this.bytes, at + 8, size);
        System.arraycopy(value, 0, this.bytes, at + KEY_BYTES, size);
    }

    /** Writes the open bucket, which has a key at least. */
    void write() throws Exception {
        Packed.putInt(this.bytes, 4, this.note);
        this.written.put(this.kept, ALL, this.found, this.bytes);
        this.found = this.bytes;
    }

    /** Of the key that begins there. */
    private int size(int at) {
        return KEY_BYTES + Packed.getInt(this.bytes, at + 8);
    }

    /** Moves what lies behind a place by so many bytes, within what is there if it has room. */
    private void move(int from, int by) {
        byte[] to = this.bytes;
        int end = this.end + by;
        if (end > to.length) {
            to = new byte[end + end / ROOM];
            System.arraycopy(this.bytes, 0, to, 0, from);
        }
        if (by != 0) {
            System.arraycopy(this.bytes, from, to, from + by, this.end - from);
        }
        this.bytes = to;
        this.end = end;
        Packed.putInt(to, 0, end);
    }

    /** Leaves out what is over, and room that nobody will need. */
    private void clear(long nowMs) {
        int end = BEGIN;
        int size;
        for (int at = BEGIN; at < this.end; at += size) {
            size = size(at);
            if (Seconds.ms(Packed.getInt(this.bytes, at + KEY_BYTES)) > nowMs) {
                int left = this.forgetting.forget(this.bytes, at + KEY_BYTES, size - KEY_BYTES, nowMs);
                Packed.putInt(this.bytes, at + 8, left);
                System.arraycopy(this.bytes, at, this.bytes, end, KEY_BYTES + left);
                end += KEY_BYTES + left;
            }
        }
        this.end = end;
        if (this.bytes != NOTHING) {
            Packed.putInt(this.bytes, 0, end);
        }
        if (end + end / ROOM < this.bytes.length) {
            this.bytes = Arrays.copyOf(this.bytes, end + end / ROOM);
        }
    }

    /** Puts off the time at which the value that begins there is over, if that is later than what it says. */
    static void keepUntil(byte[] bytes, int value, long untilMs) {
        if (Seconds.ms(Packed.getInt(bytes, value)) < untilMs) {
            Packed.putInt(bytes, value, Seconds.of(untilMs));
        }
    }
}

/** What is over of a value before all of it is: here nothing. */
class Forgetting {
    /** Takes what is over out of the value that begins there; gives how many bytes are left at its beginning. */
    int forget(byte[] bytes, int from, int size, long nowMs) {
        return size;
    }
}
