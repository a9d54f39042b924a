// What events add to counters, gathered for a moment: a message per entity and not per event, so that a campaign of which
// a thousand events come in that moment crosses the network once and its state is looked up once.
//
// A message (little-endian): bucket of the entity's state (i32), hash of the entity's key (i64), latest publish time in
// ms (i64), length of the entity's key (i32), the key; then of each addition the counter's place in the declaration (u8),
// the bucket's start in seconds (i64), hash of the scope (i64, 0 for none), what is added (i64) and the latest publish time
// in ms of the events that added it (i64).
package headwater;

import java.security.MessageDigest;
import java.util.Arrays;
import org.apache.flink.table.data.RowData;

/** Of rows (event_type, event_time_ms, published_time_ms, cost_micros, packed ids, packed dimensions). */
final class GatheredCounts {
    static final int BUCKET = 0;
    static final int HASH = 4;
    static final int PUBLISHED_MS = 12;
    static final int KEY_BYTES = 20;
    static final int KEY = 24;
    /** Of an addition. */
    static final int START = 1;

    static final int SCOPE = 9;
    static final int DELTA = 17;
    static final int ADDED_MS = 25;
    static final int ADDITION_BYTES = 33;

    private static final int IDS = 4;
    private static final byte ID_SEPARATOR = '/';

    private final CounterRules rules;
    private final Integer buckets;
    private final EventIds ids;
    private final ScopeHashes scopes = new ScopeHashes();
    private final HeldTable table = new HeldTable();
    private byte[] key = new byte[256];
    private int keyEnd;

    /** An entity's state lies in one of `buckets` keys. */
    GatheredCounts(CounterRules rules, int buckets) {
        this.rules = rules;
        this.buckets = Integer.valueOf(buckets);
        this.ids = new EventIds(IDS, rules.lastId());
    }

    /** Of how many entities something is gathered. */
    int count() {
        return this.table.count();
    }

    void add(RowData row) {
        long type = CounterRule.typeBit(row.getString(0));
        long eventTimeMs = row.getLong(1);
        long publishedTimeMs = row.getLong(2);
        long costMicros = row.getLong(3);
        this.ids.of(row);
        for (int i = 0; i < this.rules.entities.length; i++) {
            EntityRules entity = this.rules.entities[i];
            if ((entity.types & type) != 0 && belongs(entity)) {
                add(entity, type, eventTimeMs, publishedTimeMs, costMicros);
            }
        }
    }

    private boolean belongs(EntityRules entity) {
        boolean all = entity.absent < 0 || this.ids.size[entity.absent] == 0;
        for (int i = 0; all && i < entity.ids.length; i++) {
            all = this.ids.size[entity.ids[i]] > 0;
        }
        return all;
    }

    private void add(EntityRules entity, long type, long eventTimeMs, long publishedTimeMs, long costMicros) {
        Gathered gathered = null;
        int before = 0;
        for (int i = 0; i < entity.rules.length; i++) {
            CounterRule rule = entity.rules[i];
            if ((rule.types & type) == 0 || (rule.scope >= 0 && this.ids.size[rule.scope] == 0)) {
                continue;
            }
            long delta = rule.sumsCost ? costMicros : 1L;
            long startS = rule.startS(eventTimeMs);
            if (delta == 0L || publishedTimeMs >= rule.endOfUseMs(startS)) {
                continue;
            }
            if (gathered == null) {
                gathered = of(entity);
                before = gathered.end;
            }
            long scope = rule.scope < 0 ? 0L : this.scopes.of(this.ids, rule.scope);
            gathered.add(rule.number, startS, scope, delta, publishedTimeMs, before);
        }
        if (gathered != null) {
            Gathered.later(gathered.bytes, PUBLISHED_MS, publishedTimeMs);
        }
    }

    /** What is gathered of an entity of the event at hand. */
    private Gathered of(EntityRules entity) {
        keyOf(entity);
        long hash = EventBucket.hash(this.key, 0, this.keyEnd);
        Gathered found = (Gathered) this.table.first((int) hash);
        while (found != null && !found.is(hash, this.key, this.keyEnd)) {
            found = (Gathered) found.next;
        }
        if (found == null) {
            found = new Gathered(hash, EventBucket.of(hash, this.buckets), this.key, this.keyEnd);
            this.table.add(found);
        }
        return found;
    }

    /** Name of the entity and its ids. */
    private void keyOf(EntityRules entity) {
        int size = entity.name.length + entity.ids.length;
        for (int i = 0; i < entity.ids.length; i++) {
            size += this.ids.size[entity.ids[i]];
        }
        if (size > this.key.length) {
            this.key = new byte[size * 2];
        }
        System.arraycopy(entity.name, 0, this.key, 0, entity.name.length);
        int end = entity.name.length;
        for (int i = 0; i < entity.ids.length; i++) {
            int id = entity.ids[i];
            this.key[end++] = i == 0 ? Packed.SEPARATOR : ID_SEPARATOR;
            System.arraycopy(this.ids.bytes[id], this.ids.from[id], this.key, end, this.ids.size[id]);
            end += this.ids.size[id];
        }
        this.keyEnd = end;
    }

