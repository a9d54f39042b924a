// Little-endian numbers in bytes.
package headwater;

import java.nio.ByteOrder;
import org.apache.flink.core.memory.MemoryUtils;

final class Packed {
    /** Between the parts of a key. */
    static final byte SEPARATOR = 0x1f;

    private static final boolean AS_IT_LIES = ByteOrder.nativeOrder() == ByteOrder.LITTLE_ENDIAN;
    private static final long FIRST = MemoryUtils.UNSAFE.arrayBaseOffset(byte[].class);

    private Packed() {}

    // A buffer around the bytes for each number was a tenth of what counters cost.

    static long getLong(byte[] from, int at) {
        check(from, at);
        long value = MemoryUtils.UNSAFE.getLong(from, FIRST + at);
        return AS_IT_LIES ? value : Long.reverseBytes(value);
    }

    static void putLong(byte[] to, int at, long value) {
        check(to, at);
        MemoryUtils.UNSAFE.putLong(to, FIRST + at, AS_IT_LIES ? value : Long.reverseBytes(value));
    }

    static int getInt(byte[] from, int at) {
        return from[at] & 0xFF | (from[at + 1] & 0xFF) << 8 | (from[at + 2] & 0xFF) << 16 | from[at + 3] << 24;
    }

    static void putInt(byte[] to, int at, int number) {
        to[at] = (byte) number;
        to[at + 1] = (byte) (number >> 8);
        to[at + 2] = (byte) (number >> 16);
        to[at + 3] = (byte) (number >> 24);
    }

    private static void check(byte[] bytes, int at) {
        if (at < 0 || at > bytes.length - 8) {
            throw new IndexOutOfBoundsException(at + " of " + bytes.length);
        }
    }
}
