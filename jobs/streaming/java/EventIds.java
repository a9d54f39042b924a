// The ids of an event where they lie, without an object for each: some in columns of their own, others among the packed
// dimensions (connectors/flink/java/PackedFields.java).
package headwater;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryStringData;

/** Ids are numbered: first the columns, then the packed texts. One that is absent has the size 0. */
final class EventIds {
    final byte[][] bytes;
    final int[] from;
    final int[] size;

    private final int first;
    private final int columns;

    /** Of rows whose columns from `first` on are `columns` ids, and then the packed dimensions; ids up to `last`. */
    EventIds(int first, int columns, int last) {
        this.first = first;
        this.columns = columns;
        int count = Math.max(columns, last + 1);
        this.bytes = new byte[count][];
        this.from = new int[count];
        this.size = new int[count];
    }

    /** Goes to an event. */
    void of(RowData row) {
        for (int i = 0; i < this.columns; i++) {
            this.size[i] = 0;
            if (!row.isNullAt(this.first + i)) {
                column(i, (BinaryStringData) row.getString(this.first + i));
            }
        }
        int packed = this.first + this.columns;
        PackedReader texts = new PackedReader(row.getBinary(packed), 0);
        for (int i = this.columns; i < this.bytes.length; i++) {
            int size = Math.max(texts.overText(), 0);
            this.bytes[i] = texts.bytes;
            this.from[i] = texts.position - size;
            this.size[i] = size;
        }
    }

    private void column(int id, BinaryStringData text) {
        text.ensureMaterialized();
        MemorySegment segment = text.getSegments()[0];
        this.size[id] = text.getSizeInBytes();
        if (text.getSegments().length == 1 && !segment.isOffHeap()) {
            this.bytes[id] = segment.getArray();
            this.from[id] = text.getOffset();
        } else {
            this.bytes[id] = text.toBytes();
            this.from[id] = 0;
        }
    }
}