    /** All messages; nothing is gathered any more. */
    byte[][] taken() {
        Held[] all = this.table.taken();
        byte[][] messages = new byte[all.length][];
        for (int i = 0; i < all.length; i++) {
            messages[i] = ((Gathered) all[i]).message();
        }
        return messages;
    }
}

/** The message of one entity. */
final class Gathered extends Held {
    byte[] bytes;
    int end;

    Gathered(long hash, Integer bucket, byte[] key, int keyBytes) {
        super((int) hash);
        this.end = GatheredCounts.KEY + keyBytes;
        this.bytes = new byte[this.end + 4 * GatheredCounts.ADDITION_BYTES];
        Packed.putInt(this.bytes, GatheredCounts.BUCKET, bucket.intValue());
        Packed.putLong(this.bytes, GatheredCounts.HASH, hash);
        Packed.putLong(this.bytes, GatheredCounts.PUBLISHED_MS, Long.MIN_VALUE);
        Packed.putInt(this.bytes, GatheredCounts.KEY_BYTES, keyBytes);
        System.arraycopy(key, 0, this.bytes, GatheredCounts.KEY, keyBytes);
    }

    boolean is(long hash, byte[] key, int keyBytes) {
        int from = GatheredCounts.KEY;
        return Packed.getLong(this.bytes, GatheredCounts.HASH) == hash
                && Packed.getInt(this.bytes, GatheredCounts.KEY_BYTES) == keyBytes
                && Arrays.equals(this.bytes, from, from + keyBytes, key, 0, keyBytes);
    }

    /** What is added by one event is different in itself: only additions that end at `before` can be of the same. */
    void add(byte rule, long startS, long scope, long delta, long publishedMs, int before) {
        int at = GatheredCounts.KEY + Packed.getInt(this.bytes, GatheredCounts.KEY_BYTES);
        while (at < before
                && !(this.bytes[at] == rule
                        && Packed.getLong(this.bytes, at + GatheredCounts.START) == startS
                        && Packed.getLong(this.bytes, at + GatheredCounts.SCOPE) == scope)) {
            at += GatheredCounts.ADDITION_BYTES;
        }
        if (at < before) {
            int sum = at + GatheredCounts.DELTA;
            Packed.putLong(this.bytes, sum, Packed.getLong(this.bytes, sum) + delta);
            later(this.bytes, at + GatheredCounts.ADDED_MS, publishedMs);
            return;
        }
        at = this.end;
        this.end += GatheredCounts.ADDITION_BYTES;
        if (this.end > this.bytes.length) {
            this.bytes = Arrays.copyOf(this.bytes, this.end + this.end / 2);
        }
        this.bytes[at] = rule;
        Packed.putLong(this.bytes, at + GatheredCounts.START, startS);
        Packed.putLong(this.bytes, at + GatheredCounts.SCOPE, scope);
        Packed.putLong(this.bytes, at + GatheredCounts.DELTA, delta);
        Packed.putLong(this.bytes, at + GatheredCounts.ADDED_MS, publishedMs);
    }

    /** Puts the later of two times. */
    static void later(byte[] bytes, int at, long ms) {
        if (ms > Packed.getLong(bytes, at)) {
            Packed.putLong(bytes, at, ms);
        }
    }

    byte[] message() {
        return this.end == this.bytes.length ? this.bytes : Arrays.copyOf(this.bytes, this.end);
    }
}

/** schemas/ids.py `scope_hash`, of which the last one of each place in a table is remembered. */
final class ScopeHashes {
    private static final int PLACES = 1 << 15;

    private final byte[][] texts = new byte[PLACES][];
    private final long[] hashes = new long[PLACES];
    private final MessageDigest sha256;

    ScopeHashes() {
        try {
            this.sha256 = MessageDigest.getInstance("SHA-256");
        } catch (java.security.NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }

    long of(EventIds ids, int id) {
        byte[] bytes = ids.bytes[id];
        int from = ids.from[id];
        int to = from + ids.size[id];
        int place = (int) EventBucket.hash(bytes, from, to - from) & PLACES - 1;
        byte[] known = this.texts[place];
        if (known == null || !Arrays.equals(known, 0, known.length, bytes, from, to)) {
            this.texts[place] = Arrays.copyOfRange(bytes, from, to);
            this.hashes[place] = Packed.getLong(this.sha256.digest(this.texts[place]), 0);
        }
        return this.hashes[place];
    }
}
