// What an event means to the life of its ad, by its type. Which types there are, and how far each has played, is
// schemas/events.py's to say (EventContract, written by own_java.py).
package headwater;

import java.util.Arrays;
import org.apache.flink.table.data.StringData;

final class LifeEvent {
    /** Of a type that nobody knows: one more event of the ad. */
    private static final LifeEvent OTHER = new LifeEvent(true, -1, -1, false);
    private static final KnownTexts SOURCES = new KnownTexts(EventContract.SOURCES);
    private static final LifeEvent[] BY_TYPE = new LifeEvent[EventContract.EVENT_TYPES.length];

    static {
        for (int i = 0; i < BY_TYPE.length; i++) {
            String type = EventContract.EVENT_TYPES[i];
            BY_TYPE[i] = new LifeEvent(
                    !Arrays.asList(EventContract.NOT_OF_THE_AD).contains(type),
                    EventContract.QUARTILES[i],
                    counter(type),
                    Arrays.asList(EventContract.ENGAGEMENTS).contains(type));
        }
    }

    /** Whether it is about showing the ad. */
    final boolean ofTheAd;
    /** Percent of the ad that has played; -1: it does not say. */
    final int quartile;
    /** Which number of AdLife counts it; -1: none. */
    final int counter;
    final boolean isEngagement;

    private LifeEvent(boolean ofTheAd, int quartile, int counter, boolean isEngagement) {
        this.ofTheAd = ofTheAd;
        this.quartile = quartile;
        this.counter = counter;
        this.isEngagement = isEngagement;
    }

    static LifeEvent of(StringData eventType) {
        int number = EventContract.TYPES.number(eventType);
        return number < 0 ? OTHER : BY_TYPE[number];
    }

    /** A bit for each kind of source, and one for all that nobody knows. */
    static long sourceBit(StringData source) {
        int number = SOURCES.number(source);
        return 1L << (number < 0 ? EventContract.SOURCES.length : number);
    }

    /** The hash of what an event belongs to: its ad, or what is not about showing one, itself. */
    long key(StringData recordId, byte[] eventId) {
        return EventBucket.hash(this.ofTheAd ? recordId.toBytes() : eventId);
    }

    /** The same by the event's packed ids. */
    long key(byte[] ids, byte[] eventId) {
        return this.ofTheAd ? PackedIds.hash(ids, EventContract.RECORD_ID) : EventBucket.hash(eventId);
    }

    private static int counter(String type) {
        switch (type) {
            case "impression":
                return AdLife.IMPRESSIONS;
            case "click":
                return AdLife.CLICKS;
            case "error":
                return AdLife.ERRORS;
            case "viewable":
                return AdLife.VIEWABLES;
            case "skip":
                return AdLife.SKIPS;
            case "qr_scan":
                return AdLife.QR_SCANS;
            case "pause_ad":
                return AdLife.PAUSE_ADS;
            default:
                return -1;
        }
    }
}
