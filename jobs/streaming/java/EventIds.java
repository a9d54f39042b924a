// The ids of an event where they lie, without an object for each: some among the packed ids, others among the packed
// dimensions (connectors/flink/java/PackedFields.java).
package headwater;

import org.apache.flink.table.data.RowData;

/** Ids are numbered: first the packed ids, then the packed texts. One that is absent has the size 0. */
final class EventIds {
    final byte[][] bytes;
    final int[] from;
    final int[] size;

    private final int column;

    /** Of rows whose columns from `column` on are the packed ids and dimensions; ids up to `last`. */
    EventIds(int column, int last) {
        this.column = column;
        int count = Math.max(EventContract.IDS, last + 1);
        this.bytes = new byte[count][];
        this.from = new int[count];
        this.size = new int[count];
    }

    /** Goes to an event. */
    void of(RowData row) {
        read(row.getBinary(this.column), 0, EventContract.IDS);
        read(row.getBinary(this.column + 1), EventContract.IDS, this.bytes.length);
    }

    private void read(byte[] packed, int first, int end) {
        PackedReader texts = new PackedReader(packed, 0);
        for (int i = first; i < end; i++) {
            int size = Math.max(texts.overText(), 0);
            this.bytes[i] = packed;
            this.from[i] = texts.position - size;
            this.size[i] = size;
        }
    }
}
