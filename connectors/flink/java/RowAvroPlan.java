// How RowAvroFormat decodes: a walk over the writer's schema that keeps what the table wants and steps over the rest.
package headwater;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.GenericMapData;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;

/** A type of the writer's schema. */
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

/** How records of one writer's schema become rows of one table. */
final class RowAvroPlan {
    /** Ends the decoding of a record; without a stack, because a flood of bad records must stay cheap. */
    private static final class Undecodable extends RuntimeException {
        Undecodable() {
            super("", null, false, false);
        }
    }

    private static final Undecodable UNDECODABLE = new Undecodable();
    private static final long NOT_ASCII = 0x8080808080808080L;

    private final RowAvroType[] types;
    private final int[] columns;
    private final boolean[] wide;
    private final int[] absent;
    private final Object[] defaults;

    private byte[] buffer;
    private MemorySegment[] segments;
    private int position;

    RowAvroPlan(JsonNode writer, JsonNode reader, String[] names, boolean[] wide) {
        Map named = new HashMap();
        Map columnOf = new HashMap();
        for (int i = 0; i < names.length; i++) {
            columnOf.put(names[i], Integer.valueOf(i));
        }
        JsonNode fields = (JsonNode) writer.get("fields");
        this.types = new RowAvroType[fields.size()];
        this.columns = new int[fields.size()];
        this.wide = new boolean[fields.size()];
        for (int i = 0; i < this.types.length; i++) {
            this.types[i] = RowAvroType.of(RowAvroType.part(fields, i, "type"), named);
            Integer column = (Integer) columnOf.remove(RowAvroType.part(fields, i, "name").asText());
            this.columns[i] = column == null ? -1 : column.intValue();
            this.wide[i] = column != null && wide[column.intValue()];
        }
        this.absent = new int[columnOf.size()];
        this.defaults = new Object[columnOf.size()];
        Iterator rest = columnOf.entrySet().iterator();
        for (int i = 0; rest.hasNext(); i++) {
            Map.Entry column = (Map.Entry) rest.next();
            this.absent[i] = ((Integer) column.getValue()).intValue();
            this.defaults[i] = defaultOf(reader, (String) column.getKey(), wide[this.absent[i]]);
        }
    }

    private static Object defaultOf(JsonNode reader, String name, boolean wide) {
        JsonNode fields = (JsonNode) reader.get("fields");
        for (int i = 0; i < fields.size(); i++) {
            if (RowAvroType.part(fields, i, "name").asText().equals(name)) {
                JsonNode value = RowAvroType.part(fields, i, "default");
                if (value == null) {
                    throw new ValidationException("the writer has no field " + name + " and the reader no default");
                } else if (value.isNull()) {
                    return null;
                } else if (value.isTextual()) {
                    return BinaryStringData.fromString(value.asText());
                } else if (value.isBoolean()) {
                    return Boolean.valueOf(value.asBoolean());
                } else if (value.isIntegralNumber()) {
                    return wide ? (Object) Long.valueOf(value.asLong()) : (Object) Integer.valueOf(value.asInt());
                } else if (value.isNumber()) {
                    return Double.valueOf(value.asDouble());
                } else if (value.isArray()) {
                    return new GenericArrayData(new Object[0]);
                }
                return new GenericMapData(new HashMap());
            }
        }
        throw new ValidationException("the reader's schema has no field " + name);
    }

    /** Fills the row's columns; false when the bytes are not exactly one record. */
    boolean decode(byte[] message, int from, GenericRowData row) {
        this.buffer = message;
        this.segments = null;
        this.position = from;
        try {
            for (int i = 0; i < this.types.length; i++) {
                if (this.columns[i] < 0) {
                    skip(this.types[i]);
                } else {
                    row.setField(this.columns[i], read(this.types[i], this.wide[i]));
                }
            }
        } catch (Undecodable e) {
            return false;
        } catch (ArrayIndexOutOfBoundsException e) {
            return false;
        } finally {
            this.buffer = null;
        }
        for (int i = 0; i < this.absent.length; i++) {
            row.setField(this.absent[i], this.defaults[i]);
        }
        return this.position == message.length;
    }

    private void skip(RowAvroType type) {
        switch (type.kind) {
            case RowAvroType.NULL:
                return;
            case RowAvroType.BOOLEAN:
                advance(1);
                return;
            case RowAvroType.INT:
            case RowAvroType.LONG:
            case RowAvroType.ENUM:
                readLong();
                return;
            case RowAvroType.FLOAT:
                advance(4);
                return;
            case RowAvroType.DOUBLE:
                advance(8);
                return;
            case RowAvroType.FIXED:
                advance(type.size);
                return;
            case RowAvroType.BYTES:
            case RowAvroType.STRING:
                advance(readLong());
                return;
            case RowAvroType.UNION:
                skip(branch(type));
                return;
            case RowAvroType.RECORD:
                for (int i = 0; i < type.parts.length; i++) {
                    skip(type.parts[i]);
                }
                return;
            default:
                for (long count = blockCount(); count != 0; count = blockCount()) {
                    for (long i = 0; i < count; i++) {
                        if (type.kind == RowAvroType.MAP) {
                            advance(readLong());
                        }
                        skip(type.items);
                    }
                }
        }
    }

