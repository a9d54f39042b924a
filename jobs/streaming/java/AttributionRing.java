// What attribution_matches (AttributionMatches.java) remembers under one key, in bytes: conversions, views and clicks in the
// order in which they came.
//
// Layout: four bytes (KeptByBucket.java); then of each row a byte of its kind, four bytes with the second after which it is
// of no use, four with its length, and the row as Flink has it in binary.
package headwater;

import java.util.Arrays;
import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.data.binary.BinarySection;
import org.apache.flink.table.data.binary.BinarySegmentUtils;

final class AttributionRing {
    private static final int ROW_HEADER_BYTES = 1 + 4 + 4;
    private static final byte[] NOTHING = new byte[KeptByBucket.HEADER_BYTES];

    private final byte[] bytes;
    private final MemorySegment segment;
    private int at = KeptByBucket.HEADER_BYTES;
    private int next = KeptByBucket.HEADER_BYTES;

    /** `bytes` may be null: nothing is remembered yet. */
    AttributionRing(byte[] bytes) {
        this.bytes = bytes == null ? NOTHING : bytes;
        this.segment = MemorySegmentFactory.wrap(this.bytes);
    }

    /** Goes to the next row; false when there is none. Begins at the first one. */
    boolean advance() {
        if (this.next >= this.bytes.length) {
            return false;
        }
        this.at = this.next;
        this.next = this.at + ROW_HEADER_BYTES + PackedFields.get(this.bytes, this.at + 5);
        return true;
    }

    /** Kind of the row that was gone to. */
    int kind() {
        return this.bytes[this.at];
    }

    /** The row that was gone to, a view of the bytes. */
    BinaryRowData row() {
        BinaryRowData row = new BinaryRowData(AttributionTouch.COLUMNS);
        int from = this.at + ROW_HEADER_BYTES;
        row.pointTo(this.segment, from, this.next - from);
        return row;
    }

    /**
     * The bytes with one more row, which is of use until `untilMs`; without those whose use is over at `nowMs`, and of its
     * kind without the oldest when there are `most` already.
     */
    byte[] with(RowData added, int kind, long untilMs, long nowMs, int most) {
        BinarySection row = (BinarySection) added; // a nested row is laid out as a row of its own
        int ofKind = 0;
        this.next = KeptByBucket.HEADER_BYTES;
        while (advance()) {
            ofKind += kind() == kind && isOfUse(nowMs) ? 1 : 0;
        }
        int tooMany = ofKind - most + 1;
        byte[] more = new byte[this.bytes.length + ROW_HEADER_BYTES + row.getSizeInBytes()];
        int end = KeptByBucket.HEADER_BYTES;
        long lastMs = untilMs;
        this.next = KeptByBucket.HEADER_BYTES;
        while (advance()) {
            if (!isOfUse(nowMs) || (kind() == kind && tooMany-- > 0)) {
                continue;
            }
            System.arraycopy(this.bytes, this.at, more, end, this.next - this.at);
            end += this.next - this.at;
            lastMs = Math.max(lastMs, Seconds.ms(PackedFields.get(this.bytes, this.at + 1)));
        }
        more[end] = (byte) kind;
        PackedFields.put(more, end + 1, Seconds.of(untilMs));
        PackedFields.put(more, end + 5, row.getSizeInBytes());
        BinarySegmentUtils.copyToBytes(
                row.getSegments(), row.getOffset(), more, end + ROW_HEADER_BYTES, row.getSizeInBytes());
        end += ROW_HEADER_BYTES + row.getSizeInBytes();
        PackedFields.put(more, 0, Seconds.of(lastMs));
        return end == more.length ? more : Arrays.copyOf(more, end);
    }

    private boolean isOfUse(long nowMs) {
        return Seconds.ms(PackedFields.get(this.bytes, this.at + 1)) > nowMs;
    }
}
