// Little-endian numbers in bytes, and what the counters' functions have in common.
package headwater;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;

final class Packed {
    /** Of the updates of one bucket (CounterUpdates.java): its length, how long it is of use after its end, their number. */
    static final int GROUP_BYTES = 8 + 8 + 1;
    /** Of an update: code, delta; and between them the hash of the scope where the entity's counters have scopes. */
    static final int UPDATE_BYTES = 1 + 8;
    static final int SCOPED_UPDATE_BYTES = UPDATE_BYTES + 8;
    /** Between the parts of a key. */
    static final byte SEPARATOR = 0x1f;

    private Packed() {}

    static long getLong(byte[] from, int at) {
        return ByteBuffer.wrap(from).order(ByteOrder.LITTLE_ENDIAN).getLong(at);
    }

    static void putLong(byte[] to, int at, long value) {
        ByteBuffer.wrap(to).order(ByteOrder.LITTLE_ENDIAN).putLong(at, value);
    }
}
