// What a record's arrays and maps of texts say, as one text each: `name=field` is an array's items with commas between
// them, `name=field.key` a map's entry or null. As columns they would be decoded whole, and copied by each of Flink's
// projections: a tenth of a job's CPU for flags and reasons that hardly any event has.
package headwater;

import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.data.binary.BinaryStringData;

final class RowAvroTexts implements Serializable {
    private static final long serialVersionUID = 1L;

    final String[] names;
    final String[] fields;
    /** Of each text: the entry's key in UTF-8, or null for an array's items. */
    final byte[][] keys;

    /** Errors: ValidationException for what is no list of `name=field` or `name=field.key`. */
    RowAvroTexts(String[] list) {
        this.names = new String[list.length];
        this.fields = new String[list.length];
        this.keys = new byte[list.length][];
        for (int i = 0; i < list.length; i++) {
            int equals = list[i].indexOf('=');
            int dot = list[i].indexOf('.', equals);
            if (equals <= 0 || dot == equals + 1 || equals == list[i].length() - 1) {
                throw new ValidationException("no name=field or name=field.key: " + list[i]);
            }
            this.names[i] = list[i].substring(0, equals);
            this.fields[i] = list[i].substring(equals + 1, dot < 0 ? list[i].length() : dot);
            this.keys[i] = dot < 0 ? null : list[i].substring(dot + 1).getBytes(StandardCharsets.UTF_8);
        }
    }

    int indexOf(String name) {
        for (int i = 0; i < this.names.length; i++) {
            if (this.names[i].equals(name)) {
                return i;
            }
        }
        return -1;
    }

    /** Whether a text is an array's items, which are never null. */
    boolean isJoined(int which) {
        return this.keys[which] == null;
    }

    /** Errors: ValidationException for a field of another type than the text needs. */
    void requireTexts(int which, RowAvroType type) {
        int kind = isJoined(which) ? RowAvroType.ARRAY : RowAvroType.MAP;
        if (type.kind != kind || type.items.kind != RowAvroType.STRING) {
            throw new ValidationException(this.fields[which] + " is no " + (isJoined(which) ? "array" : "map") + " of texts");
        }
    }

    /** What a text is for a writer without the field, by the reader's default of it. */
    BinaryStringData of(int which, JsonNode value) {
        if (!isJoined(which)) {
            JsonNode entry = (JsonNode) value.get(new String(this.keys[which], StandardCharsets.UTF_8));
            return entry == null ? null : BinaryStringData.fromString(entry.asText());
        }
        List items = new ArrayList();
        for (Iterator each = value.elements(); each.hasNext();) {
            items.add(((JsonNode) each.next()).asText());
        }
        return BinaryStringData.fromString(String.join(",", items));
    }
}
