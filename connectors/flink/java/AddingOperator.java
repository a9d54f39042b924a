// Adds up rows of equal keys; the operator behind the connector `additive-kafka` (AdditiveKafkaSink.java).
package headwater;

import java.io.Serializable;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.zip.CRC32C;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.data.ArrayData;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.types.logical.RowType;

final class AddingOperator extends AbstractStreamOperator implements OneInputStreamOperator {
    private static final long serialVersionUID = 1L;
    /** Rows that are written though no barrier has come: a bound of memory. */
    private static final int MOST_ROWS = 100000;

    private final AdditiveColumns columns;

    private transient AdditiveKey key;
    private transient Sums[] table;
    private transient int rows;
    private transient StreamRecord out;

    AddingOperator(AdditiveColumns columns) {
        this.columns = columns;
    }

    public void open() throws Exception {
        super.open();
        this.key = new AdditiveKey(this.columns);
        this.table = new Sums[1024];
        this.rows = 0;
        this.out = new StreamRecord(null);
    }

    public void processElement(StreamRecord element) throws Exception {
        RowData row = (RowData) element.getValue();
        this.key.of(row);
        int hash = this.key.hash();
        int at = hash & (this.table.length - 1);
        Sums sums = this.table[at];
        while (sums != null && !(sums.hash == hash && this.key.is(sums.keyBytes))) {
            sums = sums.next;
        }
        if (sums == null) {
            sums = new Sums(hash, this.key.copy(), this.columns.key(row), this.columns, this.table[at]);
            this.table[at] = sums;
            this.rows++;
            if (this.rows > this.table.length) {
                grow();
            }
        }
        this.columns.add(sums, row);
        if (this.rows >= MOST_ROWS) {
            flush();
        }
    }

    public void prepareSnapshotPreBarrier(long checkpoint) throws Exception {
        flush();
    }

    public void finish() throws Exception {
        flush();
        super.finish();
    }

    private void flush() {
        if (this.rows == 0) {
            return;
        }
        for (int i = 0; i < this.table.length; i++) {
            for (Sums sums = this.table[i]; sums != null; sums = sums.next) {
                this.out.replace(this.columns.row(sums));
                this.output.collect(this.out);
            }
            this.table[i] = null;
        }
        this.rows = 0;
    }

    private void grow() {
        Sums[] larger = new Sums[this.table.length * 4];
        for (int i = 0; i < this.table.length; i++) {
            Sums sums = this.table[i];
            while (sums != null) {
                Sums next = sums.next;
                int at = sums.hash & (larger.length - 1);
                sums.next = larger[at];
                larger[at] = sums;
                sums = next;
            }
        }
        this.table = larger;
    }
}

/** The running sums of one key. What is collected for sketches may repeat: they do not mind, and a set costs more. */
final class Sums {
    final int hash;
    final byte[] keyBytes;
    final Object[] key;
    final long[] numbers;
    final List[] unions;
    Sums next;

    Sums(int hash, byte[] keyBytes, Object[] key, AdditiveColumns columns, Sums next) {
        this.hash = hash;
        this.keyBytes = keyBytes;
        this.key = key;
        this.numbers = new long[columns.numbers.length];
        Arrays.fill(this.numbers, columns.sums, this.numbers.length, Long.MIN_VALUE);
        this.unions = new List[columns.unions.length];
        this.next = next;
    }
}

/** A row's key as bytes, in one buffer that is used again: hashed and compared in one go instead of column by column. */
final class AdditiveKey {
    private final int[] columns;
    private final int[] kinds;
    /** One instruction for eight bytes on common processors. */
    private final CRC32C checksum = new CRC32C();
    private byte[] bytes = new byte[512];
    private int size;

    AdditiveKey(AdditiveColumns columns) {
        this.columns = columns.keys;
        this.kinds = columns.kinds;
    }

    void of(RowData row) {
        this.size = 0;
        for (int i = 0; i < this.columns.length; i++) {
            int column = this.columns[i];
            if (row.isNullAt(column)) {
                put(-1, 4);
            } else if (this.kinds[i] == AdditiveColumns.TEXT) {
                BinaryStringData text = (BinaryStringData) row.getString(column);
                text.ensureMaterialized();
                int length = text.getSizeInBytes();
                put(length, 4);
                room(length);
                if (text.getSegments().length == 1) {
                    text.getSegments()[0].get(text.getOffset(), this.bytes, this.size, length);
                } else {
                    System.arraycopy(text.toBytes(), 0, this.bytes, this.size, length);
                }
                this.size += length;
            } else if (this.kinds[i] == AdditiveColumns.LONG) {
                put(row.getLong(column), 8);
            } else {
                put(row.getInt(column), 4);
            }
        }
    }

    int hash() {
        this.checksum.reset();
        this.checksum.update(this.bytes, 0, this.size);
        int hash = (int) this.checksum.getValue();
        return hash ^ (hash >>> 15);
    }

    boolean is(byte[] other) {
        return Arrays.equals(this.bytes, 0, this.size, other, 0, other.length);
    }

    byte[] copy() {
        return Arrays.copyOf(this.bytes, this.size);
    }

    private void put(long number, int length) {
        room(length);
        for (int i = 0; i < length; i++) {
            this.bytes[this.size++] = (byte) (number >>> (8 * i));
        }
    }

