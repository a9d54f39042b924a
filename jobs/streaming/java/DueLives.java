// Which lives of a bucket are due in the same second: their keys, eight bytes each, behind four bytes with their number. An
// array is written in place for as long as it has room: Flink gives out a copy while a snapshot of it is being written.
package headwater;

import java.nio.ByteBuffer;
import java.util.Arrays;

final class DueLives {
    private static final int HEADER_BYTES = 4;
    private static final int KEY_BYTES = 8;

    private DueLives() {}

    /** The array to keep; `keys` may be null. */
    static byte[] add(byte[] keys, long key) {
        int count = count(keys);
        int end = HEADER_BYTES + count * KEY_BYTES;
        byte[] bytes = keys;
        if (bytes == null) {
            bytes = new byte[HEADER_BYTES + KEY_BYTES];
        } else if (end == bytes.length) {
            bytes = Arrays.copyOf(bytes, HEADER_BYTES + 2 * count * KEY_BYTES);
        }
        ByteBuffer.wrap(bytes).putInt(0, count + 1).putLong(end, key);
        return bytes;
    }

    static int count(byte[] keys) {
        return keys == null ? 0 : ByteBuffer.wrap(keys).getInt(0);
    }

    static long key(byte[] keys, int number) {
        return ByteBuffer.wrap(keys).getLong(HEADER_BYTES + number * KEY_BYTES);
    }
}
