// What ad_lives (AdLives.java) remembers of one ad, packed into bytes: layout, when it is looked at next, closed and
// forgotten, number of events, half of each event's id; then, for the life of an ad, its numbers, and while it is open its
// texts and dimensions. What is not needed is not unpacked: a repeated event ends at a look at the ids.
//
// The ids are forgotten first. The numbers stay for as long as an event of the ad may still come (EventInput.OLDEST_MS):
// without them it would begin a second life, with the first revision again and with all that was said to be said anew.
package headwater;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.types.DataType;

final class AdLife {
    private static final byte LAYOUT = 4;
    private static final int ID_BYTES = 8;
    /** Layout, due, closes, forget, number of ids. */
    private static final int HEADER_BYTES = 1 + 4 + 4 + 4 + 4;
    private static final ByteBuffer NOTHING = ByteBuffer.allocate(HEADER_BYTES);

    /**
     * What all events of an ad have in common, and its dimensions packed (PackedFields.java). Of differing values the
     * greatest is taken, so that order is nothing.
     */
    static final String[] TEXTS = {"record_id", "user_pseudonym"};
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

    /** How many lives are looked at together to forget ids, and to forget the rest: those of a minute, of an hour. */
    private static final long FORGET_TOGETHER_MS = 60000;
    private static final long END_TOGETHER_S = 3600;

    /** In whole seconds, and 0 for none: when it is looked at next; it closes if nothing more comes; ids, or without any the
     * rest, are forgotten. */
    long dueMs;
    private long closesMs;
    private long forgetMs;

    private final byte[] state;
    /** Where the numbers begin in the state, if there are any. */
    private final int numbersAt;
    private int ids;
    /** The event that this access has seen first; null: none. */
    private byte[] added;
    /** Null until they are asked for. */
    private long[] numbers;
    private StringData[] texts;
    private byte[] dimensions;

    private AdLife(ByteBuffer state) {
        this.state = state.array();
        if (this.state[0] != LAYOUT && state != NOTHING) {
            throw new IllegalStateException(
                    "state of ad_lives has layout " + this.state[0] + ", this version knows " + LAYOUT);
        }
        this.dueMs = Seconds.ms(state.getInt(1));
        this.closesMs = Seconds.ms(state.getInt(5));
        this.forgetMs = Seconds.ms(state.getInt(9));
        this.ids = state.getInt(13);
        this.numbersAt = HEADER_BYTES + this.ids * ID_BYTES;
    }

    /** Of what is kept of it; null: nothing. */
    static AdLife of(byte[] bytes) {
        return new AdLife(bytes == null ? NOTHING : ByteBuffer.wrap(bytes));
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
        unpack();
        this.ids = 0;
        this.forgetMs = this.numbers[EVENTS] == 0 ? 0 : wholeSecond(this.numbers[LAST_PUBLISHED_MS] + EventInput.OLDEST_MS);
        return this.forgetMs > nowMs;
    }

    /** Whether it is open and its gap has passed. */
    boolean isOver(long nowMs) {
        return this.closesMs != 0 && this.closesMs <= nowMs;
    }

    /**
     * When there is something to do if nothing more comes. For each bucket the hours begin at another second, by the half of
     * the key that has chosen the bucket: ended lives of all of them together would hold up everything else for a while.
     */
    long wakeMs(long key) {
        if (this.closesMs != 0) {
            return this.closesMs;
        }
        if (this.ids == 0 && this.added == null) {
            long beginsMs = ((key >>> 32) * END_TOGETHER_S >>> 32) * 1000;
            return beginsMs + together(this.forgetMs - beginsMs, END_TOGETHER_S * 1000);
        }
        return together(this.forgetMs, FORGET_TOGETHER_MS);
    }

    private static long together(long ms, long stepMs) {
        return (ms + stepMs - 1) / stepMs * stepMs;
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
        int end = HEADER_BYTES + this.ids * ID_BYTES;
        for (int from = HEADER_BYTES; from < end; from += ID_BYTES) {
            int i = 0;
            while (i < ID_BYTES && this.state[from + i] == eventId[i]) {
                i++;
            }
            if (i == ID_BYTES) {
                return false;
            }
        }
        this.added = eventId;
        return true;
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
        n[SOURCES] |= LifeEvent.sourceBit(event.getString(columns.source));
        if (kind.counter >= 0) {
            n[kind.counter]++;
        }
        if (kind.isEngagement) {
            n[ENGAGEMENTS]++;
        }
        for (int i = 0; i < this.texts.length; i++) {
            if (!event.isNullAt(columns.texts[i])) {
                StringData text = event.getString(columns.texts[i]);
                if (this.texts[i] == null || this.texts[i].compareTo(text) < 0) {
                    this.texts[i] = text;
                }
            }
        }
    }

    private void add(byte[] packed) {
        if (this.dimensions == null) {
            this.dimensions = packed;
        } else if (!Arrays.equals(this.dimensions, packed)) {
            this.dimensions =
                    PackedFields.greatest(this.dimensions, packed, EventInput.PACKED_TEXTS, EventInput.PACKED_NUMBERS);
        }
        int version = PackedFields.slot(packed, 0, EventInput.PACKED_TEXTS);
        this.numbers[VERSION] = Math.max(this.numbers[VERSION], version);
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
            row.setField(at++, this.texts[i]);
        }
        row.setField(at++, this.dimensions);
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
        if (this.numbers != null) {
            return;
        }
        this.numbers = new long[SIZE];
        this.texts = new StringData[TEXTS.length];
        PackedReader in = new PackedReader(this.state, this.numbersAt);
        if (in.position < this.state.length) {
            for (int i = 0; i < SIZE; i++) {
                this.numbers[i] = in.next();
            }
        }
        if (in.position < this.state.length) {
            for (int i = 0; i < TEXTS.length; i++) {
                this.texts[i] = in.text();
            }
            this.dimensions = in.some();
        }
    }

    /** What to keep of it. */
    byte[] packed() {
        int idBytes = this.ids * ID_BYTES;
        int addedBytes = this.added == null ? 0 : ID_BYTES;
        int unpacked = this.numbers == null ? this.state.length - this.numbersAt : 400;
        PackedWriter out = new PackedWriter(HEADER_BYTES + idBytes + addedBytes + unpacked);
        ByteBuffer.wrap(out.bytes)
                .put(LAYOUT)
                .putInt(Seconds.of(this.dueMs))
                .putInt(Seconds.of(this.closesMs))
                .putInt(Seconds.of(this.forgetMs))
                .putInt(this.ids + addedBytes / ID_BYTES);
        out.position = HEADER_BYTES;
        out.put(this.state, HEADER_BYTES, idBytes);
        out.put(this.added, 0, addedBytes);
        if (this.numbers == null) {
            out.put(this.state, this.numbersAt, unpacked);
        } else if (this.numbers[EVENTS] > 0) {
            for (int i = 0; i < SIZE; i++) {
                out.put(this.numbers[i]);
            }
            if (this.closesMs != 0) {
                for (int i = 0; i < TEXTS.length; i++) {
                    out.put(this.texts[i]);
                }
                out.put(this.dimensions.length);
                out.put(this.dimensions, 0, this.dimensions.length);
            }
        }
        return out.position == out.bytes.length ? out.bytes : Arrays.copyOf(out.bytes, out.position);
    }
}
