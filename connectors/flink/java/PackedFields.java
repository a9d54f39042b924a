// Short fields of a record as one value of bytes: what RowAvroFormat gives as metadata `packed`, and the form of a key in
// AddingOperator.
//
// Layout: four bytes (little endian) per field, the texts' first, then the numbers': the length of a text, -1 for null, or
// the number; then the texts, one after the other. Equal fields are equal bytes.
//
// Why. Flink makes five objects of a text in a row, and each query step copies it. The dimensions of an event are sixteen
// columns that nobody looks at between the topic and the sums: as one value they are copied once.
package headwater;

import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.table.data.binary.BinaryStringData;

final class PackedFields {
    static final int SLOT_BYTES = 4;
    static final int NULL = -1;

    private PackedFields() {}

    static void put(byte[] bytes, int at, int number) {
        bytes[at] = (byte) number;
        bytes[at + 1] = (byte) (number >> 8);
        bytes[at + 2] = (byte) (number >> 16);
        bytes[at + 3] = (byte) (number >> 24);
    }

    static int get(byte[] bytes, int at) {
        return bytes[at] & 0xFF | (bytes[at + 1] & 0xFF) << 8 | (bytes[at + 2] & 0xFF) << 16 | bytes[at + 3] << 24;
    }

    /** Field `which` of those packed at `from`: a text's length, or the number. */
    static int slot(byte[] bytes, int from, int which) {
        return get(bytes, from + which * SLOT_BYTES);
    }

    /** The text `which` of `fields` fields, a view of the bytes, or null. */
    static BinaryStringData text(byte[] packed, int fields, int which) {
        int length = slot(packed, 0, which);
        if (length == NULL) {
            return null;
        }
        int at = fields * SLOT_BYTES;
        for (int i = 0; i < which; i++) {
            at += Math.max(slot(packed, 0, i), 0);
        }
        return new BinaryStringData(new MemorySegment[] {MemorySegmentFactory.wrap(packed)}, at, length);
    }

    /** Of each field the greater: of texts by their bytes, null least. Both have `texts` texts, then `numbers` numbers. */
    static byte[] greatest(byte[] one, byte[] other, int texts, int numbers) {
        int fields = texts + numbers;
        byte[][] from = new byte[texts][];
        int[] starts = new int[texts];
        int oneAt = fields * SLOT_BYTES;
        int otherAt = oneAt;
        int size = oneAt;
        for (int i = 0; i < texts; i++) {
            int oneSize = slot(one, 0, i);
            int otherSize = slot(other, 0, i);
            boolean first = otherSize == NULL
                    || oneSize != NULL && compare(one, oneAt, oneSize, other, otherAt, otherSize) >= 0;
            from[i] = first ? one : other;
            starts[i] = first ? oneAt : otherAt;
            size += Math.max(first ? oneSize : otherSize, 0);
            oneAt += Math.max(oneSize, 0);
            otherAt += Math.max(otherSize, 0);
        }
        byte[] packed = new byte[size];
        int at = fields * SLOT_BYTES;
        for (int i = 0; i < texts; i++) {
            int length = slot(from[i], 0, i);
            put(packed, i * SLOT_BYTES, length);
            if (length > 0) {
                System.arraycopy(from[i], starts[i], packed, at, length);
                at += length;
            }
        }
        for (int i = texts; i < fields; i++) {
            put(packed, i * SLOT_BYTES, Math.max(slot(one, 0, i), slot(other, 0, i)));
        }
        return packed;
    }

    private static int compare(byte[] one, int oneAt, int oneSize, byte[] other, int otherAt, int otherSize) {
        for (int i = 0; i < Math.min(oneSize, otherSize); i++) {
            int difference = (one[oneAt + i] & 0xFF) - (other[otherAt + i] & 0xFF);
            if (difference != 0) {
                return difference;
            }
        }
        return oneSize - otherSize;
    }
}
