// Which field of a writer's schema goes into which column of a table, and the code that decodes just that.
//
// The code is a class of one call per field, made when a schema is first seen: a walk over the types for every field of
// every event was a fifth of a job's CPU.
package headwater;

import java.io.Serializable;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.GenericMapData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.codehaus.janino.SimpleCompiler;

final class RowAvroLayout {
    private static final String CLASS = "headwater.generated.Plan";
    /** Fields in one method: small enough to be compiled well. */
    private static final int FIELDS = 12;
    /** Code to its class. */
    private static final Map COMPILED = new HashMap();
    private static final int KEPT_CLASSES = 100;

    final RowAvroType[] types;
    final boolean[] wide;
    final int[] absent;
    final Object[] defaults;
    final RowAvroPacking packing;
    final RowAvroTexts texts;
    /** Column of each field; -1: not wanted. */
    private final int[] columns;
    /** Place of each field among the packed ones; -1: not packed. */
    private final int[] slots;
    /** Column of each of `texts`; -1: not wanted. */
    private final int[] textColumns;
    private final String[] fieldNames;

    RowAvroLayout(
            JsonNode writer,
            JsonNode reader,
            String[] names,
            boolean[] wide,
            RowAvroPacking packing,
            RowAvroTexts texts,
            int[] textColumns) {
        Map named = new HashMap();
        Map columnOf = new HashMap();
        for (int i = 0; i < names.length; i++) {
            columnOf.put(names[i], Integer.valueOf(i));
        }
        JsonNode fields = (JsonNode) writer.get("fields");
        this.types = new RowAvroType[fields.size()];
        this.columns = new int[fields.size()];
        this.slots = new int[fields.size()];
        this.wide = new boolean[fields.size()];
        this.fieldNames = new String[fields.size()];
        this.texts = texts;
        this.textColumns = textColumns;
        Set written = new HashSet();
        for (int i = 0; i < this.types.length; i++) {
            this.types[i] = RowAvroType.of(RowAvroType.part(fields, i, "type"), named);
            String name = RowAvroType.part(fields, i, "name").asText();
            written.add(name);
            this.fieldNames[i] = name;
            this.slots[i] = packing.slot(name);
            Integer column = (Integer) columnOf.remove(name);
            this.columns[i] = column == null ? -1 : column.intValue();
            this.wide[i] = column != null && wide[column.intValue()];
        }
        this.packing = packing.where(written, reader);
        Map absentOnes = new LinkedHashMap();
        for (Iterator rest = columnOf.entrySet().iterator(); rest.hasNext();) {
            Map.Entry column = (Map.Entry) rest.next();
            boolean isWide = wide[((Integer) column.getValue()).intValue()];
            absentOnes.put(column.getValue(), defaultOf(reader, (String) column.getKey(), isWide));
        }
        for (int i = 0; i < textColumns.length; i++) {
            if (textColumns[i] >= 0 && !written.contains(texts.fields[i])) {
                absentOnes.put(Integer.valueOf(textColumns[i]), texts.of(i, defaultNode(reader, texts.fields[i])));
            }
        }
        this.absent = new int[absentOnes.size()];
        this.defaults = absentOnes.values().toArray();
        Iterator positions = absentOnes.keySet().iterator();
        for (int i = 0; positions.hasNext(); i++) {
            this.absent[i] = ((Integer) positions.next()).intValue();
        }
    }

