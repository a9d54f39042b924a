// What ad_lives (AdLives.java) remembers of one ad, packed into bytes: when all of it is over (KeptByBucket.java), layout, when
// it is closed and its ids are forgotten, number of events, half of each event's id; then, for the life of an ad, which of its
// numbers are not 0 (a bit each), those, and while it is open its texts and dimensions. What is not needed is not unpacked: a
// repeated event ends at a look at the ids.
//
// The ids are forgotten first. The numbers stay for as long as an event of the ad may still come (EventContract.OLDEST_MS):
// without them it would begin a second life, with the first revision again and with all that was said to be said anew.
package headwater;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.types.DataType;

/** One per subtask, which looks at one life after the other. */
final class AdLife {
    private static final byte LAYOUT = 6;
    private static final int ID_BYTES = 8;
    private static final int CLOSES = 4 + 1;
    private static final int FORGET = CLOSES + 4;
    private static final int IDS = FORGET + 4;
    private static final int HEADER_BYTES = IDS + 4;
    private static final byte[] NOTHING = new byte[HEADER_BYTES];

    /**
     * What all events of an ad have in common, and its dimensions packed (PackedFields.java). Of differing values the
     * greatest is taken, so that order is nothing.
     */
    static final String[] TEXTS = {"record_id", "user_pseudonym"};
    /** Their places among the packed ids. */
    private static final int[] TEXT_IDS = {EventContract.RECORD_ID, EventContract.USER};
    static final String DIMENSIONS = "packed_dimensions";
    /** Columns of a session row after texts and dimensions; each is the number of the same position. */
    private static final String[] NUMBERS = {
        "creative_version", "first_event_time_ms", "last_event_time_ms", "last_published_ms", "furthest",
        "impressions", "clicks", "engagements", "errors", "viewables", "qr_scans", "pause_ads", "skips",
        "watch_percent", "creative_length_s", "sources", "events", "cost_micros", "revision"
    };
    private static final String[] DELTAS = {
        "minute_ms", "sessions_delta", "sessions_completed_delta", "watch_time_ms_delta"
    };

    private static final int VERSION = 0;
    private static final int FIRST_MS = 1;
    private static final int LAST_MS = 2;
    private static final int LAST_PUBLISHED_MS = 3;
    /** Quartile + 1; 0 before any. */
    private static final int FURTHEST = 4;
    static final int IMPRESSIONS = 5;
    static final int CLICKS = 6;
    private static final int ENGAGEMENTS = 7;
    static final int ERRORS = 8;
    static final int VIEWABLES = 9;
    static final int QR_SCANS = 10;
    static final int PAUSE_ADS = 11;
    static final int SKIPS = 12;
    private static final int WATCHED = 13;
    private static final int LENGTH_S = 14;
    /** A bit for each kind of source. */
    private static final int SOURCES = 15;
    private static final int EVENTS = 16;
    private static final int COST_MICROS = 17;
    private static final int REVISION = 18;
    /** What the rows so far have said, for the deltas of the next. */
    private static final int SAID_MINUTE_MS = 19;
    private static final int SAID_SESSIONS = 20;
    private static final int SAID_COMPLETED = 21;
    private static final int SAID_WATCH_MS = 22;
    private static final int SIZE = 23;

    /** In whole seconds, and 0 for none: when it closes if nothing more comes, when its ids are forgotten. */
    private long closesMs;
    private long forgetMs;
    /** When all of it is over, as the state says. */
    private long overMs;

    /** The state: bytes of which it has some. */
    private byte[] state;
    private int from;
    private int end;
    private int ids;
    /** Where the numbers begin, if there are any. */
    private int numbersAt;
    /** Half of the id of the event that this access has seen first, if any. */
    private boolean adds;
    private long added;
    /** Whether what follows is that of this life. */
    private boolean unpacked;
    private final long[] numbers = new long[SIZE];
    private final StringData[] texts = new StringData[TEXTS.length];
    /** Some of these bytes; null: none. */
    private byte[] dimensions;
    private int dimensionsFrom;
    private int dimensionsSize;

    /** Goes to a life of which nothing is known. */
    void begin() {
        read(NOTHING, 0, HEADER_BYTES);
    }

