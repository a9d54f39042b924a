// What campaign_spend (CampaignSpend.java) knows of a campaign's ads whose win and impression belong together: some of them,
// by their hashes, in bytes.
//
// Layout, one ad behind the other: 64 bits of its record id's hash, its state (u8), when that was heard (i64); of an ad that
// was won and not shown yet the minute and the cost of its win (i64 each) besides.
//
// Why not a key of a map for each ad: a campaign has as many as are shown in a quarter of an hour, and a map on the heap is
// copied entry by entry at its first change after a checkpoint.
package headwater;

import java.util.Arrays;

final class OpenAds {
    static final int SHOWN = 1;
    static final int WON = 2;
    static final int CONFIRMED = 3;

    private static final int AD_BYTES = 8 + 1 + 8;
    private static final int WIN_BYTES = AD_BYTES + 8 + 8;
    private static final byte[] NONE = new byte[0];

    byte[] bytes;
    private int at;

    /** `bytes` may be null: nothing is known yet. */
    OpenAds(byte[] bytes) {
        this.bytes = bytes == null ? NONE : bytes;
    }

    /** In which of 1,024 parts of a campaign's ads one is. */
    static Long part(long hash) {
        return Long.valueOf(hash >>> 54);
    }

    /** Goes to an ad; false when it is not known. */
    boolean find(long hash) {
        for (this.at = 0; this.at < this.bytes.length; this.at += size(this.at)) {
            if (Packed.getLong(this.bytes, this.at) == hash) {
                return true;
            }
        }
        return false;
    }

    /** Of the ad that was gone to. */
    int state() {
        return this.bytes[this.at + 8];
    }

    /** When that was heard, ms. */
    long heardMs() {
        return Packed.getLong(this.bytes, this.at + 9);
    }

    /** Minute of the win, ms. Of a won ad only. */
    long minuteMs() {
        return Packed.getLong(this.bytes, this.at + AD_BYTES);
    }

    long costMicros() {
        return Packed.getLong(this.bytes, this.at + AD_BYTES + 8);
    }

    void put(long hash, int state, long heardMs) {
        add(hash, state, heardMs, AD_BYTES);
    }

    void putWin(long hash, long heardMs, long minuteMs, long costMicros) {
        add(hash, WON, heardMs, WIN_BYTES);
        Packed.putLong(this.bytes, this.bytes.length - 16, minuteMs);
        Packed.putLong(this.bytes, this.bytes.length - 8, costMicros);
    }

    /** Leaves out what was not heard after a moment. True when that is anything. */
    boolean sweep(long overMs) {
        int end = 0;
        byte[] left = new byte[this.bytes.length];
        for (int from = 0; from < this.bytes.length; from += size(from)) {
            if (Packed.getLong(this.bytes, from + 9) > overMs) {
                System.arraycopy(this.bytes, from, left, end, size(from));
                end += size(from);
            }
        }
        boolean less = end < this.bytes.length;
        this.bytes = less ? Arrays.copyOf(left, end) : this.bytes;
        return less;
    }

    /** Writes an ad at the end, in place of what was known of it. */
    private void add(long hash, int state, long heardMs, int size) {
        int before = find(hash) ? size(this.at) : 0;
        byte[] more = new byte[this.bytes.length - before + size];
        int rest = this.bytes.length - this.at - before;
        System.arraycopy(this.bytes, 0, more, 0, this.at);
        System.arraycopy(this.bytes, this.at + before, more, this.at, rest);
        this.at += rest;
        Packed.putLong(more, this.at, hash);
        more[this.at + 8] = (byte) state;
        Packed.putLong(more, this.at + 9, heardMs);
        this.bytes = more;
    }

    private int size(int at) {
        return this.bytes[at + 8] == WON ? WIN_BYTES : AD_BYTES;
    }
}
