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

    final String[] names;
    /** The key: positions of its BIGINTs; then its texts and its INTs by name, as they are packed. */
    final int[] longs;
    final String[] texts;
    final String[] ints;
    /** Position of the column that has texts and INTs packed already (-1: none), or their positions. */
    final int packed;
    final int[] textColumns;
    final int[] intColumns;
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
        String[] counts = RowAvroFormat.names((String) options.get("count"));
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
        if (this.numbers.length + counts.length > 256) {
            throw new ValidationException("additive-kafka: more than 256 numbers");
        }
        this.absent = (String) options.get("absent");
        boolean[] additive = new boolean[row.getFieldCount()];
        mark(row, this.numbers, "BIGINT", additive);
        mark(row, this.unions, "VARCHAR", additive);
        mark(row, counted, "VARCHAR", additive);
        int[] packed = positions(row, (String) options.get("packed"));
        this.packed = packed.length == 0 ? -1 : packed[0];
        mark(row, packed, "VARBINARY", additive);
        this.longs = others(row, "BIGINT", additive);
        this.textColumns = others(row, "VARCHAR", additive);
        this.intColumns = others(row, "INTEGER", additive);
        for (int i = 0; i < additive.length; i++) {
            if (!additive[i]) {
                throw new ValidationException("additive-kafka: column " + this.names[i] + " can't be of a key");
            }
        }
        boolean unpacked = this.packed < 0;
        if (!unpacked && this.textColumns.length + this.intColumns.length > 0) {
            throw new ValidationException("additive-kafka: a key has a packed column, or texts and INTs of its own");
        }
        this.texts = unpacked ? named(this.textColumns) : RowAvroFormat.names((String) options.get("packed.texts"));
        this.ints = unpacked ? named(this.intColumns) : RowAvroFormat.names((String) options.get("packed.numbers"));
    }

    String[] named(int[] positions) {
        String[] found = new String[positions.length];
        for (int i = 0; i < found.length; i++) {
            found[i] = this.names[positions[i]];
        }
        return found;
    }

    /** Positions of the columns of a type that are not marked; they are then. */
    private static int[] others(RowType row, String root, boolean[] marked) {
        int[] found = new int[marked.length];
        int count = 0;
        for (int i = 0; i < marked.length; i++) {
            if (!marked[i] && row.getTypeAt(i).getTypeRoot().name().equals(root)) {
                marked[i] = true;
                found[count++] = i;
            }
        }
        return Arrays.copyOf(found, count);
    }

    private static int[] positions(RowType row, String names) {
        String[] each = RowAvroFormat.names(names);
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
            if (!row.getTypeAt(positions[i]).getTypeRoot().name().equals(root)) {
                String name = (String) row.getFieldNames().get(positions[i]);
                throw new ValidationException("additive-kafka: column " + name + " must be " + root);
            }
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
            if (!row.isNullAt(column) && row.getLong(column) != 0L) {
                sums.add(i, row.getLong(column));
            }
        }
        for (int i = this.sums; i < this.numbers.length; i++) {
            sums.greater(i, row.getLong(this.numbers[i]));
        }
        if (this.counted >= 0) {
            Integer count = (Integer) this.countOf.get(row.getString(this.counted));
            if (count != null) {
                sums.add(count.intValue(), 1L);
            }
        }
        for (int i = 0; i < this.unions.length; i++) {
            if (!row.isNullAt(this.unions[i])) {
                sums.collect(i, row.getString(this.unions[i]));
            }
        }
    }
}
