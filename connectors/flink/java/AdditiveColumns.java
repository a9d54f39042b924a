// Which column of an additive table is what (AdditiveKafkaSink.java), and how a row is added up.
package headwater;

import java.io.Serializable;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.types.logical.RowType;

final class AdditiveColumns implements Serializable {
    private static final long serialVersionUID = 1L;
    static final int TEXT = 0;
    static final int INT = 1;
    static final int LONG = 2;
    static final int LENGTH_BYTES = 2;
    static final int NO_TEXT = 0xFFFF;

    final String[] names;
    /** Positions of the key's columns, and their types. */
    final int[] keys;
    final int[] kinds;
    /** Positions of the sums, then of the maxima; `sums` is how many are sums. */
    final int[] numbers;
    final int sums;
    /** Positions of the texts that are collected. */
    final int[] unions;
    /** Position of the column whose texts are counted (-1: none), the texts, and the columns that count them. */
    final int counted;
    final String[] countTexts;
    final String[] countNames;
    /** What a key's text that is null is written as; null: left out. */
    final String absent;

    private transient Map countOf;

    /** Errors: ValidationException for a column that is not there or of a type that can't be it. */
    AdditiveColumns(RowType row, Map options) {
        this.names = (String[]) row.getFieldNames().toArray(new String[0]);
        int[] sums = positions(row, (String) options.get("sum"));
        int[] maxima = positions(row, (String) options.get("max"));
        this.sums = sums.length;
        this.numbers = Arrays.copyOf(sums, sums.length + maxima.length);
        System.arraycopy(maxima, 0, this.numbers, sums.length, maxima.length);
        this.unions = positions(row, (String) options.get("union"));
        int[] counted = positions(row, (String) options.get("count.column"));
        this.counted = counted.length == 0 ? -1 : counted[0];
        String[] counts = parts((String) options.get("count"));
        this.countTexts = new String[counts.length];
        this.countNames = new String[counts.length];
        for (int i = 0; i < counts.length; i++) {
            int colon = counts[i].indexOf(':');
            if (colon < 0 || this.counted < 0) {
                throw new ValidationException("additive-kafka: count is text:column,... and needs count.column");
            }
            this.countTexts[i] = counts[i].substring(0, colon);
            this.countNames[i] = counts[i].substring(colon + 1);
        }
        this.absent = (String) options.get("absent");
        boolean[] additive = new boolean[row.getFieldCount()];
        mark(row, this.numbers, "BIGINT", additive);
        mark(row, this.unions, "VARCHAR", additive);
        mark(row, counted, "VARCHAR", additive);
        int found = 0;
        this.keys = new int[row.getFieldCount() - this.numbers.length - this.unions.length - counted.length];
        this.kinds = new int[this.keys.length];
        for (int i = 0; i < additive.length; i++) {
            if (!additive[i]) {
                String root = row.getTypeAt(i).getTypeRoot().name();
                this.keys[found] = i;
                this.kinds[found] = root.equals("BIGINT") ? LONG : root.equals("INTEGER") ? INT : TEXT;
                if (this.kinds[found] == TEXT) {
                    require(row, i, "VARCHAR");
                }
                found++;
            }
        }
    }

    private static String[] parts(String list) {
        return list == null || list.isEmpty() ? new String[0] : list.split(",");
    }

    private static int[] positions(RowType row, String names) {
        String[] each = parts(names);
        int[] positions = new int[each.length];
        for (int i = 0; i < each.length; i++) {
            positions[i] = row.getFieldIndex(each[i].trim());
            if (positions[i] < 0) {
                throw new ValidationException("additive-kafka: no column " + each[i]);
            }
        }
        return positions;
    }

    private static void mark(RowType row, int[] positions, String root, boolean[] marked) {
        for (int i = 0; i < positions.length; i++) {
            marked[positions[i]] = true;
            require(row, positions[i], root);
        }
    }

    private static void require(RowType row, int position, String root) {
        if (!row.getTypeAt(position).getTypeRoot().name().equals(root)) {
            String name = (String) row.getFieldNames().get(position);
            throw new ValidationException("additive-kafka: column " + name + " must be " + root);
        }
    }

    void open() {
        this.countOf = new HashMap();
        for (int i = 0; i < this.countTexts.length; i++) {
            this.countOf.put(BinaryStringData.fromString(this.countTexts[i]), Integer.valueOf(this.numbers.length + i));
        }
    }

    void add(Sums sums, RowData row) {
        for (int i = 0; i < this.sums; i++) {
            int column = this.numbers[i];
            if (!row.isNullAt(column)) {
                sums.numbers[i] += row.getLong(column);
            }
        }
        for (int i = this.sums; i < this.numbers.length; i++) {
            sums.numbers[i] = Math.max(sums.numbers[i], row.getLong(this.numbers[i]));
        }
        if (this.counted >= 0) {
            Integer count = (Integer) this.countOf.get(row.getString(this.counted));
            if (count != null) {
                sums.numbers[count.intValue()]++;
            }
        }
        for (int i = 0; i < this.unions.length; i++) {
            if (!row.isNullAt(this.unions[i])) {
                sums.collect(i, (BinaryStringData) row.getString(this.unions[i]));
            }
        }
    }

    /** Lengths of texts are two bytes; a text is cut off nowhere, so one that is longer is refused. */
    static void putLength(byte[] bytes, int at, int length) {
        if (length > NO_TEXT) {
            throw new IllegalArgumentException("additive-kafka: a text of " + length + " bytes");
        }
        bytes[at] = (byte) length;
        bytes[at + 1] = (byte) (length >> 8);
    }

    static int length(byte[] bytes, int at) {
        return bytes[at] & 0xFF | (bytes[at + 1] & 0xFF) << 8;
    }
}
