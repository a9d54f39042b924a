// Little-endian numbers in bytes, and the layouts that the counters' functions share.
package headwater;

final class Packed {
    static final int UPDATE_BYTES = 33;
    static final String SEPARATOR = "\u001f";

    private Packed() {}

    static long getLong(byte[] from, int at) {
        long value = 0L;
        for (int i = 7; i >= 0; i--) {
            value = value << 8 | (from[at + i] & 0xffL);
        }
        return value;
    }

    static void putLong(byte[] to, int at, long value) {
        for (int i = 0; i < 8; i++) {
            to[at + i] = (byte) (value >> 8 * i);
        }
    }
}