    /** Goes to a life; the bytes must stay what they are until the next. */
    void read(byte[] bytes, int from, int size) {
        if (bytes != NOTHING && bytes[from + 4] != LAYOUT) {
            throw new IllegalStateException(
                    "state of ad_lives has layout " + bytes[from + 4] + ", this version knows " + LAYOUT);
        }
        this.state = bytes;
        this.from = from;
        this.end = from + size;
        this.overMs = Seconds.ms(Packed.getInt(bytes, from));
        this.closesMs = closesMs(bytes, from);
        this.forgetMs = Seconds.ms(Packed.getInt(bytes, from + FORGET));
        this.ids = Packed.getInt(bytes, from + IDS);
        this.numbersAt = from + HEADER_BYTES + this.ids * ID_BYTES;
        this.adds = false;
        this.unpacked = false;
    }

    /** When the life that begins there closes; 0 when it is closed. */
    static long closesMs(byte[] bytes, int from) {
        return Seconds.ms(Packed.getInt(bytes, from + CLOSES));
    }

    long closesMs() {
        return this.closesMs;
    }

    static DataType sessionType() {
        List fields = new ArrayList();
        for (int i = 0; i < TEXTS.length; i++) {
            fields.add(DataTypes.FIELD(TEXTS[i], DataTypes.STRING()));
        }
        fields.add(DataTypes.FIELD(DIMENSIONS, DataTypes.BYTES()));
        for (int i = 0; i < NUMBERS.length; i++) {
            fields.add(DataTypes.FIELD(NUMBERS[i], DataTypes.BIGINT()));
        }
        for (int i = 0; i < DELTAS.length; i++) {
            fields.add(DataTypes.FIELD(DELTAS[i], DataTypes.BIGINT()));
        }
        return DataTypes.ROW(fields);
    }

    /** Forgets what is over, nothing while it is open. Gives false when nothing is left. */
    boolean forget(long nowMs) {
        if (this.closesMs != 0 || this.forgetMs > nowMs) {
            return true;
        }
        this.ids = 0;
        return this.overMs > nowMs;
    }

    /** Keeps the ids, that of the event just seen among them, until then at least. */
    void remember(long untilMs) {
        this.forgetMs = Math.max(this.ids == 0 ? 0 : this.forgetMs, wholeSecond(untilMs));
    }

    private static long wholeSecond(long ms) {
        return Seconds.ms(Seconds.of(ms));
    }

    /** Notes an event; false when it was noted before. Half of an id is compared: 64 bits within one ad. */
    boolean sees(byte[] eventId) {
        long id = eventId.length < ID_BYTES ? EventBucket.hash(eventId) : Packed.getLong(eventId, 0);
        int at = this.from + HEADER_BYTES;
        for (int i = 0; i < this.ids; i++, at += ID_BYTES) {
            if (Packed.getLong(this.state, at) == id) {
                return false;
            }
        }
        this.adds = true;
        this.added = id;
        return true;
    }

    /** Takes the ids out of the bytes of a life if they are over; gives how many are left. */
    static int forgetIds(byte[] bytes, int from, int size, long nowMs) {
        int idBytes = Packed.getInt(bytes, from + IDS) * ID_BYTES;
        if (idBytes == 0 || closesMs(bytes, from) != 0 || Seconds.ms(Packed.getInt(bytes, from + FORGET)) > nowMs) {
            return size;
        }
        int begin = from + HEADER_BYTES;
        System.arraycopy(bytes, begin + idBytes, bytes, begin, size - HEADER_BYTES - idBytes);
        Packed.putInt(bytes, from + IDS, 0);
        return size - idBytes;
    }

