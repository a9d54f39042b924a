// What attribution_matches (AttributionMatches.java) remembers under one key, in bytes: conversions, views and clicks in the
// order in which they came.
//
// Layout: four bytes (KeptByBucket.java); then of each row a byte of its kind, four bytes with the second after which it is
// of no use, four with the length of what follows. Of a conversion that is the row as Flink has it in binary. Of a touch
// four bytes with the length of its dimensions (0: none, -1: those of the touch before it, which most often was of the
// same ad; so each ad's are kept once), the dimensions, and its other fields (PackedBytes.java).
package headwater;

import java.util.Arrays;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.data.binary.BinarySection;
import org.apache.flink.table.data.binary.BinarySegmentUtils;
import org.apache.flink.table.data.binary.BinaryStringData;

final class AttributionRing {
    private static final int ROW_HEADER_BYTES = 1 + 4 + 4;
    private static final byte[] NOTHING = new byte[KeptByBucket.HEADER_BYTES];
    private static final int AS_BEFORE = -1;

    private final byte[] bytes;
    private int at;
    private int next;
    /** Where the dimensions of the last touch lie. */
    private int dimensionsAt;
    private int dimensionsSize;

    /** `bytes` may be null: nothing is remembered yet. */
    AttributionRing(byte[] bytes) {
        this.bytes = bytes == null ? NOTHING : bytes;
        begin();
    }

    private void begin() {
        this.next = KeptByBucket.HEADER_BYTES;
        this.dimensionsSize = 0;
    }

    /** Goes to the next row; false when there is none. Begins at the first one. */
    boolean advance() {
        if (this.next >= this.bytes.length) {
            return false;
        }
        this.at = this.next;
        this.next = this.at + ROW_HEADER_BYTES + PackedFields.get(this.bytes, this.at + 5);
        if (isTouch() && sizeOfDimensions() != AS_BEFORE) {
            this.dimensionsAt = this.at + ROW_HEADER_BYTES + 4;
            this.dimensionsSize = sizeOfDimensions();
        }
        return true;
    }

    /** Kind of the row that was gone to. */
    int kind() {
        return this.bytes[this.at];
    }

    boolean isTouch() {
        return kind() != AttributionTouch.CONVERSION;
    }

    /** The conversion that was gone to, a view of the bytes. */
    RowData conversion() {
        BinaryRowData row = new BinaryRowData(AttributionTouch.MOMENT_COLUMNS);
        int from = this.at + ROW_HEADER_BYTES;
        row.pointTo(MemorySegmentFactory.wrap(this.bytes), from, this.next - from);
        return row;
    }

    /** The touch that was gone to. */
    RowData touch() {
        PackedReader in = new PackedReader(this.bytes, fieldsAt());
        GenericRowData touch = new GenericRowData(AttributionTouch.COLUMNS);
        touch.setField(0, Integer.valueOf(kind()));
        long timeMs = in.next();
        touch.setField(AttributionTouch.EVENT_TIME_MS, Long.valueOf(timeMs));
        touch.setField(AttributionTouch.PUBLISHED_TIME_MS, Long.valueOf(timeMs + in.next()));
        touch.setField(AttributionTouch.EVENT_ID, in.some());
        touch.setField(AttributionTouch.RECORD_ID, in.text());
        int end = this.dimensionsAt + this.dimensionsSize;
        byte[] dimensions =
                this.dimensionsSize == 0 ? null : Arrays.copyOfRange(this.bytes, this.dimensionsAt, end);
        touch.setField(AttributionTouch.DIMENSIONS, dimensions);
        return touch;
    }

