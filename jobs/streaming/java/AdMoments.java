// What `contradictions` (Contradictions.java) remembers of an ad: its impression, clicks and quartiles, in bytes.
//
// Layout: four bytes (KeptByBucket.java); then of each moment (PackedBytes.java) twice the number of its type, and one more
// when its network is listed; event time; publish time less that; cost; length of the creative in seconds; event id.
package headwater;

import java.util.Arrays;

final class AdMoments {
    private final PackedReader in;

    /** `bytes` may be null: nothing is remembered yet. */
    AdMoments(byte[] bytes) {
        this.in = new PackedReader(bytes == null ? new byte[KeptByBucket.HEADER_BYTES] : bytes, KeptByBucket.HEADER_BYTES);
    }

    /** The next moment; null when there is none. Begins with the first one. */
    AdMoment next() {
        if (this.in.position == this.in.bytes.length) {
            return null;
        }
        int type = (int) this.in.next();
        long timeMs = this.in.next();
        long publishedMs = timeMs + this.in.next();
        long costMicros = this.in.next();
        int lengthS = (int) this.in.next();
        return new AdMoment(type >> 1, this.in.some(), timeMs, publishedMs, costMicros, lengthS, (type & 1) == 1);
    }

    /** The bytes with one more moment, to be kept until `keptMs` after it was published. */
    byte[] with(AdMoment moment, long keptMs) {
        PackedWriter out = new PackedWriter(this.in.bytes.length + 64);
        out.put(this.in.bytes, 0, this.in.bytes.length);
        out.put((long) moment.number << 1 | (moment.listed ? 1L : 0L));
        out.put(moment.timeMs);
        out.put(moment.publishedMs - moment.timeMs);
        out.put(moment.costMicros);
        out.put((long) moment.lengthS);
        out.putSome(moment.eventId);
        byte[] more = Arrays.copyOf(out.bytes, out.position);
        KeptByBucket.keepUntil(more, 0, moment.publishedMs + keptMs);
        return more;
    }
}

/** An impression, a click or a quartile. */
final class AdMoment {
    private static final int CLICK = -2;
    private static final int IMPRESSION = -1;

    final int number;
    final byte[] eventId;
    final long timeMs;
    final long publishedMs;
    final long costMicros;
    final int lengthS;
    final boolean listed;

    AdMoment(
            int number, byte[] eventId, long timeMs, long publishedMs, long costMicros, int lengthS, boolean listed) {
        this.number = number;
        this.eventId = eventId;
        this.timeMs = timeMs;
        this.publishedMs = publishedMs;
        this.costMicros = costMicros;
        this.lengthS = lengthS;
        this.listed = listed;
    }

    String type() {
        return EventContract.EVENT_TYPES[this.number];
    }

    /** Where it stands in the playing of the ad: percent of it, or before any. */
    int step() {
        return isClick() ? CLICK : isImpression() ? IMPRESSION : EventContract.QUARTILES[this.number];
    }

    boolean isClick() {
        return this.number == EventContract.CLICK;
    }

    boolean isImpression() {
        return this.number == EventContract.IMPRESSION;
    }

    boolean isQuartile() {
        return EventContract.QUARTILES[this.number] >= 0;
    }
}
