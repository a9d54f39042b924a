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
 * <p>`updates` is for CounterBuckets: a byte that is 1 when the entity's counters have scopes, then 33 bytes per
 * counter: bucket_s (i64), seconds that the bucket is kept after its end (i64), code (u8), scope hash (i64), delta
 * (i64), little-endian.
 */
public final class CounterUpdates extends TableFunction {
    private static final long serialVersionUID = 1L;
    private static final int MOST_SCOPES_REMEMBERED = 50000;

    private transient StringData declared;
    private transient EntityRules[] entities;
    private transient Map hashes;
    private transient MessageDigest sha256;

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
        for (int i = 0; i < this.entities.length; i++) {
            update(
                    this.entities[i],
                    eventType,
                    eventTimeMs.longValue(),
                    publishedTimeMs.longValue(),
                    costMicros.longValue(),
                    ids);
        }
    }

    private void update(
            EntityRules entity,
            StringData eventType,
            long eventTimeMs,
            long publishedTimeMs,
            long costMicros,
            StringData[] ids) {
        if (entity.absent >= 0 && isThere(ids[entity.absent])) {
            return;
        }
        for (int i = 0; i < entity.ids.length; i++) {
            if (!isThere(ids[entity.ids[i]])) {
                return;
            }
        }
        byte[] updates = new byte[1 + entity.rules.length * Packed.UPDATE_BYTES];
        updates[0] = (byte) (entity.scoped ? 1 : 0);
        int end = 1;
        for (int i = 0; i < entity.rules.length; i++) {
            CounterRule rule = entity.rules[i];
            if (!rule.counts(eventType) || (rule.scope >= 0 && !isThere(ids[rule.scope]))) {
                continue;
            }
            long delta = rule.sumsCost ? costMicros : 1L;
            if (delta == 0L || publishedTimeMs >= rule.endOfUseMs(eventTimeMs)) {
                continue;
            }
            Packed.putLong(updates, end, rule.bucketS);
            Packed.putLong(updates, end + 8, rule.retentionS + CounterRule.SLACK_S);
            updates[end + 16] = rule.code;
            Packed.putLong(updates, end + 17, rule.scope < 0 ? 0L : scopeHash(ids[rule.scope]));
            Packed.putLong(updates, end + 25, delta);
            end += Packed.UPDATE_BYTES;
        }
        if (end > 1) {
            StringBuilder key = new StringBuilder(entity.name).append(Packed.SEPARATOR);
            for (int i = 0; i < entity.ids.length; i++) {
                key.append(i == 0 ? "" : "/").append(ids[entity.ids[i]].toString());
            }
            collect(GenericRowData.of(new Object[] {
                BinaryStringData.fromString(key.toString()), end == updates.length ? updates : Arrays.copyOf(updates, end)
            }));
        }
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
    final String name;
    final int[] ids;
    final int absent;
    CounterRule[] rules = new CounterRule[0];
    boolean scoped;

    EntityRules(String name, String[] positions, int absent) {
        this.name = name;
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
    }
}

/** One counter. */
final class CounterRule {
    /** A bucket is kept for longer than it is of use, so that partitions may be read at different paces. */
    static final long SLACK_S = 86400L;

    final byte code;
    final int scope;
    final StringData[] eventTypes;
    final long bucketS;
    final long retentionS;
    final boolean sumsCost;

    CounterRule(String[] parts) {
        this.code = (byte) Integer.parseInt(parts[0]);
        this.scope = position(parts[4]);
        String[] names = parts[5].split(",");
        this.eventTypes = new StringData[names.length];
        for (int i = 0; i < names.length; i++) {
            this.eventTypes[i] = BinaryStringData.fromString(names[i]);
        }
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

    boolean counts(StringData eventType) {
        for (int i = 0; i < this.eventTypes.length; i++) {
            if (this.eventTypes[i].equals(eventType)) {
                return true;
            }
        }
        return false;
    }
}
