// The format `row-avro-confluent`: Avro in the Confluent wire format, decoded straight into Flink's rows.
//
// Why not avro-confluent. It makes an Avro record of every field, with a String for each text, and converts that to a
// row: more CPU than all queries on it together. And it can't go on after a record that does not decode, but ends the
// job, again after each restart; bytes left over after a record it takes for the beginning of the next one.
// Here only the columns that the table declares are decoded, a text is a view of the message's bytes, and a record that
// does not decode is skipped and counted (metric `undecodable`); the lake's worker writes its dead letter.
// A registry that does not answer says nothing about a record: then the job fails and tries again.
//
// Writers may use any version of the schema: fields are found by name in the writer's schema (by the id in the
// message), and what it has not gets the default of the reader's schema (option `schema`). Source: Avro 1.12
// specification, "Binary Encoding" and "Schema Resolution"; promotions are int to long and float to double.
// Metadata: `raw` is the whole message, `schema_id` the id in its header, `packed` the fields of options `packed.texts`
// and `packed.numbers` as one value (PackedFields.java), and the names in option `texts` (RowAvroTexts.java).
//
// Compiled by connectors/flink/java_jar.py with the compiler inside Flink (Janino: Java 8 without lambdas; generic
// types are read but not checked), because the runtime that the project installs has none.
package headwater;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.ConfigOption;
import org.apache.flink.configuration.ConfigOptions;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.metrics.Counter;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.format.DecodingFormat;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.factories.DeserializationFormatFactory;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.table.types.utils.DataTypeUtils;

public final class RowAvroFormat implements DeserializationFormatFactory {
    static final ConfigOption URL = ConfigOptions.key("url").stringType().noDefaultValue();
    static final ConfigOption SCHEMA = ConfigOptions.key("schema").stringType().noDefaultValue();
    static final ConfigOption PACKED_TEXTS = ConfigOptions.key("packed.texts").stringType().defaultValue("");
    static final ConfigOption PACKED_NUMBERS = ConfigOptions.key("packed.numbers").stringType().defaultValue("");
    static final ConfigOption TEXTS = ConfigOptions.key("texts").stringType().defaultValue("");

    public String factoryIdentifier() {
        return "row-avro-confluent";
    }

    public Set requiredOptions() {
        Set options = new HashSet();
        options.add(URL);
        options.add(SCHEMA);
        return options;
    }

    public Set optionalOptions() {
        Set options = new HashSet();
        options.add(PACKED_TEXTS);
        options.add(PACKED_NUMBERS);
        options.add(TEXTS);
        return options;
    }

    public DecodingFormat createDecodingFormat(DynamicTableFactory.Context context, ReadableConfig options) {
        RowAvroPacking packing =
                new RowAvroPacking(names((String) options.get(PACKED_TEXTS)), names((String) options.get(PACKED_NUMBERS)));
        RowAvroTexts texts = new RowAvroTexts(names((String) options.get(TEXTS)));
        return new RowAvroDecoding((String) options.get(URL), (String) options.get(SCHEMA), packing, texts);
    }

    /** The names in a list with commas between them. */
    static String[] names(String list) {
        return list == null || list.isEmpty() ? new String[0] : list.split(",");
    }
}

final class RowAvroDecoding implements DecodingFormat {
    private final String url;
    private final String readerSchema;
    private final RowAvroPacking packing;
    private final RowAvroTexts texts;
    private List metadata = Collections.emptyList();

    RowAvroDecoding(String url, String readerSchema, RowAvroPacking packing, RowAvroTexts texts) {
        this.url = url;
        this.readerSchema = readerSchema;
        this.packing = packing;
        this.texts = texts;
    }

    public Map listReadableMetadata() {
        Map columns = new LinkedHashMap();
        columns.put("raw", DataTypes.BYTES().notNull());
        columns.put("schema_id", DataTypes.INT().notNull());
        columns.put("packed", DataTypes.BYTES().notNull());
        for (int i = 0; i < this.texts.names.length; i++) {
            DataType type = DataTypes.STRING();
            columns.put(this.texts.names[i], this.texts.isJoined(i) ? type.notNull() : type);
        }
        return columns;
    }

    public void applyReadableMetadata(List keys) {
        this.metadata = keys;
    }

    public Object createRuntimeDecoder(DynamicTableSource.Context context, DataType type) {
        List fields = ((RowType) type.getLogicalType()).getFields();
        String[] names = new String[fields.size()];
        boolean[] wide = new boolean[fields.size()];
        for (int i = 0; i < names.length; i++) {
            RowType.RowField field = (RowType.RowField) fields.get(i);
            names[i] = field.getName();
            String root = field.getType().getTypeRoot().name();
            wide[i] = root.equals("BIGINT") || root.equals("DOUBLE");
        }
        List appended = new ArrayList();
        for (Iterator keys = this.metadata.iterator(); keys.hasNext();) {
            String key = (String) keys.next();
            appended.add(DataTypes.FIELD(key, (DataType) listReadableMetadata().get(key)));
        }
        DataType produced = DataTypeUtils.appendRowFields(type, appended);
        String[] keys = (String[]) this.metadata.toArray(new String[0]);
        return new RowAvroDecoder(
                this.url,
                this.readerSchema,
                names,
                wide,
                this.packing,
                this.texts,
                keys,
                context.createTypeInformation(produced));
    }

