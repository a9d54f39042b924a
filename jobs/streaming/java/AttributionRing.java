// What attribution_matches (AttributionMatches.java) remembers under one key, in bytes: conversions, views and clicks in the
// order in which they came.
//
// Layout: four bytes (KeptByBucket.java); then of each row a byte of its kind, four bytes with the second after which it is
// of no use, and the length of what follows. Of a conversion that is the row as Flink has it in binary. Of a touch its
// dimensions and its record id, which may be those of the touch before it (AsBefore), because that most often was of the
// same ad; its times, and its event's id (PackedBytes.java).
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
    private static final int UNTIL_AT = 1;
    private static final int SIZE_AT = UNTIL_AT + 4;
    private static final byte[] NOTHING = new byte[KeptByBucket.HEADER_BYTES];

    private final byte[] bytes;
    private final PackedReader in;
    private final AsBefore dimensions;
    private final AsBefore recordId;
    /** Where the row that was gone to begins; what follows its length; and the next row. */
    private int at;
    private int bodyAt;
    private int next;
    /** Where the fields of a touch that are its own begin. */
    private int ownAt;

    /** `bytes` may be null: nothing is remembered yet. */
    AttributionRing(byte[] bytes) {
        this.bytes = bytes == null ? NOTHING : bytes;
        this.in = new PackedReader(this.bytes, 0);
        this.dimensions = new AsBefore(this.bytes);
        this.recordId = new AsBefore(this.bytes);
        begin();
    }

    private void begin() {
        this.next = KeptByBucket.HEADER_BYTES;
    }

    /** Goes to the next row; false when there is none. Begins at the first one. */
    boolean advance() {
        if (this.next >= this.bytes.length) {
            return false;
        }
        this.at = this.next;
        this.in.position = this.at + SIZE_AT;
        int size = (int) this.in.next();
        this.bodyAt = this.in.position;
        this.next = this.bodyAt + size;
        if (isTouch()) {
            this.dimensions.read(this.in);
            this.recordId.read(this.in);
            this.ownAt = this.in.position;
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
        row.pointTo(MemorySegmentFactory.wrap(this.bytes), this.bodyAt, this.next - this.bodyAt);
        return row;
    }

    /** The touch that was gone to. */
    RowData touch() {
        this.in.position = this.ownAt;
        GenericRowData touch = new GenericRowData(AttributionTouch.COLUMNS);
        touch.setField(0, Integer.valueOf(kind()));
        long timeMs = this.in.next();
        touch.setField(AttributionTouch.EVENT_TIME_MS, Long.valueOf(timeMs));
        touch.setField(AttributionTouch.PUBLISHED_TIME_MS, Long.valueOf(timeMs + this.in.next()));
        touch.setField(AttributionTouch.EVENT_ID, this.in.some());
        byte[] recordId = this.recordId.copy();
        touch.setField(AttributionTouch.RECORD_ID, recordId == null ? null : BinaryStringData.fromBytes(recordId));
        touch.setField(AttributionTouch.DIMENSIONS, this.dimensions.copy());
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
        PackedWriter body = new PackedWriter(256);
        PackedWriter out = new PackedWriter(this.bytes.length + 256);
        out.position = KeptByBucket.HEADER_BYTES;
        long lastMs = untilMs;
        boolean follows = false; // the touch gone to last was written
        for (begin(); advance();) {
            boolean dropped = !isOfUse(nowMs) || (kind() == kind && tooMany-- > 0);
            if (dropped) {
                follows &= !isTouch();
                continue;
            }
            int untilS = Packed.getInt(this.bytes, this.at + UNTIL_AT);
            if (isTouch() && !follows && (this.dimensions.asBefore || this.recordId.asBefore)) {
                body.position = 0;
                this.dimensions.writeTo(body);
                this.recordId.writeTo(body);
                body.put(this.bytes, this.ownAt, this.next - this.ownAt);
                row(out, kind(), untilS, body);
            } else {
                out.put(this.bytes, this.at, this.next - this.at);
            }
            follows |= isTouch();
            lastMs = Math.max(lastMs, Seconds.ms(untilS));
        }
        body.position = 0;
        if (kind == AttributionTouch.CONVERSION) {
            conversion(body, (BinarySection) added); // a nested row is laid out as a row of its own
        } else {
            touch(body, AttributionTouch.of(added), follows);
        }
        row(out, kind, Seconds.of(untilMs), body);
        Packed.putInt(out.bytes, 0, Seconds.of(lastMs));
        return Arrays.copyOf(out.bytes, out.position);
    }

    private boolean isOfUse(long nowMs) {
        return Seconds.ms(Packed.getInt(this.bytes, this.at + UNTIL_AT)) > nowMs;
    }

    private static void row(PackedWriter out, int kind, int untilS, PackedWriter body) {
        out.room(SIZE_AT);
        out.bytes[out.position] = (byte) kind;
        Packed.putInt(out.bytes, out.position + UNTIL_AT, untilS);
        out.position += SIZE_AT;
        out.put((long) body.position);
        out.put(body.bytes, 0, body.position);
    }

    private static void conversion(PackedWriter out, BinarySection row) {
        int size = row.getSizeInBytes();
        out.room(size);
        BinarySegmentUtils.copyToBytes(row.getSegments(), row.getOffset(), out.bytes, out.position, size);
        out.position += size;
    }

    /** `follows`: the touch gone to last is the one written before. */
    private void touch(PackedWriter out, RowData touch, boolean follows) {
        boolean packed = !touch.isNullAt(AttributionTouch.DIMENSIONS);
        this.dimensions.write(out, packed ? touch.getBinary(AttributionTouch.DIMENSIONS) : null, follows);
        boolean named = !touch.isNullAt(AttributionTouch.RECORD_ID);
        this.recordId.write(out, named ? touch.getString(AttributionTouch.RECORD_ID).toBytes() : null, follows);
        long timeMs = touch.getLong(AttributionTouch.EVENT_TIME_MS);
        out.put(timeMs);
        out.put(touch.getLong(AttributionTouch.PUBLISHED_TIME_MS) - timeMs);
        out.putSome(touch.getBinary(AttributionTouch.EVENT_ID));
    }
}

/** Bytes of a touch, or null, which may be those of the touch before it: 0 for that, or length + 2 (1: null), and they. */
final class AsBefore {
    private static final int OWN = 2;

    private final byte[] bytes;
    private int at;
    private int size = -1;
    /** Of the touch that was read last. */
    boolean asBefore;

    AsBefore(byte[] bytes) {
        this.bytes = bytes;
    }

    void read(PackedReader in) {
        int code = (int) in.next();
        this.asBefore = code == 0;
        if (!this.asBefore) {
            this.size = code - OWN;
            this.at = in.position;
            in.position += Math.max(this.size, 0);
        }
    }

    byte[] copy() {
        return this.size < 0 ? null : Arrays.copyOfRange(this.bytes, this.at, this.at + this.size);
    }

    /** What was read last, whosever it is. */
    void writeTo(PackedWriter out) {
        own(out, this.bytes, this.at, this.size);
    }

    /** `follows`: what was read last is of the touch written before. */
    void write(PackedWriter out, byte[] value, boolean follows) {
        int length = value == null ? -1 : value.length;
        int end = this.at + this.size;
        if (follows
                && length == this.size
                && (length < 0 || Arrays.equals(value, 0, length, this.bytes, this.at, end))) {
            out.put(0L);
            return;
        }
        own(out, value, 0, length);
    }

    private static void own(PackedWriter out, byte[] bytes, int at, int size) {
        out.put((long) size + OWN);
        out.put(bytes, at, size);
    }
}
