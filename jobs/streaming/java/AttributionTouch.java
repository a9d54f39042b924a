// The rows that attribution works on (attribution_inputs.sql), and which of two touches is the better one.
package headwater;

import java.util.Arrays;
import org.apache.flink.table.data.RowData;

final class AttributionTouch {
    static final int CONVERSION = 0;
    static final int VIEW = 1;
    static final int CLICK = 2;

    /** Columns of attribution_inputs, in its order. */
    static final String ROW = "ROW<match_key STRING, kind INT, match_keys INT, event_id BYTES, event_time_ms BIGINT, "
            + "published_time_ms BIGINT, record_id STRING, user_pseudonym STRING, order_id STRING, value_micros BIGINT, "
            + "advertiser_id STRING, campaign_id STRING, line_item_id STRING, creative_id STRING, creative_version INT, "
            + "placement_id STRING, publisher_id STRING, country STRING, device_type STRING, platform STRING, "
            + "creative_format STRING, deal_type STRING, experiment_cell STRING, pricing STRING, bidder_id STRING, "
            + "currency STRING>";

    private static final int KIND = 1;
    private static final int MATCH_KEYS = 2;
    private static final int EVENT_ID = 3;
    private static final int EVENT_TIME_MS = 4;
    static final int PUBLISHED_TIME_MS = 5;
    static final int ADVERTISER_ID = 10;

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
