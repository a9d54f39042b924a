// How fields are packed into bytes (PackedFields.java, the keys of AddingOperator.java, the state of functions), and read
// again: zig-zag variable-length integers as in Avro, texts by length + 1 (0: null).
package headwater;

import java.util.Arrays;
import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;

/** Reads what PackedWriter wrote. */
final class PackedReader {
    final byte[] bytes;
    int position;
    private MemorySegment[] segments;

    PackedReader(byte[] bytes, int position) {
        this.bytes = bytes;
        this.position = position;
    }

    long next() {
        byte only = this.bytes[this.position];
        if (only >= 0) {
            this.position++;
            return (only >>> 1) ^ -(only & 1);
        }
        long bits = 0;
        int shift = 0;
        byte part;
        do {
            part = this.bytes[this.position++];
            bits |= (long) (part & 0x7F) << shift;
            shift += 7;
        } while (part < 0);
        return (bits >>> 1) ^ -(bits & 1);
    }

    byte[] some() {
        int size = (int) next();
        byte[] found = Arrays.copyOfRange(this.bytes, this.position, this.position + size);
        this.position += size;
        return found;
    }

    /** Goes over a text, whose bytes then end at `position`. Gives their number, -1 for null. */
    int overText() {
        int size = (int) next() - 1;
        this.position += Math.max(size, 0);
        return size;
    }

    /** A view of the bytes, or null. */
    BinaryStringData text() {
        int size = overText();
        if (size < 0) {
            return null;
        }
        if (this.segments == null) {
            this.segments = new MemorySegment[] {MemorySegmentFactory.wrap(this.bytes)};
        }
        return new BinaryStringData(this.segments, this.position - size, size);
    }
}

final class PackedWriter {
    byte[] bytes;
    int position;

    PackedWriter(int size) {
        this.bytes = new byte[size];
    }

    void put(long value) {
        room(10);
        long bits = (value << 1) ^ (value >> 63);
        while ((bits & ~0x7FL) != 0) {
            this.bytes[this.position++] = (byte) (bits & 0x7F | 0x80);
            bits >>>= 7;
        }
        this.bytes[this.position++] = (byte) bits;
    }

    void put(boolean flag) {
        room(1);
        this.bytes[this.position++] = (byte) (flag ? 1 : 0);
    }

    void put(byte[] some, int from, int size) {
        if (size > 0) {
            room(size);
            System.arraycopy(some, from, this.bytes, this.position, size);
            this.position += size;
        }
    }

    /** Bytes, their number first: what `some` reads. */
    void putSome(byte[] some) {
        put((long) some.length);
        put(some, 0, some.length);
    }

    void put(StringData text) {
        if (text == null) {
            put(0L);
            return;
        }
        BinaryStringData binary = (BinaryStringData) text;
        binary.ensureMaterialized();
        int size = binary.getSizeInBytes();
        put(size + 1L);
        room(size);
        if (binary.getSegments().length == 1) {
            binary.getSegments()[0].get(binary.getOffset(), this.bytes, this.position, size);
        } else {
            System.arraycopy(binary.toBytes(), 0, this.bytes, this.position, size);
        }
        this.position += size;
    }

    /** Makes sure that so many more bytes can be written at `position`. */
    void room(int size) {
        if (this.position + size > this.bytes.length) {
            this.bytes = Arrays.copyOf(this.bytes, (this.position + size) * 2);
        }
    }
}
