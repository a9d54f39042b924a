// counts_so_far(input => TABLE visits PARTITION BY id_bucket, kept_ms => ..., id_buckets => ...)
//
// How much has come of a visitor in a window, this row included? Rows count by `visitor`, `in_window` and `kind`, in the
// order in which they come; users are those among `packed_ids`, and `marked` says which rows are counted apart. As
// aggregates OVER the rows so far it took a quarter of the CPU of `invalid_traffic`, half of that to look for counts whose
// time was over.
//
// Out: a row for each of the input, in a column `event`, with its numbers so far: `rows_so_far`, `users_so_far` (that
// differ), `marked_so_far`.
//
// State, by the bucket and the hash of visitor, window and kind (KeptByBucket.java): four bytes, rows (i32), marked rows
// (i32), the hashes of the users (i64 each), for `kept_ms` of publish time after the last row.
package headwater;

import java.util.Arrays;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import java.util.List;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.StaticArgumentTrait;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.logical.RowType;

public class CountsSoFar extends HandingOnFunction {
    private static final long CLEARED_EVERY_MS = 3600000;

    private transient KeptByBucket buckets;
    private transient CountSoFar count;
    private transient int idBucket;
    private transient int visitor;
    private transient int inWindow;
    private transient int kind;
    private transient int ids;
    private transient int marked;
    private transient int publishedTimeMs;

    HandingOnFunction another() {
        return new CountsSoFar();
    }

    public TypeInference getTypeInference(DataTypeFactory types) {
        LinkedHashMap state = new LinkedHashMap();
        state.put("kept", KeptByBucket.state());
        StaticArgument[] arguments = new StaticArgument[] {
            input(EnumSet.of(StaticArgumentTrait.SET_SEMANTIC_TABLE)),
            StaticArgument.scalar("kept_ms", (DataType) DataTypes.BIGINT().notNull(), false),
            StaticArgument.scalar("id_buckets", (DataType) DataTypes.INT().notNull(), false),
        };
        DataTypes.Field[] numbers = new DataTypes.Field[] {
            DataTypes.FIELD("rows_so_far", (DataType) DataTypes.BIGINT().notNull()),
            DataTypes.FIELD("users_so_far", (DataType) DataTypes.BIGINT().notNull()),
            DataTypes.FIELD("marked_so_far", (DataType) DataTypes.BIGINT().notNull()),
        };
        return TypeInference.newBuilder()
                .staticArguments(arguments)
                .stateTypeStrategies(state)
                .outputTypeStrategy(new EventOutput(numbers))
                .build();
    }

    public void eval(ProcessTableFunction.Context context, MapView kept, RowData input, Long keptMs, Integer idBuckets)
            throws Exception {
        if (this.buckets == null) {
            open(((RowType) context.tableSemanticsFor("input").dataType().getLogicalType()).getFieldNames());
            this.buckets = new KeptByBucket(idBuckets.intValue(), CLEARED_EVERY_MS);
        }
        long publishedMs = input.getLong(this.publishedTimeMs);
        this.buckets.open(kept, input.getInt(this.idBucket), publishedMs);
        long key = EventBucket.mixed(
                EventBucket.mixed(KeptByBucket.key(input.getString(this.visitor)) ^ input.getLong(this.inWindow))
                        ^ input.getInt(this.kind));
        byte[] ids = input.getBinary(this.ids);
        this.count.read(this.buckets, key);
        this.count.add(
                input.getBoolean(this.marked),
                PackedIds.has(ids, EventContract.USER),
                PackedIds.hash(ids, EventContract.USER),
                publishedMs + keptMs.longValue());
        this.count.write(this.buckets, key);
        collect(GenericRowData.of(new Object[] {
            input, Long.valueOf(this.count.rows()), Long.valueOf(this.count.users()), Long.valueOf(this.count.markedRows())
        }));
    }

    private void open(List names) {
        this.idBucket = names.indexOf("id_bucket");
        this.visitor = names.indexOf("visitor");
        this.inWindow = names.indexOf("in_window");
        this.kind = names.indexOf("kind");
        this.ids = names.indexOf("packed_ids");
        this.marked = names.indexOf("marked");
        this.publishedTimeMs = names.indexOf("published_time_ms");
        this.count = new CountSoFar();
    }
}

/** What is kept of a visitor and window. */
final class CountSoFar {
    private static final int ROWS = KeptByBucket.HEADER_BYTES;
    private static final int MARKED_ROWS = ROWS + 4;
    private static final int USERS = MARKED_ROWS + 4;
    private static final int USER_BYTES = 8;

    private byte[] bytes = new byte[USERS + 16 * USER_BYTES];
    private int size;
    private int at;

    void read(KeptByBucket bucket, long key) {
        this.at = bucket.find(key);
        boolean known = this.at < bucket.end();
        this.size = known ? bucket.next(this.at) - KeptByBucket.value(this.at) : USERS;
        if (this.size + USER_BYTES > this.bytes.length) {
            this.bytes = new byte[2 * this.size];
        }
        if (known) {
            System.arraycopy(bucket.bytes(), KeptByBucket.value(this.at), this.bytes, 0, this.size);
        } else {
            Arrays.fill(this.bytes, 0, USERS, (byte) 0);
        }
    }

    void add(boolean marked, boolean ofUser, long user, long untilMs) {
        Packed.putInt(this.bytes, ROWS, Packed.getInt(this.bytes, ROWS) + 1);
        if (marked) {
            Packed.putInt(this.bytes, MARKED_ROWS, Packed.getInt(this.bytes, MARKED_ROWS) + 1);
        }
        if (ofUser && !has(user)) {
            Packed.putLong(this.bytes, this.size, user);
            this.size += USER_BYTES;
        }
        KeptByBucket.keepUntil(this.bytes, 0, untilMs);
    }

    void write(KeptByBucket bucket, long key) throws Exception {
        bucket.replace(this.at, key, this.bytes, this.size);
        bucket.write();
    }

    long rows() {
        return Packed.getInt(this.bytes, ROWS);
    }

    long users() {
        return (this.size - USERS) / USER_BYTES;
    }

    long markedRows() {
        return Packed.getInt(this.bytes, MARKED_ROWS);
    }

    private boolean has(long user) {
        int at = USERS;
        while (at < this.size && Packed.getLong(this.bytes, at) != user) {
            at += USER_BYTES;
        }
        return at < this.size;
    }
}
