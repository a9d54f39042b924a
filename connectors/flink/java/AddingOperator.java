// Adds up rows of equal keys; the operator behind the connector `additive-kafka` (AdditiveKafkaSink.java).
package headwater;

import java.util.Arrays;
import java.util.zip.CRC32C;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;

final class AddingOperator extends HoldingOperator {
    private static final long serialVersionUID = 1L;
    /** Rows that are written though no barrier has come: a bound of memory. */
    private static final int MOST_ROWS = 100000;

    private final AdditiveColumns columns;

    private transient AdditiveKey key;
    private transient HeldTable table;
    private transient AdditiveJson json;
    private transient StreamRecord out;

    AddingOperator(AdditiveColumns columns) {
        super(UNTIL_BARRIER);
        this.columns = columns;
    }

    public void open() throws Exception {
        super.open();
        this.key = new AdditiveKey(this.columns);
        this.columns.open();
        this.json = new AdditiveJson(this.columns);
        this.table = new HeldTable();
        this.out = new StreamRecord(null);
    }

    public void processElement(StreamRecord element) throws Exception {
        RowData row = (RowData) element.getValue();
        this.key.of(row);
        int hash = this.key.hash();
        Sums sums = (Sums) this.table.first(hash);
        while (sums != null && !(sums.hash == hash && this.key.is(sums.key))) {
            sums = (Sums) sums.next;
        }
        if (sums == null) {
            sums = new Sums(hash, this.key.copy(), this.columns);
            this.table.add(sums);
        }
        this.columns.add(sums, row);
        if (this.table.count() >= MOST_ROWS) {
            flush();
        }
    }

    void flush() throws Exception {
        Held[] all = this.table.taken();
        for (int i = 0; i < all.length; i++) {
            this.out.replace(GenericRowData.of(new Object[] {this.json.of((Sums) all[i])}));
            this.output.collect(this.out);
        }
    }
}

/**
 * The running sums of one key: small and few objects, because there may be many of them for as long as a checkpoint's
 * interval, and each young collection copies them. Of forty numbers most keys have five.
 */
final class Sums extends Held {
    final byte[] key;
    /** The texts that are collected, which may repeat; null: none yet. */
    final PackedWriter[] collected;

    private byte[] columns = new byte[6];
    private long[] numbers = new long[6];
    private int count;

    Sums(int hash, byte[] key, AdditiveColumns columns) {
        super(hash);
        this.key = key;
        this.collected = new PackedWriter[columns.unions.length];
    }

    void add(int column, long number) {
        int at = of(column, 0L); // first: it may replace the array
        this.numbers[at] += number;
    }

    void greater(int column, long number) {
        int at = of(column, number);
        this.numbers[at] = Math.max(this.numbers[at], number);
    }

    /** How many numbers there are, and each with its column, a place in `AdditiveColumns.numbers` or behind them. */
    int count() {
        return this.count;
    }

    int column(int at) {
        return this.columns[at] & 0xff;
    }

    long number(int at) {
        return this.numbers[at];
    }

    private int of(int column, long first) {
        for (int i = 0; i < this.count; i++) {
            if (this.columns[i] == (byte) column) {
                return i;
            }
        }
        if (this.count == this.columns.length) {
            this.columns = Arrays.copyOf(this.columns, this.count * 2);
            this.numbers = Arrays.copyOf(this.numbers, this.count * 2);
        }
        this.columns[this.count] = (byte) column;
        this.numbers[this.count] = first;
        return this.count++;
    }

    void collect(int union, StringData text) {
        if (this.collected[union] == null) {
            this.collected[union] = new PackedWriter(40); // most keys have one user
        }
        this.collected[union].put(text);
    }
}

/**
 * A row's key as bytes, in one buffer that is used again: hashed and compared in one go instead of column by column.
 * First the BIGINTs, then the rest as PackedFields.
 */
final class AdditiveKey {
    private final AdditiveColumns columns;
    /** One instruction for eight bytes on common processors. */
    private final CRC32C checksum = new CRC32C();
    private final PackedWriter out = new PackedWriter(512);

    AdditiveKey(AdditiveColumns columns) {
        this.columns = columns;
    }

    void of(RowData row) {
        int[] longs = this.columns.longs;
        this.out.position = 0;
        for (int i = 0; i < longs.length; i++) {
            this.out.put(row.getLong(longs[i]));
        }
        if (this.columns.packed >= 0) {
            byte[] packed = row.getBinary(this.columns.packed);
            this.out.put(packed, 0, packed.length);
            return;
        }
        int[] texts = this.columns.textColumns;
        for (int i = 0; i < texts.length; i++) {
            this.out.put(row.isNullAt(texts[i]) ? null : row.getString(texts[i]));
        }
        int[] ints = this.columns.intColumns;
        for (int i = 0; i < ints.length; i++) {
            this.out.put((long) row.getInt(ints[i]));
        }
    }

    int hash() {
        this.checksum.reset();
        this.checksum.update(this.out.bytes, 0, this.out.position);
        int hash = (int) this.checksum.getValue();
        return hash ^ (hash >>> 15);
    }

    boolean is(byte[] other) {
        return Arrays.equals(this.out.bytes, 0, this.out.position, other, 0, other.length);
    }

    byte[] copy() {
        return Arrays.copyOf(this.out.bytes, this.out.position);
    }
}
