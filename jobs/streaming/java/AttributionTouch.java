// The rows that attribution works on (attribution_inputs.sql): what happened, and which of two touches is the better one.
package headwater;

import java.util.Arrays;
import org.apache.flink.table.data.RowData;

final class AttributionTouch {
    static final int CONVERSION = 0;
    static final int VIEW = 1;
    static final int CLICK = 2;

    static final String ROW = "ROW<kind INT, match_keys INT, event_id BYTES, event_time_ms BIGINT, "
            + "published_time_ms BIGINT, record_id STRING, user_pseudonym STRING, order_id STRING, value_micros BIGINT, "
            + "advertiser_id STRING, packed_dimensions BYTES>";
    static final int COLUMNS = 11;
    /** Columns of attribution_inputs, in its order. */
    static final String INPUT = "ROW<match_bucket INT, match_key STRING, moment " + ROW + ">";
    static final int MATCH_BUCKET = 0;
    static final int MATCH_KEY = 1;
    static final int MOMENT = 2;

    private static final int KIND = 0;
    private static final int MATCH_KEYS = 1;
    private static final int EVENT_ID = 2;
    private static final int EVENT_TIME_MS = 3;
    static final int PUBLISHED_TIME_MS = 4;
    static final int ADVERTISER_ID = 9;

    private AttributionTouch() {}

    static int kind(RowData row) {
        return row.getInt(KIND);
    }

    static long timeMs(RowData row) {
        return row.getLong(EVENT_TIME_MS);
    }

    /** How many keys a conversion lies under: so many first answers it gets. */
    static int keys(RowData conversion) {
        return conversion.getInt(MATCH_KEYS);
    }

    /** A click before a view, then the later one, then the greater event id, so that no two are equally good. */
    static boolean better(RowData one, RowData other) {
        if (kind(one) != kind(other)) {
            return kind(one) > kind(other);
        }
        if (timeMs(one) != timeMs(other)) {
            return timeMs(one) > timeMs(other);
        }
        return Arrays.compareUnsigned(one.getBinary(EVENT_ID), other.getBinary(EVENT_ID)) > 0;
    }
}
