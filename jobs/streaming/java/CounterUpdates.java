// SQL function `counter_updates`: what one event adds to the counters of each entity that it belongs to.
//
// One call gives a row per entity instead of one per counter, so an impression that thirty counters count crosses the
// network eight times, and each entity's state is looked up once.
package headwater;

import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.functions.TableFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.ArgumentTypeStrategy;
import org.apache.flink.table.types.inference.InputTypeStrategies;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

/**
 * `counter_updates(declaration, event_type, event_time_ms, published_time_ms, cost_micros, id...)` -> rows (entity_key,
 * updates).
 *
 * <p>`declaration` is made by jobs/streaming/counters.py: a line per counter, fields separated by a space: code, entity,
 * positions of the entity's ids (joined by `/`), position of the id that must be absent or -, position of the scope's
 * id or -, event types (separated by a comma), bucket_s, retention_s, and 1 when it sums cost_micros instead of counting.
 * An event that is published when its bucket is of no use any more is not counted in it.
 *
 * <p>`updates` is for CounterBuckets: a byte that is 1 when the entity's counters have scopes; then of each bucket its
 * length in seconds (i64), the seconds that it is kept after its end (i64) and the number of updates (u8); and of each of
 * these code (u8), hash of the scope (i64, where there are scopes) and delta (i64), little-endian.
 */
public final class CounterUpdates extends TableFunction {
    private static final long serialVersionUID = 1L;
    private static final int MOST_SCOPES_REMEMBERED = 50000;
    private static final byte ID_SEPARATOR = '/';

    private transient StringData declared;
    private transient EntityRules[] entities;
    private transient Map hashes;
    private transient MessageDigest sha256;
    private transient byte[] updates;

    public void eval(
            StringData declaration,
            StringData eventType,
            Long eventTimeMs,
            Long publishedTimeMs,
            Long costMicros,
            StringData... ids) {
        if (this.declared == null || !this.declared.equals(declaration)) {
            read(declaration);
        }
        long type = CounterRule.typeBit(eventType);
        for (int i = 0; i < this.entities.length; i++) {
            update(
                    this.entities[i],
                    type,
                    eventTimeMs.longValue(),
                    publishedTimeMs.longValue(),
                    costMicros.longValue(),
                    ids);
        }
    }

    private void update(
            EntityRules entity,
            long type,
            long eventTimeMs,
            long publishedTimeMs,
            long costMicros,
            StringData[] ids) {
        if ((entity.types & type) == 0 || (entity.absent >= 0 && isThere(ids[entity.absent]))) {
            return;
        }
        for (int i = 0; i < entity.ids.length; i++) {
            if (!isThere(ids[entity.ids[i]])) {
                return;
            }
        }
        byte[] updates = this.updates;
        updates[0] = (byte) (entity.scoped ? 1 : 0);
        int end = 1;
        int group = 0;
        for (int i = 0; i < entity.rules.length; i++) {
            CounterRule rule = entity.rules[i];
            if ((rule.types & type) == 0 || (rule.scope >= 0 && !isThere(ids[rule.scope]))) {
                continue;
            }
            long delta = rule.sumsCost ? costMicros : 1L;
            if (delta == 0L || publishedTimeMs >= rule.endOfUseMs(eventTimeMs)) {
                continue;
            }
            if (group == 0 || Packed.getLong(updates, group) != rule.bucketS) { // those of one length follow each other
                group = end;
                Packed.putLong(updates, group, rule.bucketS);
                Packed.putLong(updates, group + 8, rule.retentionS + CounterRule.SLACK_S);
                updates[group + 16] = 0;
                end += Packed.GROUP_BYTES;
            }
            updates[group + 16]++;
            updates[end] = rule.code;
            if (entity.scoped) {
                Packed.putLong(updates, end + 1, rule.scope < 0 ? 0L : scopeHash(ids[rule.scope]));
                end += 8;
            }
            Packed.putLong(updates, end + 1, delta);
            end += Packed.UPDATE_BYTES;
        }
        if (end > 1) {
            collect(GenericRowData.of(
                    new Object[] {BinaryStringData.fromBytes(key(entity, ids)), Arrays.copyOf(updates, end)}));
        }
    }

    /** Name of the entity and its ids. */
    private static byte[] key(EntityRules entity, StringData[] ids) {
        int size = entity.name.length + entity.ids.length;
        for (int i = 0; i < entity.ids.length; i++) {
            size += ((BinaryStringData) ids[entity.ids[i]]).getSizeInBytes();
        }
        byte[] key = Arrays.copyOf(entity.name, size);
        int end = entity.name.length;
        for (int i = 0; i < entity.ids.length; i++) {
            key[end++] = i == 0 ? Packed.SEPARATOR : ID_SEPARATOR;
            byte[] id = ids[entity.ids[i]].toBytes();
            System.arraycopy(id, 0, key, end, id.length);
            end += id.length;
        }
        return key;
    }

    private static boolean isThere(StringData id) {
        return id != null && ((BinaryStringData) id).getSizeInBytes() > 0;
    }

