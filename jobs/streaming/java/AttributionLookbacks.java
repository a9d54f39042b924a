// How long before a conversion a touch may lie, by advertiser: {"<advertiser>": [click_s, view_s], "": [...]} where the
// empty name stands for every other advertiser. 0: touches of that kind are credited with nothing.
package headwater;

import java.io.IOException;
import java.util.HashMap;
import java.util.Iterator;
import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;

final class AttributionLookbacks {
    private static final int CLICK_S = 0;
    private static final int VIEW_S = 1;

    private final Map ofAdvertiser = new HashMap();
    private final long[] ofOthers;

    private AttributionLookbacks(JsonNode byAdvertiser) {
        for (Iterator each = byAdvertiser.fieldNames(); each.hasNext();) {
            String advertiser = (String) each.next();
            JsonNode seconds = (JsonNode) byAdvertiser.get(advertiser);
            long[] both = new long[] {
                ((JsonNode) seconds.get(CLICK_S)).asLong(), ((JsonNode) seconds.get(VIEW_S)).asLong()
            };
            this.ofAdvertiser.put(BinaryStringData.fromString(advertiser), both);
        }
        this.ofOthers = (long[]) this.ofAdvertiser.remove(BinaryStringData.fromString(""));
        if (this.ofOthers == null) {
            throw new ValidationException("look-backs need an entry \"\" for every other advertiser");
        }
    }

    static AttributionLookbacks of(String json) {
        try {
            return new AttributionLookbacks(new ObjectMapper().readTree(json));
        } catch (IOException e) {
            throw new ValidationException("look-backs are not JSON: " + json, e);
        }
    }

    /** Seconds that an advertiser's touches of a kind count for. */
    long ofKind(StringData advertiser, int kind) {
        long[] own = (long[]) this.ofAdvertiser.get(advertiser);
        return (own == null ? this.ofOthers : own)[kind == AttributionTouch.CLICK ? CLICK_S : VIEW_S];
    }
}
