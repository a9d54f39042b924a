// The rows that attribution works on: moments (attribution_inputs.sql), of which conversions are kept whole; and touches,
// which are what of a click or an impression a credit tells. Which of two touches is the better one.
package headwater;

import java.util.Arrays;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;

final class AttributionTouch {
    static final int CONVERSION = 0;
    static final int VIEW = 1;
    static final int CLICK = 2;

    static final String MOMENT_ROW = "ROW<kind INT, match_keys INT, event_id BYTES, event_time_ms BIGINT, "
            + "published_time_ms BIGINT, record_id STRING, user_pseudonym STRING, order_id STRING, value_micros BIGINT, "
            + "advertiser_id STRING, packed_dimensions BYTES>";
    static final int MOMENT_COLUMNS = 11;
    static final String ROW = "ROW<kind INT, event_id BYTES, event_time_ms BIGINT, published_time_ms BIGINT, "
            + "record_id STRING, packed_dimensions BYTES>";
    static final int COLUMNS = 6;
    /** Columns of attribution_inputs, in its order. */
    static final String INPUT = "ROW<match_bucket INT, match_key STRING, moment " + MOMENT_ROW + ">";
    static final int MATCH_BUCKET = 0;
    static final int MATCH_KEY = 1;
    static final int MOMENT = 2;

    /** Columns of a touch. */
    private static final int KIND = 0;
    static final int EVENT_ID = 1;
    static final int EVENT_TIME_MS = 2;
    static final int PUBLISHED_TIME_MS = 3;
    static final int RECORD_ID = 4;
    static final int DIMENSIONS = 5;

    /** Columns of a moment. */
    private static final int MATCH_KEYS = 1;
    private static final int MOMENT_EVENT_ID = 2;
    private static final int MOMENT_EVENT_TIME_MS = 3;
    private static final int MOMENT_PUBLISHED_TIME_MS = 4;
    private static final int MOMENT_RECORD_ID = 5;
    private static final int ADVERTISER_ID = 9;
    private static final int MOMENT_DIMENSIONS = 10;

    private AttributionTouch() {}

    /** What is kept of a click or an impression. */
    static RowData of(RowData moment) {
        GenericRowData touch = new GenericRowData(COLUMNS);
        touch.setField(KIND, Integer.valueOf(moment.getInt(KIND)));
        touch.setField(EVENT_ID, moment.getBinary(MOMENT_EVENT_ID));
        touch.setField(EVENT_TIME_MS, Long.valueOf(moment.getLong(MOMENT_EVENT_TIME_MS)));
        touch.setField(PUBLISHED_TIME_MS, Long.valueOf(moment.getLong(MOMENT_PUBLISHED_TIME_MS)));
        touch.setField(RECORD_ID, moment.isNullAt(MOMENT_RECORD_ID) ? null : moment.getString(MOMENT_RECORD_ID));
        touch.setField(DIMENSIONS, moment.isNullAt(MOMENT_DIMENSIONS) ? null : moment.getBinary(MOMENT_DIMENSIONS));
        return touch;
    }

    /** Of a touch or a moment. */
    static int kind(RowData row) {
        return row.getInt(KIND);
    }

    static long publishedMs(RowData moment) {
        return moment.getLong(MOMENT_PUBLISHED_TIME_MS);
    }

    /** How many keys a conversion lies under: so many first answers it gets. */
    static int keys(RowData conversion) {
        return conversion.getInt(MATCH_KEYS);
    }

    /** For how many seconds a touch of a kind counts, by the advertiser of a moment under the same key. */
    static long lookbackS(AttributionLookbacks known, RowData moment, int kind) {
        return known.ofKind(moment.isNullAt(ADVERTISER_ID) ? null : moment.getString(ADVERTISER_ID), kind);
    }

    /** Whether a touch that counts for so long lies before a conversion, and near enough. */
    static boolean eligible(RowData touch, RowData conversion, long lookbackS) {
        long beforeMs = conversion.getLong(MOMENT_EVENT_TIME_MS) - touch.getLong(EVENT_TIME_MS);
        return lookbackS > 0 && beforeMs >= 0 && beforeMs <= lookbackS * 1000;
    }

    /** A click before a view, then the later one, then the greater event id, so that no two are equally good. */
    static boolean better(RowData one, RowData other) {
        if (kind(one) != kind(other)) {
            return kind(one) > kind(other);
        }
        if (one.getLong(EVENT_TIME_MS) != other.getLong(EVENT_TIME_MS)) {
            return one.getLong(EVENT_TIME_MS) > other.getLong(EVENT_TIME_MS);
        }
        return Arrays.compareUnsigned(one.getBinary(EVENT_ID), other.getBinary(EVENT_ID)) > 0;
    }
}