    private Object read(RowAvroType type, boolean wide) {
        switch (type.kind) {
            case RowAvroType.NULL:
                return null;
            case RowAvroType.BOOLEAN:
                int from = advance(1);
                if (this.buffer[from] != 0 && this.buffer[from] != 1) {
                    throw UNDECODABLE;
                }
                return Boolean.valueOf(this.buffer[from] == 1);
            case RowAvroType.INT:
            case RowAvroType.LONG:
                long number = readLong();
                if (wide) {
                    return Long.valueOf(number);
                }
                if (number != (int) number) {
                    throw UNDECODABLE;
                }
                return Integer.valueOf((int) number);
            case RowAvroType.FLOAT:
                float single = Float.intBitsToFloat((int) littleEndian(4));
                return wide ? (Object) Double.valueOf(single) : (Object) Float.valueOf(single);
            case RowAvroType.DOUBLE:
                return Double.valueOf(Double.longBitsToDouble(littleEndian(8)));
            case RowAvroType.BYTES:
                return bytes((int) length());
            case RowAvroType.FIXED:
                return bytes(type.size);
            case RowAvroType.STRING:
                return text();
            case RowAvroType.UNION:
                return read(branch(type), wide);
            case RowAvroType.ARRAY:
                List items = new ArrayList();
                for (long count = blockCount(); count != 0; count = blockCount()) {
                    for (long i = 0; i < count; i++) {
                        items.add(read(type.items, wide));
                    }
                }
                return new GenericArrayData(items.toArray());
            case RowAvroType.MAP:
                Map entries = new LinkedHashMap();
                for (long count = blockCount(); count != 0; count = blockCount()) {
                    for (long i = 0; i < count; i++) {
                        StringData key = text();
                        entries.put(key, read(type.items, wide));
                    }
                }
                return new GenericMapData(entries);
            default:
                throw new ValidationException("records and enums of a record are not read into columns");
        }
    }

    private RowAvroType branch(RowAvroType union) {
        long index = readLong();
        if (index < 0 || index >= union.parts.length) {
            throw UNDECODABLE;
        }
        return union.parts[(int) index];
    }

    /** Number of items in the next block; 0 at the end. An item needs a byte at least, or a count could be anything. */
    private long blockCount() {
        long count = readLong();
        if (count < 0) {
            readLong();
            count = -count;
        }
        if (count < 0 || count > this.buffer.length - this.position) {
            throw UNDECODABLE;
        }
        return count;
    }

    private StringData text() {
        int size = (int) length();
        int from = advance(size);
        if (this.segments == null) {
            this.segments = new MemorySegment[] {MemorySegmentFactory.wrap(this.buffer)};
        }
        if (!isAscii(from, size)) {
            requireUtf8(from, size);
        }
        return new BinaryStringData(this.segments, from, size);
    }

    private boolean isAscii(int from, int size) {
        int end = from + size;
        int at = from;
        for (; at + 8 <= end; at += 8) {
            if ((this.segments[0].getLong(at) & NOT_ASCII) != 0) {
                return false;
            }
        }
        byte any = 0;
        for (; at < end; at++) {
            any |= this.buffer[at];
        }
        return any >= 0;
    }

    private void requireUtf8(int from, int size) {
        try {
            StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(this.buffer, from, size));
        } catch (CharacterCodingException e) {
            throw UNDECODABLE;
        }
    }

    private byte[] bytes(int size) {
        int from = advance(size);
        byte[] copy = new byte[size];
        System.arraycopy(this.buffer, from, copy, 0, size);
        return copy;
    }

    private long length() {
        long size = readLong();
        if (size < 0 || size > this.buffer.length - this.position) {
            throw UNDECODABLE;
        }
        return size;
    }

    /** Moves on by `size` bytes; gives the position before. */
    private int advance(long size) {
        if (size < 0 || size > this.buffer.length - this.position) {
            throw UNDECODABLE;
        }
        int from = this.position;
        this.position = from + (int) size;
        return from;
    }

    private long readLong() {
        byte first = this.buffer[this.position];
        if (first >= 0) {
            this.position++;
            return (first >>> 1) ^ -(first & 1);
        }
        int shift = 0;
        long bits = 0;
        while (shift < 70) {
            byte part = this.buffer[this.position++];
            bits |= (long) (part & 0x7F) << shift;
            if (part >= 0) {
                return (bits >>> 1) ^ -(bits & 1);
            }
            shift += 7;
        }
        throw UNDECODABLE;
    }

    private long littleEndian(int size) {
        int from = advance(size);
        long bits = 0;
        for (int i = size - 1; i >= 0; i--) {
            bits = (bits << 8) | (this.buffer[from + i] & 0xFF);
        }
        return bits;
    }
}
