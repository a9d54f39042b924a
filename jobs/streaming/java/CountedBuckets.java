// The absolute counters of entities, and which of their buckets have changed since they were last given.
//
// State, by the bucket and the hash of the entity's key (KeptByBucket.java): one value of bytes, its buckets from the newest
// to the oldest, each with its counters packed as schemas/redis_layout.py has them, so what is given is cut out of the state
// and the materializer writes it through as it is. An addition looks at the first few; what is over is cut off at the end
// when a new one is begun.
package headwater;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.types.logical.BigIntType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.logical.VarBinaryType;
import org.apache.flink.table.types.logical.VarCharType;

/** One per subtask. An entity is kept for `keptMs` after its last event, in publish time. */
final class CountedBuckets {
    private static final long CLEARED_EVERY_MS = 86400000L;
    /** Of a bucket: length, start, end of use in seconds, latest publish time in ms, bytes of entries; each an i64. */
    private static final int HEADER_BYTES = 40;

    private static final int SCOPED_BYTES = 11;
    private static final int PLAIN_BYTES = 9;
    private static final int MOST_SCOPED = 0xffff;

    private final CounterRules rules;
    private final long keptMs;
    private final KeptByBucket buckets;
    private final Map changed = new HashMap();
    private ChangedBucket asked = new ChangedBucket();

    CountedBuckets(CounterRules rules, int buckets, long keptMs) {
        this.rules = rules;
        this.keptMs = keptMs;
        this.buckets = new KeptByBucket(buckets, CLEARED_EVERY_MS);
    }

    /** The type of a changed bucket's row: the value's fields in Kafka. */
    static RowType rowType() {
        LogicalType text = new VarCharType(false, VarCharType.MAX_LENGTH);
        LogicalType number = new BigIntType(false);
        return RowType.of(
                new LogicalType[] {
                    text, text, number, number, new VarBinaryType(false, VarBinaryType.MAX_LENGTH), number
                },
                new String[] {"entity_type", "entity_id", "bucket_s", "bucket_start_ms", "entries", "updated_ms"});
    }

    /** Adds a message of GatheredCounts; `kept` is the state of its bucket. */
    void add(MapView kept, byte[] message) throws Exception {
        long key = Packed.getLong(message, GatheredCounts.HASH);
        long publishedTimeMs = Packed.getLong(message, GatheredCounts.PUBLISHED_MS);
        int keyEnd = GatheredCounts.KEY + Packed.getInt(message, GatheredCounts.KEY_BYTES);
        this.buckets.open(kept, Packed.getInt(message, GatheredCounts.BUCKET), publishedTimeMs);
        int entity = this.buckets.find(key);
        if (entity == this.buckets.end()) {
            this.buckets.replace(entity, key, new byte[KeptByBucket.HEADER_BYTES], KeptByBucket.HEADER_BYTES);
        }
        int next;
        for (int at = keyEnd; at < message.length; at = next) {
            CounterRule rule = this.rules.rules[message[at] & 0xff];
            long startS = Packed.getLong(message, at + GatheredCounts.START);
            int bucket = find(entity, rule.bucketS, startS);
            if (bucket == this.buckets.next(entity)) {
                begin(entity, key, rule, startS, publishedTimeMs / 1000L);
                bucket = first(entity);
            }
            next = at;
            while (next < message.length && isOf(message, next, rule.bucketS, startS)) {
                add(entity, key, bucket, message, next);
                next += GatheredCounts.ADDITION_BYTES;
            }
            changed(key, bucket, message, keyEnd);
        }
        KeptByBucket.keepUntil(this.buckets.bytes(), KeptByBucket.value(entity), publishedTimeMs + this.keptMs);
        this.buckets.write();
    }

    private boolean isOf(byte[] message, int at, long bucketS, long startS) {
        return this.rules.rules[message[at] & 0xff].bucketS == bucketS
                && Packed.getLong(message, at + GatheredCounts.START) == startS;
    }

    /** Where an entity's newest bucket begins. */
    private static int first(int entity) {
        return KeptByBucket.value(entity) + KeptByBucket.HEADER_BYTES;
    }

    /** Where a bucket of an entity begins; the end of its value when it is not there. */
    private int find(int entity, long bucketS, long startS) {
        byte[] bytes = this.buckets.bytes();
        int end = this.buckets.next(entity);
        int at = first(entity);
        while (at < end && !(Packed.getLong(bytes, at + 8) == startS && Packed.getLong(bytes, at) == bucketS)) {
            at += HEADER_BYTES + (int) Packed.getLong(bytes, at + 32);
        }
        return at;
    }

    /** Puts a new bucket before the others, and leaves out those whose use has ended. */
    private void begin(int entity, long key, CounterRule rule, long startS, long nowS) {
        byte[] bytes = this.buckets.bytes();
        int from = KeptByBucket.value(entity);
        int to = this.buckets.next(entity);
        byte[] more = new byte[to - from + HEADER_BYTES];
        System.arraycopy(bytes, from, more, 0, KeptByBucket.HEADER_BYTES);
        int end = KeptByBucket.HEADER_BYTES;
        Packed.putLong(more, end, rule.bucketS);
        Packed.putLong(more, end + 8, startS);
        Packed.putLong(more, end + 16, rule.keptUntilS(startS));
        end += HEADER_BYTES;
        int size;
        for (int at = first(entity); at < to; at += size) {
            size = HEADER_BYTES + (int) Packed.getLong(bytes, at + 32);
            if (Packed.getLong(bytes, at + 16) > nowS) {
                System.arraycopy(bytes, at, more, end, size);
                end += size;
            }
        }
        this.buckets.replace(entity, key, more, end);
    }