    private void room(int length) {
        if (this.size + length > this.bytes.length) {
            this.bytes = Arrays.copyOf(this.bytes, (this.size + length) * 2);
        }
    }
}

/** Which column is what. `numbers` are the positions of the sums, then of the maxima. */
final class AdditiveColumns implements Serializable {
    private static final long serialVersionUID = 1L;
    static final int TEXT = 0;
    static final int INT = 1;
    static final int LONG = 2;

    final int arity;
    final int[] keys;
    final int[] kinds;
    final int[] numbers;
    final int sums;
    final int[] unions;

    private AdditiveColumns(int arity, int[] keys, int[] kinds, int[] numbers, int sums, int[] unions) {
        this.arity = arity;
        this.keys = keys;
        this.kinds = kinds;
        this.numbers = numbers;
        this.sums = sums;
        this.unions = unions;
    }

    /** Errors: ValidationException for a column that is not there or of a type that can't be it. */
    static AdditiveColumns of(RowType row, Map options) {
        int[] sums = positions(row, (String) options.get("sum"));
        int[] maxima = positions(row, (String) options.get("max"));
        int[] unions = positions(row, (String) options.get("union"));
        int[] numbers = Arrays.copyOf(sums, sums.length + maxima.length);
        System.arraycopy(maxima, 0, numbers, sums.length, maxima.length);
        boolean[] additive = new boolean[row.getFieldCount()];
        for (int i = 0; i < numbers.length; i++) {
            additive[numbers[i]] = true;
            require(row, numbers[i], "BIGINT");
        }
        for (int i = 0; i < unions.length; i++) {
            additive[unions[i]] = true;
            require(row, unions[i], "ARRAY");
        }
        int[] keys = new int[row.getFieldCount() - numbers.length - unions.length];
        int[] kinds = new int[keys.length];
        int found = 0;
        for (int i = 0; i < additive.length; i++) {
            if (!additive[i]) {
                keys[found] = i;
                String root = row.getTypeAt(i).getTypeRoot().name();
                kinds[found] = root.equals("BIGINT") ? LONG : root.equals("INTEGER") ? INT : TEXT;
                if (kinds[found] == TEXT) {
                    require(row, i, "VARCHAR");
                }
                found++;
            }
        }
        return new AdditiveColumns(row.getFieldCount(), keys, kinds, numbers, sums.length, unions);
    }

    private static int[] positions(RowType row, String names) {
        if (names == null || names.isEmpty()) {
            return new int[0];
        }
        String[] each = names.split(",");
        int[] positions = new int[each.length];
        for (int i = 0; i < each.length; i++) {
            positions[i] = row.getFieldIndex(each[i].trim());
            if (positions[i] < 0) {
                throw new ValidationException("additive-kafka: no column " + each[i]);
            }
        }
        return positions;
    }

    private static void require(RowType row, int position, String root) {
        if (!row.getTypeAt(position).getTypeRoot().name().equals(root)) {
            String name = (String) row.getFieldNames().get(position);
            throw new ValidationException("additive-kafka: column " + name + " must be " + root);
        }
    }

    /** The key's values, copied: the row and the message behind it are another's. */
    Object[] key(RowData row) {
        Object[] key = new Object[this.keys.length];
        for (int i = 0; i < key.length; i++) {
            int column = this.keys[i];
            if (!row.isNullAt(column)) {
                if (this.kinds[i] == TEXT) {
                    key[i] = copy(row.getString(column));
                } else if (this.kinds[i] == LONG) {
                    key[i] = Long.valueOf(row.getLong(column));
                } else {
                    key[i] = Integer.valueOf(row.getInt(column));
                }
            }
        }
        return key;
    }

    void add(Sums sums, RowData row) {
        for (int i = 0; i < this.sums; i++) {
            sums.numbers[i] += row.getLong(this.numbers[i]);
        }
        for (int i = this.sums; i < this.numbers.length; i++) {
            sums.numbers[i] = Math.max(sums.numbers[i], row.getLong(this.numbers[i]));
        }
        for (int i = 0; i < this.unions.length; i++) {
            if (!row.isNullAt(this.unions[i])) {
                ArrayData items = row.getArray(this.unions[i]);
                if (sums.unions[i] == null) {
                    sums.unions[i] = new ArrayList();
                }
                for (int j = 0; j < items.size(); j++) {
                    if (!items.isNullAt(j)) {
                        sums.unions[i].add(copy(items.getString(j)));
                    }
                }
            }
        }
    }

    /** The row to write. A sum of 0 is null, and so left out of JSON: most of a row's sums are. */
    GenericRowData row(Sums sums) {
        GenericRowData row = new GenericRowData(this.arity);
        for (int i = 0; i < this.keys.length; i++) {
            row.setField(this.keys[i], sums.key[i]);
        }
        for (int i = 0; i < this.numbers.length; i++) {
            row.setField(this.numbers[i], sums.numbers[i] == 0 ? null : Long.valueOf(sums.numbers[i]));
        }
        for (int i = 0; i < this.unions.length; i++) {
            row.setField(
                    this.unions[i], sums.unions[i] == null ? null : new GenericArrayData(sums.unions[i].toArray()));
        }
        return row;
    }

    private static StringData copy(StringData text) {
        return ((BinaryStringData) text).copy();
    }
}