    /**
     * The bytes with one more moment, which is of use until `untilMs`; without those whose use is over at `nowMs`, and of
     * its kind without the oldest when there are `most` already.
     */
    byte[] with(RowData added, long untilMs, long nowMs, int most) {
        int kind = AttributionTouch.kind(added);
        int ofKind = 0;
        for (begin(); advance();) {
            ofKind += kind() == kind && isOfUse(nowMs) ? 1 : 0;
        }
        int tooMany = ofKind - most + 1;
        BinarySection row = (BinarySection) added; // a nested row is laid out as a row of its own
        PackedWriter out = new PackedWriter(this.bytes.length + ROW_HEADER_BYTES + row.getSizeInBytes());
        out.position = KeptByBucket.HEADER_BYTES;
        long lastMs = untilMs;
        boolean follows = false; // the dimensions gone to are those of the last touch written
        for (begin(); advance();) {
            boolean own = isTouch() && sizeOfDimensions() != AS_BEFORE;
            follows &= !own;
            if (!isOfUse(nowMs) || (kind() == kind && tooMany-- > 0)) {
                continue;
            }
            if (isTouch() && !own && !follows) { // the one that had them is gone
                int fieldsAt = fieldsAt();
                int from = header(out, kind(), PackedFields.get(this.bytes, this.at + 1));
                dimensions(out, this.bytes, this.dimensionsAt, this.dimensionsSize);
                out.put(this.bytes, fieldsAt, this.next - fieldsAt);
                PackedFields.put(out.bytes, from - 4, out.position - from);
            } else {
                out.put(this.bytes, this.at, this.next - this.at);
            }
            follows |= isTouch();
            lastMs = Math.max(lastMs, Seconds.ms(PackedFields.get(this.bytes, this.at + 1)));
        }
        int from = header(out, kind, Seconds.of(untilMs));
        if (kind == AttributionTouch.CONVERSION) {
            conversion(out, row);
        } else {
            touch(out, AttributionTouch.of(added), follows);
        }
        PackedFields.put(out.bytes, from - 4, out.position - from);
        PackedFields.put(out.bytes, 0, Seconds.of(lastMs));
        return out.position == out.bytes.length ? out.bytes : Arrays.copyOf(out.bytes, out.position);
    }

    private int sizeOfDimensions() {
        return PackedFields.get(this.bytes, this.at + ROW_HEADER_BYTES);
    }

    private int fieldsAt() {
        return this.at + ROW_HEADER_BYTES + 4 + Math.max(sizeOfDimensions(), 0);
    }

    private boolean isOfUse(long nowMs) {
        return Seconds.ms(PackedFields.get(this.bytes, this.at + 1)) > nowMs;
    }

    /** Where what follows the row's length begins. The length is filled in later. */
    private static int header(PackedWriter out, int kind, int untilS) {
        out.room(ROW_HEADER_BYTES);
        out.bytes[out.position] = (byte) kind;
        PackedFields.put(out.bytes, out.position + 1, untilS);
        out.position += ROW_HEADER_BYTES;
        return out.position;
    }

    private static void dimensions(PackedWriter out, byte[] from, int at, int size) {
        out.room(4);
        PackedFields.put(out.bytes, out.position, size);
        out.position += 4;
        out.put(from, at, size);
    }

    private static void conversion(PackedWriter out, BinarySection row) {
        int size = row.getSizeInBytes();
        out.room(size);
        BinarySegmentUtils.copyToBytes(row.getSegments(), row.getOffset(), out.bytes, out.position, size);
        out.position += size;
    }

    /** `follows`: the dimensions that were gone to last are those of the touch written before. */
    private void touch(PackedWriter out, RowData touch, boolean follows) {
        byte[] dimensions = touch.isNullAt(AttributionTouch.DIMENSIONS)
                ? new byte[0]
                : touch.getBinary(AttributionTouch.DIMENSIONS);
        int end = this.dimensionsAt + this.dimensionsSize;
        boolean same = follows
                && Arrays.equals(dimensions, 0, dimensions.length, this.bytes, this.dimensionsAt, end);
        dimensions(out, dimensions, 0, same ? AS_BEFORE : dimensions.length);
        long timeMs = touch.getLong(AttributionTouch.EVENT_TIME_MS);
        out.put(timeMs);
        out.put(touch.getLong(AttributionTouch.PUBLISHED_TIME_MS) - timeMs);
        byte[] id = touch.getBinary(AttributionTouch.EVENT_ID);
        out.put((long) id.length);
        out.put(id, 0, id.length);
        out.put((BinaryStringData) touch.getString(AttributionTouch.RECORD_ID));
    }
}
