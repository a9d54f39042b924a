// What is counted of an event, for whom, in which bucket: the counters of schemas/counters.py as jobs/streaming/counters.py
// declares them.
package headwater;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;

/**
 * A line per counter, fields separated by a space: code, entity, numbers of the entity's ids (separated by a comma),
 * number of the id that must be absent or -, number of the scope's id or -, event types (separated by a comma), bucket_s,
 * retention_s, and 1 when it sums cost_micros instead of counting. How ids are numbered says EventIds.
 */
final class CounterRules {
    /** Counters by their place in the declaration. */
    final CounterRule[] rules;
    final EntityRules[] entities;

    CounterRules(String declaration) {
        List found = new ArrayList();
        Map byEntity = new HashMap();
        String[] lines = declaration.split("\n");
        if (lines.length > 256) {
            throw new IllegalArgumentException("a byte numbers the counters, and there are " + lines.length);
        }
        this.rules = new CounterRule[lines.length];
        for (int i = 0; i < lines.length; i++) {
            String[] parts = lines[i].split(" ");
            EntityRules entity = (EntityRules) byEntity.get(parts[1]);
            if (entity == null) {
                entity = new EntityRules(parts[1], parts[2].split(","), CounterRule.number(parts[3]));
                byEntity.put(parts[1], entity);
                found.add(entity);
            }
            this.rules[i] = new CounterRule(i, entity, parts);
            entity.add(this.rules[i]);
        }
        this.entities = (EntityRules[]) found.toArray(new EntityRules[0]);
    }

    /** The greatest number of an id. */
    int lastId() {
        int last = 0;
        for (int i = 0; i < this.entities.length; i++) {
            EntityRules entity = this.entities[i];
            last = Math.max(last, entity.absent);
            for (int j = 0; j < entity.ids.length; j++) {
                last = Math.max(last, entity.ids[j]);
            }
        }
        for (int i = 0; i < this.rules.length; i++) {
            last = Math.max(last, this.rules[i].scope);
        }
        return last;
    }
}

/** The counters of one kind of entity. */
final class EntityRules {
    final byte[] name;
    final int[] ids;
    final int absent;
    CounterRule[] rules = new CounterRule[0];
    /** Whether any of them has scopes: then the entries of all have room for one. */
    boolean scoped;
    long types;

    EntityRules(String name, String[] numbers, int absent) {
        this.name = name.getBytes(StandardCharsets.UTF_8);
        this.ids = new int[numbers.length];
        for (int i = 0; i < numbers.length; i++) {
            this.ids[i] = Integer.parseInt(numbers[i]);
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
    private static final long SLACK_S = 86400L;

    /** Its place in the declaration. */
    final byte number;
    final EntityRules entity;
    final byte code;
    final int scope;
    /** A bit for each type of events that it counts. */
    final long types;
    final long bucketS;
    final long retentionS;
    final boolean sumsCost;

    CounterRule(int number, EntityRules entity, String[] parts) {
        this.number = (byte) number;
        this.entity = entity;
        this.code = (byte) Integer.parseInt(parts[0]);
        this.scope = number(parts[4]);
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

    static int number(String text) {
        return text.equals("-") ? -1 : Integer.parseInt(text);
    }

    /** Start of the bucket of an event, in seconds. */
    long startS(long eventTimeMs) {
        return Math.floorDiv(eventTimeMs, this.bucketS * 1000L) * this.bucketS;
    }

    /** When a bucket is of no use any more, epoch ms: an event that is published then is not counted. */
    long endOfUseMs(long startS) {
        return (startS + this.bucketS + this.retentionS) * 1000L;
    }

    /** Until when a bucket is kept, in seconds. */
    long keptUntilS(long startS) {
        return startS + this.bucketS + this.retentionS + SLACK_S;
    }

    /** 0 for a type that nobody knows, which nothing counts. */
    static long typeBit(StringData eventType) {
        int number = EventContract.TYPES.number(eventType);
        return number < 0 ? 0L : 1L << number;
    }
}