    void add(RowData event, LifeEvent kind, AdLifeColumns columns, long gapMs) {
        unpack();
        long[] n = this.numbers;
        long timeMs = event.getLong(columns.eventTimeMs);
        n[FIRST_MS] = n[EVENTS] == 0 ? timeMs : Math.min(n[FIRST_MS], timeMs);
        n[LAST_MS] = Math.max(n[LAST_MS], timeMs);
        n[LAST_PUBLISHED_MS] = Math.max(n[LAST_PUBLISHED_MS], event.getLong(columns.publishedTimeMs));
        this.closesMs = wholeSecond(n[LAST_PUBLISHED_MS] + gapMs);
        n[EVENTS]++;
        n[COST_MICROS] += event.getLong(columns.costMicros);
        add(event.getBinary(columns.dimensions));
        n[FURTHEST] = Math.max(n[FURTHEST], kind.quartile + 1);
        n[WATCHED] = Math.max(n[WATCHED], kind.quartile);
        if (!event.isNullAt(columns.watchPercent)) {
            n[WATCHED] = Math.max(n[WATCHED], event.getInt(columns.watchPercent));
        }
        if (!event.isNullAt(columns.creativeLengthS)) {
            n[LENGTH_S] = Math.max(n[LENGTH_S], event.getInt(columns.creativeLengthS));
        }
        byte[] ids = event.getBinary(columns.ids);
        for (int i = 0; i < TEXTS.length; i++) {
            addText(i, PackedFields.text(ids, TEXT_IDS[i]));
        }
        n[SOURCES] |= LifeEvent.sourceBit(PackedFields.text(ids, EventContract.SOURCE));
        if (kind.counter >= 0) {
            n[kind.counter]++;
        }
        if (kind.isEngagement) {
            n[ENGAGEMENTS]++;
        }
    }

    private void addText(int which, StringData text) {
        if (text != null && (this.texts[which] == null || this.texts[which].compareTo(text) < 0)) {
            this.texts[which] = text;
        }
    }

    private void add(byte[] packed) {
        if (this.dimensions == null) {
            dimensions(packed, 0, packed.length);
        } else if (Arrays.equals(
                this.dimensions, this.dimensionsFrom, this.dimensionsFrom + this.dimensionsSize, packed, 0, packed.length)) {
            return; // their version is known too
        } else {
            byte[] greatest = PackedFields.greatest(
                    dimensions(), packed, EventContract.PACKED_TEXTS, EventContract.PACKED_NUMBERS);
            dimensions(greatest, 0, greatest.length);
        }
        int version = PackedFields.number(packed, EventContract.PACKED_TEXTS, 0);
        this.numbers[VERSION] = Math.max(this.numbers[VERSION], version);
    }

    private void dimensions(byte[] bytes, int from, int size) {
        this.dimensions = bytes;
        this.dimensionsFrom = from;
        this.dimensionsSize = size;
    }

    private byte[] dimensions() {
        return Arrays.copyOfRange(this.dimensions, this.dimensionsFrom, this.dimensionsFrom + this.dimensionsSize);
    }

    /**
     * A row that takes back what earlier ones have said, when the life turns out to have begun in another minute; null
     * when there is nothing to take back. Its revision is 0: it is no session.
     */
    GenericRowData takeBack() {
        unpack();
        long[] n = this.numbers;
        long minuteMs = n[FIRST_MS] - n[FIRST_MS] % 60000;
        boolean moved = n[SAID_MINUTE_MS] != minuteMs;
        boolean said = n[SAID_SESSIONS] != 0 || n[SAID_COMPLETED] != 0 || n[SAID_WATCH_MS] != 0;
        GenericRowData row = moved && said ? row(0, 0, 0, 0) : null;
        n[SAID_MINUTE_MS] = minuteMs;
        return row;
    }

    /** The session row of the life so far. After it the texts are forgotten: a later event brings them again. */
    GenericRowData close() {
        unpack();
        long[] n = this.numbers;
        n[REVISION]++;
        this.closesMs = 0;
        GenericRowData row = row(
                n[REVISION], n[IMPRESSIONS] > 0 ? 1 : 0, n[FURTHEST] > 100 ? 1 : 0, n[WATCHED] * n[LENGTH_S] * 10);
        Arrays.fill(this.texts, null);
        this.dimensions = null;
        return row;
    }