    public ChangelogMode getChangelogMode() {
        return ChangelogMode.insertOnly();
    }
}

/** Decodes messages; one per subtask, not shared by threads. */
final class RowAvroDecoder implements DeserializationSchema {
    private static final long serialVersionUID = 1L;
    private static final long ASK_AGAIN_MS = 1000;

    private final String url;
    private final String readerSchema;
    private final String[] names;
    private final boolean[] wide;
    private final RowAvroPacking packing;
    private final RowAvroTexts texts;
    private final String[] metadata;
    private final TypeInformation produced;

    /** Which metadata the plan does not fill in by itself, as it does the texts. */
    private transient int[] aboutMessage;
    private transient Counter undecodable;
    private transient Map plans;
    private transient Map unknownSince;
    private transient int lastId;
    private transient RowAvroPlan lastPlan;

    RowAvroDecoder(
            String url,
            String readerSchema,
            String[] names,
            boolean[] wide,
            RowAvroPacking packing,
            RowAvroTexts texts,
            String[] metadata,
            TypeInformation produced) {
        this.url = url;
        this.readerSchema = readerSchema;
        this.names = names;
        this.wide = wide;
        this.packing = packing;
        this.texts = texts;
        this.metadata = metadata;
        this.produced = produced;
    }

    public void open(DeserializationSchema.InitializationContext context) throws Exception {
        int count = 0;
        int[] found = new int[this.metadata.length];
        for (int i = 0; i < found.length; i++) {
            if (this.texts.indexOf(this.metadata[i]) < 0) {
                found[count++] = i;
            }
        }
        this.aboutMessage = Arrays.copyOf(found, count);
        this.undecodable = context.getMetricGroup().counter("undecodable");
        this.plans = new HashMap();
        this.unknownSince = new HashMap();
        this.lastPlan = null;
    }

    public Object deserialize(byte[] message) throws IOException {
        if (message != null && message.length >= RegistrySubject.HEADER_BYTES && message[0] == 0) {
            int id = ((message[1] & 0xFF) << 24) | ((message[2] & 0xFF) << 16) | ((message[3] & 0xFF) << 8)
                    | (message[4] & 0xFF);
            RowAvroPlan plan = id == this.lastId && this.lastPlan != null ? this.lastPlan : planOf(id);
            if (plan != null) {
                this.lastId = id;
                this.lastPlan = plan;
                int columns = this.names.length;
                GenericRowData row = new GenericRowData(columns + this.metadata.length);
                if (plan.decode(message, RegistrySubject.HEADER_BYTES, row)) {
                    for (int i = 0; i < this.aboutMessage.length; i++) {
                        int at = this.aboutMessage[i];
                        row.setField(columns + at, metadata(this.metadata[at], message, id, plan));
                    }
                    return row;
                }
            }
        }
        this.undecodable.inc();
        return null;
    }

    private static Object metadata(String key, byte[] message, int id, RowAvroPlan plan) {
        return key.equals("raw") ? message : key.equals("packed") ? (Object) plan.packed() : Integer.valueOf(id);
    }

    /** The plan of a writer's schema, or null when the registry does not know the id. */
    private RowAvroPlan planOf(int id) throws IOException {
        Integer key = Integer.valueOf(id);
        RowAvroPlan plan = (RowAvroPlan) this.plans.get(key);
        if (plan != null) {
            return plan;
        }
        Long since = (Long) this.unknownSince.get(key);
        if (since != null && System.currentTimeMillis() - since.longValue() < ASK_AGAIN_MS) {
            return null;
        }
        String writerSchema = RegistrySubject.schemaOf(this.url, id);
        if (writerSchema == null) {
            if (this.unknownSince.size() > 10000) {
                this.unknownSince.clear();
            }
            this.unknownSince.put(key, Long.valueOf(System.currentTimeMillis()));
            return null;
        }
        ObjectMapper json = new ObjectMapper();
        plan = new RowAvroLayout(
                        (JsonNode) json.readTree(writerSchema),
                        (JsonNode) json.readTree(this.readerSchema),
                        this.names,
                        this.wide,
                        this.packing,
                        this.texts,
                        textColumns())
                .plan();
        this.plans.put(key, plan);
        return plan;
    }

    /** Where in a row each text goes; -1: nowhere. */
    private int[] textColumns() {
        int[] columns = new int[this.texts.names.length];
        for (int i = 0; i < columns.length; i++) {
            int at = Arrays.asList(this.metadata).indexOf(this.texts.names[i]);
            columns[i] = at < 0 ? -1 : this.names.length + at;
        }
        return columns;
    }

    public boolean isEndOfStream(Object row) {
        return false;
    }

    public TypeInformation getProducedType() {
        return this.produced;
    }
}
