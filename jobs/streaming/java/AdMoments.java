// What `contradictions` (Contradictions.java) remembers of an ad: its impression, clicks and quartiles, in bytes.
//
// Layout: four bytes (KeptByBucket.java); then of each moment the number of its type (u8), length of its event id (u8),
// event time, publish time, cost (i64 each), length of the creative in seconds (i32), 1 when its network is listed (u8),
// event id.
package headwater;

import java.nio.ByteBuffer;
import java.util.Arrays;

final class AdMoments {
    private static final int MOMENT_BYTES = 1 + 1 + 8 + 8 + 8 + 4 + 1;

    private final ByteBuffer bytes;
    private int next = KeptByBucket.HEADER_BYTES;
    private int at = KeptByBucket.HEADER_BYTES;

    /** `bytes` may be null: nothing is remembered yet. */
    AdMoments(byte[] bytes) {
        this.bytes = ByteBuffer.wrap(bytes == null ? new byte[KeptByBucket.HEADER_BYTES] : bytes);
    }

    /** Goes to the next moment; false when there is none. Begins at the first one. */
    boolean advance() {
        if (this.next >= this.bytes.capacity()) {
            return false;
        }
        this.at = this.next;
        this.next = this.at + MOMENT_BYTES + this.bytes.get(this.at + 1);
        return true;
    }

    /** The moment that was gone to. */
    AdMoment moment() {
        int from = this.at;
        byte[] eventId = Arrays.copyOfRange(this.bytes.array(), from + MOMENT_BYTES, this.next);
        return new AdMoment(
                this.bytes.get(from),
                eventId,
                this.bytes.getLong(from + 2),
                this.bytes.getLong(from + 10),
                this.bytes.getLong(from + 18),
                this.bytes.getInt(from + 26),
                this.bytes.get(from + 30) == 1);
    }

    /** The bytes with one more moment, to be kept until `keptMs` after it was published. */
    byte[] with(AdMoment moment, long keptMs) {
        int end = this.bytes.capacity();
        byte[] more = Arrays.copyOf(this.bytes.array(), end + MOMENT_BYTES + moment.eventId.length);
        ByteBuffer to = ByteBuffer.wrap(more);
        to.put(end, (byte) moment.number);
        to.put(end + 1, (byte) moment.eventId.length);
        to.putLong(end + 2, moment.timeMs);
        to.putLong(end + 10, moment.publishedMs);
        to.putLong(end + 18, moment.costMicros);
        to.putInt(end + 26, moment.lengthS);
        to.put(end + 30, (byte) (moment.listed ? 1 : 0));
        System.arraycopy(moment.eventId, 0, more, end + MOMENT_BYTES, moment.eventId.length);
        KeptByBucket.keepUntil(more, moment.publishedMs + keptMs);
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
        return EventInput.EVENT_TYPES[this.number];
    }

    /** Where it stands in the playing of the ad: percent of it, or before any. */
    int step() {
        return isClick() ? CLICK : isImpression() ? IMPRESSION : EventInput.QUARTILES[this.number];
    }

    boolean isClick() {
        return this.number == EventInput.CLICK;
    }

    boolean isImpression() {
        return this.number == EventInput.IMPRESSION;
    }

    boolean isQuartile() {
        return EventInput.QUARTILES[this.number] >= 0;
    }
}
