// A type of the writer's schema, as RowAvroPlan walks it. Source: Avro 1.12 specification, "Schema Declaration".
package headwater;

import java.util.Map;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.table.api.ValidationException;

final class RowAvroType {
    static final int NULL = 0;
    static final int BOOLEAN = 1;
    static final int INT = 2;
    static final int LONG = 3;
    static final int FLOAT = 4;
    static final int DOUBLE = 5;
    static final int BYTES = 6;
    static final int STRING = 7;
    static final int ARRAY = 8;
    static final int MAP = 9;
    static final int UNION = 10;
    static final int RECORD = 11;
    static final int ENUM = 12;
    static final int FIXED = 13;
    private static final String[] PRIMITIVES = {"null", "boolean", "int", "long", "float", "double", "bytes", "string"};

    int kind;
    int size;
    RowAvroType items;
    RowAvroType[] parts;

    /** A part of one of a record's fields, or null. */
    static JsonNode part(JsonNode fields, int field, String name) {
        return (JsonNode) ((JsonNode) fields.get(field)).get(name);
    }

    static RowAvroType of(JsonNode schema, Map named) {
        if (schema.isTextual()) {
            for (int i = 0; i < PRIMITIVES.length; i++) {
                if (PRIMITIVES[i].equals(schema.asText())) {
                    RowAvroType type = new RowAvroType();
                    type.kind = i;
                    return type;
                }
            }
            RowAvroType known = (RowAvroType) named.get(schema.asText());
            if (known == null) {
                throw new ValidationException("no Avro type " + schema.asText());
            }
            return known;
        }
        RowAvroType type = new RowAvroType();
        if (schema.isArray()) {
            type.kind = UNION;
            type.parts = new RowAvroType[schema.size()];
            for (int i = 0; i < type.parts.length; i++) {
                type.parts[i] = of((JsonNode) schema.get(i), named);
            }
            return type;
        }
        String name = ((JsonNode) schema.get("type")).asText();
        if (schema.has("name")) {
            named.put(((JsonNode) schema.get("name")).asText(), type);
        }
        if (name.equals("array")) {
            type.kind = ARRAY;
            type.items = of((JsonNode) schema.get("items"), named);
        } else if (name.equals("map")) {
            type.kind = MAP;
            type.items = of((JsonNode) schema.get("values"), named);
        } else if (name.equals("enum")) {
            type.kind = ENUM;
        } else if (name.equals("fixed")) {
            type.kind = FIXED;
            type.size = ((JsonNode) schema.get("size")).asInt();
        } else if (name.equals("record")) {
            type.kind = RECORD;
            JsonNode fields = (JsonNode) schema.get("fields");
            type.parts = new RowAvroType[fields.size()];
            for (int i = 0; i < type.parts.length; i++) {
                type.parts[i] = of(part(fields, i, "type"), named);
            }
        } else {
            return of((JsonNode) schema.get("type"), named);
        }
        return type;
    }
}