    /** Entry: code (u8), in entities with scopes the scope's hash (u64), value (u64; u16 with scopes, where it stays at
     * its greatest). */
    private void add(int entity, long key, int bucket, byte[] message, int addition) {
        CounterRule rule = this.rules.rules[message[addition] & 0xff];
        long scope = Packed.getLong(message, addition + GatheredCounts.SCOPE);
        long delta = Packed.getLong(message, addition + GatheredCounts.DELTA);
        boolean scoped = rule.entity.scoped;
        int size = scoped ? SCOPED_BYTES : PLAIN_BYTES;
        byte[] bytes = this.buckets.bytes();
        Gathered.later(bytes, bucket + 24, Packed.getLong(message, addition + GatheredCounts.ADDED_MS));
        int entry = bucket + HEADER_BYTES;
        int end = entry + (int) Packed.getLong(bytes, bucket + 32);
        while (entry < end
                && !(bytes[entry] == rule.code && (!scoped || Packed.getLong(bytes, entry + 1) == scope))) {
            entry += size;
        }
        if (entry == end) {
            grow(entity, key, bucket, end, size);
            bytes = this.buckets.bytes();
            bytes[entry] = rule.code;
            if (scoped) {
                Packed.putLong(bytes, entry + 1, scope);
            }
        }
        if (!scoped) {
            Packed.putLong(bytes, entry + 1, Packed.getLong(bytes, entry + 1) + delta);
            return;
        }
        long before = bytes[entry + 9] & 0xff | (bytes[entry + 10] & 0xff) << 8;
        long value = Math.min((long) MOST_SCOPED, before + delta);
        bytes[entry + 9] = (byte) value;
        bytes[entry + 10] = (byte) (value >> 8);
    }

    /** Makes room for one more entry at the end of a bucket. */
    private void grow(int entity, long key, int bucket, int end, int size) {
        byte[] bytes = this.buckets.bytes();
        int from = KeptByBucket.value(entity);
        int to = this.buckets.next(entity);
        byte[] more = new byte[to - from + size];
        System.arraycopy(bytes, from, more, 0, end - from);
        System.arraycopy(bytes, end, more, end - from + size, to - end);
        Packed.putLong(more, bucket - from + 32, Packed.getLong(bytes, bucket + 32) + size);
        this.buckets.replace(entity, key, more, more.length);
    }

    private void changed(long key, int bucket, byte[] message, int keyEnd) {
        byte[] bytes = this.buckets.bytes();
        ChangedBucket asked = this.asked;
        asked.hash = key;
        asked.bucketS = Packed.getLong(bytes, bucket);
        asked.startS = Packed.getLong(bytes, bucket + 8);
        ChangedBucket found = (ChangedBucket) this.changed.get(asked);
        if (found == null) {
            found = asked;
            found.entity = Arrays.copyOfRange(message, GatheredCounts.KEY, keyEnd);
            this.changed.put(found, found);
            this.asked = new ChangedBucket();
        }
        int first = bucket + HEADER_BYTES;
        found.entries = Arrays.copyOfRange(bytes, first, first + (int) Packed.getLong(bytes, bucket + 32));
        found.updatedMs = Packed.getLong(bytes, bucket + 24);
    }

    /** How many buckets have changed. */
    int changes() {
        return this.changed.size();
    }

    /** Those buckets; nothing has changed any more. */
    ChangedBucket[] taken() {
        ChangedBucket[] taken = (ChangedBucket[]) this.changed.keySet().toArray(new ChangedBucket[0]);
        this.changed.clear();
        return taken;
    }
}

/** A bucket as it is now, found by the hash of its entity, its length and start. */
final class ChangedBucket {
    long hash;
    long bucketS;
    long startS;
    byte[] entity;
    byte[] entries;
    long updatedMs;

    public int hashCode() {
        long bits = this.hash + this.bucketS * 31 + this.startS;
        return (int) (bits ^ bits >>> 32);
    }

    public boolean equals(Object other) {
        ChangedBucket that = (ChangedBucket) other;
        return this.hash == that.hash && this.bucketS == that.bucketS && this.startS == that.startS;
    }

    /** A row of `CountedBuckets.rowType`. */
    RowData row() {
        int middle = 0;
        while (this.entity[middle] != Packed.SEPARATOR) {
            middle++;
        }
        return GenericRowData.of(new Object[] {
            BinaryStringData.fromBytes(this.entity, 0, middle),
            BinaryStringData.fromBytes(this.entity, middle + 1, this.entity.length - middle - 1),
            Long.valueOf(this.bucketS),
            Long.valueOf(this.startS * 1000L),
            this.entries,
            Long.valueOf(this.updatedMs)
        });
    }

    /** Its key in Kafka. */
    byte[] key() {
        byte[] length = Long.toString(this.bucketS).getBytes(StandardCharsets.ISO_8859_1);
        byte[] start = Long.toString(this.startS).getBytes(StandardCharsets.ISO_8859_1);
        byte[] key = Arrays.copyOf(this.entity, this.entity.length + length.length + start.length + 2);
        key[this.entity.length] = Packed.SEPARATOR;
        System.arraycopy(length, 0, key, this.entity.length + 1, length.length);
        key[this.entity.length + 1 + length.length] = Packed.SEPARATOR;
        System.arraycopy(start, 0, key, key.length - start.length, start.length);
        return key;
    }
}
