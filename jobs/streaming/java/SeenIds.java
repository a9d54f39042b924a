// What first_copies (FirstCopies.java) remembers of one bucket: an open-addressing hash table in an array of bytes.
//
// Layout: a byte (of this layout), four bytes (how many places are taken); then the places, twelve bytes each: 64 bits of an
// event id's hash, and the second in which it is forgotten, 0 for a place that is free. An array is written in place for
// as long as it has room: Flink gives out a copy while a snapshot of it is being written.
package headwater;

import java.nio.ByteBuffer;

final class SeenIds {
    private static final byte LAYOUT = 1;
    private static final int HEADER_BYTES = 1 + 4;
    private static final int PLACE_BYTES = 8 + 4;
    private static final int FEWEST_PLACES = 8;

    private SeenIds() {}

    /**
     * Notes an id until `forgetMs`; `nowMs` is the watermark. Gives the array to keep, or null when the id was noted before
     * and is not forgotten yet. `kept` may be null.
     */
    static byte[] add(byte[] kept, long id, long forgetMs, long nowMs) {
        byte[] bytes = kept == null ? empty(FEWEST_PLACES) : kept;
        if (bytes[0] != LAYOUT) {
            throw new IllegalStateException("state of first_copies has layout " + bytes[0] + ", this version knows " + LAYOUT);
        }
        ByteBuffer table = ByteBuffer.wrap(bytes);
        int at = find(table, id);
        int forgetS = table.getInt(at + 8);
        if (forgetS != 0) {
            if (isAhead(forgetS, nowMs)) {
                return null;
            }
            table.putInt(at + 8, Seconds.of(forgetMs));
            return bytes;
        }
        int taken = table.getInt(1) + 1;
        if (taken * 5 > places(bytes.length) * 4) {
            bytes = remembered(table, nowMs);
            table = ByteBuffer.wrap(bytes);
            at = find(table, id);
            taken = table.getInt(1) + 1;
        }
        table.putLong(at, id);
        table.putInt(at + 8, Seconds.of(forgetMs));
        table.putInt(1, taken);
        return bytes;
    }

    /** The place that an id has, or the free one that it would get. */
    private static int find(ByteBuffer table, long id) {
        int end = table.capacity();
        // the lower half: the upper one has chosen the bucket
        int at = HEADER_BYTES + (int) ((id & 0xffffffffL) * places(end) >>> 32) * PLACE_BYTES;
        while (table.getInt(at + 8) != 0 && table.getLong(at) != id) {
            at += PLACE_BYTES;
            if (at == end) {
                at = HEADER_BYTES;
            }
        }
        return at;
    }

    /** A table of what is not forgotten yet, with room for more. */
    private static byte[] remembered(ByteBuffer full, long nowMs) {
        int left = 0;
        for (int at = HEADER_BYTES; at < full.capacity(); at += PLACE_BYTES) {
            left += isAhead(full.getInt(at + 8), nowMs) ? 1 : 0;
        }
        byte[] bytes = empty(FEWEST_PLACES + left * 8 / 5);
        ByteBuffer table = ByteBuffer.wrap(bytes);
        table.putInt(1, left);
        for (int from = HEADER_BYTES; from < full.capacity(); from += PLACE_BYTES) {
            int forgetS = full.getInt(from + 8);
            if (isAhead(forgetS, nowMs)) {
                long id = full.getLong(from);
                int at = find(table, id);
                table.putLong(at, id);
                table.putInt(at + 8, forgetS);
            }
        }
        return bytes;
    }

    private static byte[] empty(int places) {
        byte[] bytes = new byte[HEADER_BYTES + places * PLACE_BYTES];
        bytes[0] = LAYOUT;
        return bytes;
    }

    private static int places(int bytes) {
        return (bytes - HEADER_BYTES) / PLACE_BYTES;
    }

    private static boolean isAhead(int forgetS, long nowMs) {
        return forgetS != 0 && Seconds.ms(forgetS) > nowMs;
    }
}