    static Object defaultOf(JsonNode reader, String name, boolean wide) {
        JsonNode value = defaultNode(reader, name);
        if (value.isNull()) {
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

    private static JsonNode defaultNode(JsonNode reader, String name) {
        JsonNode fields = (JsonNode) reader.get("fields");
        for (int i = 0; i < fields.size(); i++) {
            if (RowAvroType.part(fields, i, "name").asText().equals(name)) {
                JsonNode value = RowAvroType.part(fields, i, "default");
                if (value == null) {
                    throw new ValidationException("the writer has no field " + name + " and the reader no default");
                }
                return value;
            }
        }
        throw new ValidationException("the reader's schema has no field " + name);
    }

    /** Something that decodes records of this layout; each subtask has its own. */
    RowAvroPlan plan() {
        try {
            RowAvroPlan plan = (RowAvroPlan) compiled(code()).newInstance();
            plan.use(this);
            return plan;
        } catch (Exception e) {
            throw new IllegalStateException("no decoder could be compiled: " + e, e);
        }
    }

    /** The class of some code: the same for all subtasks and deployments, so that the JVM compiles it once. */
    private static Class compiled(String code) throws Exception {
        synchronized (COMPILED) {
            Class known = (Class) COMPILED.get(code);
            if (known == null) {
                SimpleCompiler compiler = new SimpleCompiler();
                compiler.setParentClassLoader(RowAvroPlan.class.getClassLoader());
                compiler.cook(code);
                known = compiler.getClassLoader().loadClass(CLASS);
                if (COMPILED.size() >= KEPT_CLASSES) {
                    COMPILED.clear();
                }
                COMPILED.put(code, known);
            }
            return known;
        }
    }

    private String code() {
        StringBuilder calls = new StringBuilder();
        StringBuilder methods = new StringBuilder();
        for (int from = 0; from < this.types.length; from += FIELDS) {
            calls.append("    p = fields").append(from).append("(b, p, row);\n");
            methods.append("  private int fields").append(from).append("(byte[] b, int p, GenericRowData row) {\n");
            for (int i = from; i < Math.min(from + FIELDS, this.types.length); i++) {
                methods.append("    ").append(field(i)).append("\n");
            }
            methods.append("    return p;\n  }\n");
        }
        return "package headwater.generated;\n"
                + "import org.apache.flink.table.data.GenericRowData;\n"
                + "public final class Plan extends headwater.RowAvroPlan {\n"
                + "  protected int fields(byte[] b, int p, GenericRowData row) {\n"
                + calls + "    return p;\n  }\n" + methods + "}\n";
    }

    /** The statement that reads or steps over a field. */
    private String field(int i) {
        StringBuilder texts = new StringBuilder();
        RowAvroType type = this.types[i];
        for (int text = 0; text < this.textColumns.length; text++) {
            if (this.textColumns[text] >= 0 && this.texts.fields[text].equals(this.fieldNames[i])) {
                this.texts.requireTexts(text, type);
                texts.append(this.texts.isJoined(text) ? "joined(p, row, " : "entry(p, row, " + text + ", ")
                        .append(this.textColumns[text]).append("); ");
            }
        }
        return texts + reading(i, type);
    }

    private String reading(int i, RowAvroType type) {
        if (type.kind == RowAvroType.UNION && type.parts.length == 2) {
            int absent = type.parts[0].kind == RowAvroType.NULL ? 0 : type.parts[1].kind == RowAvroType.NULL ? 1 : -1;
            String present = absent < 0 ? null : value(i, type.parts[1 - absent]);
            if (present != null) {
                return "if (present(b, p++, " + absent + ")) { " + present + " }";
            }
        }
        String value = value(i, type);
        if (value == null && this.slots[i] >= 0) {
            throw new ValidationException("only texts and integers can be packed");
        }
        return value != null ? value : "p = other(p, row, " + i + ", " + this.columns[i] + ");";
    }

    /** The statement for a value of a common type, or null. */
    private String value(int i, RowAvroType type) {
        int column = this.columns[i];
        String into = "(p, row, " + column + ");";
        switch (type.kind) {
            case RowAvroType.INT:
            case RowAvroType.LONG:
                return packed(i, "packNumber", "overNumber(b, p)", (this.wide[i] ? "p = wideNumber" : "p = number") + into);
            case RowAvroType.STRING:
                return packed(i, "packText", "overBytes(p)", "p = text" + into);
            case RowAvroType.BYTES:
                return this.slots[i] >= 0 ? null : column < 0 ? "p = overBytes(p);" : "p = bytes" + into;
            case RowAvroType.ARRAY:
            case RowAvroType.MAP:
                boolean ofTexts = type.items.kind == RowAvroType.STRING;
                int each = type.kind == RowAvroType.MAP ? 2 : 1;
                return column < 0 && this.slots[i] < 0 && ofTexts ? "p = overTexts(p, " + each + ");" : null;
            default:
                return null;
        }
    }

    /** Packs, reads into a column, or steps over: a field may be packed and a column. */
    private String packed(int i, String pack, String over, String intoColumn) {
        if (this.slots[i] < 0) {
            return this.columns[i] < 0 ? "p = " + over + ";" : intoColumn;
        }
        String call = pack + "(p, " + this.slots[i] + ");";
        return this.columns[i] < 0 ? "p = " + call : call + " " + intoColumn;
    }
}

/** Which fields are packed, texts before numbers, and what a record has that knows nothing of them. */
final class RowAvroPacking implements Serializable {
    private static final long serialVersionUID = 1L;

    final String[] texts;
    final String[] numbers;
    /** Of each text; null: null. */
    final byte[][] defaults;
    private final int[] starts;
    private final int[] slots;

    RowAvroPacking(String[] texts, String[] numbers) {
        this.texts = texts;
        this.numbers = numbers;
        this.defaults = new byte[texts.length][];
        this.starts = new int[texts.length];
        Arrays.fill(this.starts, -1);
        this.slots = new int[texts.length + numbers.length];
        Arrays.fill(this.slots, 0, texts.length, -1);
    }

    /** Place of a field; -1: it is not packed. */
    int slot(String name) {
        int text = Arrays.asList(this.texts).indexOf(name);
        int number = Arrays.asList(this.numbers).indexOf(name);
        return text >= 0 || number < 0 ? text : this.texts.length + number;
    }

    /** The same, for a writer that has only some fields. Errors: ValidationException for others without a default. */
    RowAvroPacking where(Set written, JsonNode reader) {
        RowAvroPacking known = new RowAvroPacking(this.texts, this.numbers);
        for (int i = 0; i < this.texts.length; i++) {
            Object value = written.contains(this.texts[i]) ? null : RowAvroLayout.defaultOf(reader, this.texts[i], false);
            if (value != null) {
                known.defaults[i] = ((BinaryStringData) value).toBytes();
                known.slots[i] = known.defaults[i].length;
            }
        }
        for (int i = 0; i < this.numbers.length; i++) {
            if (!written.contains(this.numbers[i])) {
                Object value = RowAvroLayout.defaultOf(reader, this.numbers[i], false);
                known.slots[this.texts.length + i] = ((Integer) value).intValue();
            }
        }
        return known;
    }

    /** Writes what a record has before any of its fields is read. */
    void begin(int[] starts, int[] slots) {
        System.arraycopy(this.starts, 0, starts, 0, starts.length);
        System.arraycopy(this.slots, 0, slots, 0, slots.length);
    }
}
