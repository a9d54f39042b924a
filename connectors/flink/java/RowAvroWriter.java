// Writes Flink's rows as Avro records of one schema: the other direction of RowAvroFormat.java. Source: Avro 1.12
// specification, "Binary Encoding".
package headwater;

import java.io.Serializable;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.RowType;

/** For records of texts, bytes, whole numbers and booleans, each of which may be null where its type is a union with null. */
final class RowAvroWriter implements Serializable {
    private static final long serialVersionUID = 1L;
    private static final int TEXT = 0;
    private static final int BYTES = 1;
    private static final int LONG = 2;
    private static final int INT = 3;
    private static final int BOOLEAN = 4;
    private static final String[] AVRO = {"string", "bytes", "long", "int", "boolean"};
    private static final String[] FLINK = {"VARCHAR", "VARBINARY", "BIGINT", "INTEGER", "BOOLEAN"};

    /** Of each field: its column, its type, and which branch of its union null is (-1: it is none). */
    private final int[] columns;
    private final int[] types;
    private final int[] nulls;

    /** Errors: ValidationException for a field that has no column, or one of another type. */
    RowAvroWriter(RowType row, String schema) {
        JsonNode fields;
        try {
            fields = (JsonNode) ((JsonNode) new ObjectMapper().readTree(schema)).get("fields");
        } catch (java.io.IOException e) {
            throw new ValidationException("no Avro schema: " + schema, e);
        }
        this.columns = new int[fields.size()];
        this.types = new int[fields.size()];
        this.nulls = new int[fields.size()];
        for (int i = 0; i < this.columns.length; i++) {
            JsonNode field = (JsonNode) fields.get(i);
            String name = ((JsonNode) field.get("name")).asText();
            this.columns[i] = row.getFieldIndex(name);
            if (this.columns[i] < 0) {
                throw new ValidationException("no column for field " + name);
            }
            JsonNode type = (JsonNode) field.get("type");
            this.nulls[i] = -1;
            if (type.isArray() && type.size() == 2) {
                this.nulls[i] = "null".equals(((JsonNode) type.get(0)).asText()) ? 0 : 1;
                type = (JsonNode) type.get(1 - this.nulls[i]);
            }
            LogicalType column = row.getTypeAt(this.columns[i]);
            this.types[i] = typeOf(type.isObject() ? ((JsonNode) type.get("type")).asText() : type.asText());
            boolean fits = this.types[i] >= 0
                    && column.getTypeRoot().name().equals(FLINK[this.types[i]])
                    && (this.nulls[i] >= 0 || !column.isNullable());
            if (!fits) {
                throw new ValidationException("field " + name + ": no way from " + column + " to " + field.get("type"));
            }
        }
    }

    private static int typeOf(String avro) {
        for (int i = 0; i < AVRO.length; i++) {
            if (AVRO[i].equals(avro)) {
                return i;
            }
        }
        return -1;
    }

    void write(RowData row, PackedWriter out) {
        for (int i = 0; i < this.columns.length; i++) {
            int column = this.columns[i];
            if (this.nulls[i] >= 0) {
                boolean isNull = row.isNullAt(column);
                out.put((long) (isNull ? this.nulls[i] : 1 - this.nulls[i]));
                if (isNull) {
                    continue;
                }
            }
            switch (this.types[i]) {
                case TEXT:
                    out.putSome(row.getString(column).toBytes());
                    break;
                case BYTES:
                    out.putSome(row.getBinary(column));
                    break;
                case LONG:
                    out.put(row.getLong(column));
                    break;
                case INT:
                    out.put((long) row.getInt(column));
                    break;
                default:
                    out.put(row.getBoolean(column));
            }
        }
    }
}