    /** A row of this revision, with the difference to what was said; which it says. */
    private GenericRowData row(long revision, long sessions, long completed, long watchMs) {
        long[] n = this.numbers;
        GenericRowData row = new GenericRowData(TEXTS.length + 1 + NUMBERS.length + DELTAS.length);
        int at = 0;
        for (int i = 0; i < TEXTS.length; i++) {
            // not the view: what the state has there changes
            row.setField(at++, this.texts[i] == null ? null : BinaryStringData.fromBytes(this.texts[i].toBytes()));
        }
        row.setField(at++, this.dimensions == null ? null : dimensions());
        for (int i = 0; i < NUMBERS.length; i++) {
            long value = i == FURTHEST ? n[i] - 1 : i == SOURCES ? Long.bitCount(n[i]) : i == REVISION ? revision : n[i];
            row.setField(at++, Long.valueOf(value));
        }
        row.setField(at, Long.valueOf(n[SAID_MINUTE_MS]));
        row.setField(at + 1, Long.valueOf(sessions - n[SAID_SESSIONS]));
        row.setField(at + 2, Long.valueOf(completed - n[SAID_COMPLETED]));
        row.setField(at + 3, Long.valueOf(watchMs - n[SAID_WATCH_MS]));
        n[SAID_SESSIONS] = sessions;
        n[SAID_COMPLETED] = completed;
        n[SAID_WATCH_MS] = watchMs;
        return row;
    }

    private void unpack() {
        if (this.unpacked) {
            return;
        }
        this.unpacked = true;
        Arrays.fill(this.numbers, 0L);
        Arrays.fill(this.texts, null);
        this.dimensions = null;
        if (this.numbersAt == this.end) {
            return;
        }
        PackedReader in = new PackedReader(this.state, this.numbersAt + 4);
        for (int bits = Packed.getInt(this.state, this.numbersAt); bits != 0; bits &= bits - 1) {
            this.numbers[Integer.numberOfTrailingZeros(bits)] = in.next();
        }
        if (in.position < this.end) {
            for (int i = 0; i < TEXTS.length; i++) {
                this.texts[i] = in.text();
            }
            int size = (int) in.next();
            dimensions(this.state, in.position, size);
        }
    }

    /** Writes what to keep of it to the beginning of `out`. */
    void write(PackedWriter out) {
        int idBytes = this.ids * ID_BYTES;
        out.position = 0;
        out.room(HEADER_BYTES + idBytes + ID_BYTES);
        out.position = HEADER_BYTES;
        out.put(this.state, this.from + HEADER_BYTES, idBytes);
        if (this.adds) {
            Packed.putLong(out.bytes, out.position, this.added);
            out.position += ID_BYTES;
        }
        if (!this.unpacked) {
            out.put(this.state, this.numbersAt, this.end - this.numbersAt);
        } else if (this.numbers[EVENTS] > 0) {
            writeLife(out);
        }
        boolean lives = this.unpacked && this.numbers[EVENTS] > 0;
        long over = lives ? wholeSecond(this.numbers[LAST_PUBLISHED_MS] + EventContract.OLDEST_MS) : this.overMs;
        Packed.putInt(out.bytes, 0, Seconds.of(Math.max(Math.max(over, this.closesMs), this.forgetMs)));
        out.bytes[4] = LAYOUT;
        Packed.putInt(out.bytes, CLOSES, Seconds.of(this.closesMs));
        Packed.putInt(out.bytes, FORGET, Seconds.of(this.forgetMs));
        Packed.putInt(out.bytes, IDS, this.adds ? this.ids + 1 : this.ids);
    }

    private void writeLife(PackedWriter out) {
        int bits = 0;
        for (int i = 0; i < SIZE; i++) {
            bits |= this.numbers[i] == 0 ? 0 : 1 << i;
        }
        out.room(4);
        Packed.putInt(out.bytes, out.position, bits);
        out.position += 4;
        for (; bits != 0; bits &= bits - 1) {
            out.put(this.numbers[Integer.numberOfTrailingZeros(bits)]);
        }
        if (this.closesMs != 0) {
            for (int i = 0; i < TEXTS.length; i++) {
                out.put(this.texts[i]);
            }
            out.put((long) this.dimensionsSize);
            out.put(this.dimensions, this.dimensionsFrom, this.dimensionsSize);
        }
    }
}

/** Of a life that is closed, its ids are over before the rest. */
final class ForgettingIds extends Forgetting {
    int forget(byte[] bytes, int from, int size, long nowMs) {
        return AdLife.forgetIds(bytes, from, size, nowMs);
    }
}