    /** schemas/ids.py `scope_hash`. */
    private long scopeHash(StringData id) {
        Object known = this.hashes.get(id);
        if (known != null) {
            return ((Long) known).longValue();
        }
        long hash = Packed.getLong(this.sha256.digest(id.toBytes()), 0);
        if (this.hashes.size() >= MOST_SCOPES_REMEMBERED) {
            this.hashes.clear();
        }
        this.hashes.put(((BinaryStringData) id).copy(), Long.valueOf(hash));
        return hash;
    }

    private void read(StringData declaration) {
        try {
            this.sha256 = MessageDigest.getInstance("SHA-256");
        } catch (java.security.NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
        this.hashes = new HashMap();
        List found = new ArrayList();
        Map byEntity = new HashMap();
        String[] lines = declaration.toString().split("\n");
        for (int i = 0; i < lines.length; i++) {
            String[] parts = lines[i].split(" ");
            EntityRules entity = (EntityRules) byEntity.get(parts[1]);
            if (entity == null) {
                entity = new EntityRules(parts[1], parts[2].split(","), CounterRule.position(parts[3]));
                byEntity.put(parts[1], entity);
                found.add(entity);
            }
            entity.add(new CounterRule(parts));
        }
        this.entities = (EntityRules[]) found.toArray(new EntityRules[0]);
        int most = 0;
        for (int i = 0; i < this.entities.length; i++) {
            most = Math.max(most, this.entities[i].rules.length);
        }
        this.updates = new byte[1 + most * (Packed.GROUP_BYTES + Packed.SCOPED_UPDATE_BYTES)];
        this.declared = ((BinaryStringData) declaration).copy();
    }

    public TypeInference getTypeInference(DataTypeFactory factory) {
        DataType text = (DataType) DataTypes.STRING().bridgedTo(StringData.class);
        DataType row = factory.createDataType("ROW<entity_key STRING NOT NULL, updates BYTES NOT NULL> NOT NULL");
        return TypeInference.newBuilder()
                .inputTypeStrategy(InputTypeStrategies.varyingSequence(new ArgumentTypeStrategy[] {
                    InputTypeStrategies.explicit(text),
                    InputTypeStrategies.explicit(text),
                    InputTypeStrategies.explicit(DataTypes.BIGINT()),
                    InputTypeStrategies.explicit(DataTypes.BIGINT()),
                    InputTypeStrategies.explicit(DataTypes.BIGINT()),
                    InputTypeStrategies.explicit(text)
                }))
                .outputTypeStrategy(TypeStrategies.explicit((DataType) row.bridgedTo(RowData.class)))
                .build();
    }
}

/** The counters of one kind of entity. */
final class EntityRules {
    final byte[] name;
    final int[] ids;
    final int absent;
    CounterRule[] rules = new CounterRule[0];
    boolean scoped;
    long types;

    EntityRules(String name, String[] positions, int absent) {
        this.name = name.getBytes(StandardCharsets.UTF_8);
        this.ids = new int[positions.length];
        for (int i = 0; i < positions.length; i++) {
            this.ids[i] = Integer.parseInt(positions[i]);
        }
        this.absent = absent;
    }

    void add(CounterRule rule) {
        this.rules = (CounterRule[]) Arrays.copyOf(this.rules, this.rules.length + 1);
        this.rules[this.rules.length - 1] = rule;
        this.scoped = this.scoped || rule.scope >= 0;
        this.types |= rule.types;
    }
}

/** One counter. */
final class CounterRule {
    /** A bucket is kept for longer than it is of use, so that partitions may be read at different paces. */
    static final long SLACK_S = 86400L;

    final byte code;
    final int scope;
    /** A bit for each type of events that it counts. */
    final long types;
    final long bucketS;
    final long retentionS;
    final boolean sumsCost;

    CounterRule(String[] parts) {
        this.code = (byte) Integer.parseInt(parts[0]);
        this.scope = position(parts[4]);
        long types = 0;
        String[] names = parts[5].split(",");
        for (int i = 0; i < names.length; i++) {
            types |= typeBit(BinaryStringData.fromString(names[i]));
        }
        this.types = types;
        this.bucketS = Long.parseLong(parts[6]);
        this.retentionS = Long.parseLong(parts[7]);
        this.sumsCost = parts[8].equals("1");
    }

    static int position(String text) {
        return text.equals("-") ? -1 : Integer.parseInt(text);
    }

    /** When the bucket of an event is of no use any more, epoch ms. */
    long endOfUseMs(long eventTimeMs) {
        long bucketMs = this.bucketS * 1000L;
        return (Math.floorDiv(eventTimeMs, bucketMs) + 1L) * bucketMs + this.retentionS * 1000L;
    }

    /** 0 for a type that nobody knows, which nothing counts. */
    static long typeBit(StringData eventType) {
        int number = EventContract.TYPES.number(eventType);
        return number < 0 ? 0L : 1L << number;
    }
}
