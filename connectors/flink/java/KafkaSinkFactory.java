// What our Kafka connectors have in common: some options are their own, every other one is the `kafka` connector's.
package headwater;

import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.Map;
import java.util.Set;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.connector.sink.DynamicTableSink;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.DynamicTableSinkFactory;
import org.apache.flink.table.types.logical.RowType;

/** The connector `NAME-kafka`: options that begin with `NAME.` are its own. */
public abstract class KafkaSinkFactory implements DynamicTableSinkFactory {
    private static final String KAFKA = "kafka";
    static final String TEXT = "VARCHAR";
    static final String BYTES = "VARBINARY";

    private final String name;
    private final String[] needed;

    /** `needed` are those of its own options that must be there. */
    KafkaSinkFactory(String name, String[] needed) {
        this.name = name;
        this.needed = needed;
    }

    /**
     * The sink of a table with columns `row`, by its own options; `connector` and `others` are what writes, and its
     * options.
     */
    abstract DynamicTableSink sink(
            DynamicTableFactory.Context context, RowType row, Map own, String connector, Map others);

    public String factoryIdentifier() {
        return this.name + "-kafka";
    }

    public Set requiredOptions() {
        return new HashSet();
    }

    public Set optionalOptions() {
        return new HashSet();
    }

    public DynamicTableSink createDynamicTableSink(DynamicTableFactory.Context context) {
        return sink(context, KAFKA);
    }

    /**
     * Writes to a connector: Kafka but in tests, whose class loader may be another. Errors: ValidationException when an
     * option is not there.
     */
    public final DynamicTableSink sink(DynamicTableFactory.Context context, String connector) {
        Map own = new HashMap();
        Map others = new HashMap();
        String prefix = this.name + ".";
        for (Iterator all = context.getCatalogTable().getOptions().entrySet().iterator(); all.hasNext();) {
            Map.Entry option = (Map.Entry) all.next();
            String key = (String) option.getKey();
            if (key.startsWith(prefix)) {
                own.put(key.substring(prefix.length()), option.getValue());
            } else {
                others.put(key, option.getValue());
            }
        }
        for (int i = 0; i < this.needed.length; i++) {
            if (own.get(this.needed[i]) == null) {
                throw new ValidationException(factoryIdentifier() + ": no option " + prefix + this.needed[i]);
            }
        }
        return sink(context, (RowType) context.getPhysicalRowDataType().getLogicalType(), own, connector, others);
    }

    /** The column that option `key` names. Errors: ValidationException when there is none of one of these types. */
    final int keyColumn(RowType row, Map own, String[] types) {
        int key = row.getFieldIndex((String) own.get("key"));
        for (int i = 0; key >= 0 && i < types.length; i++) {
            if (row.getTypeAt(key).getTypeRoot().name().equals(types[i])) {
                return key;
            }
        }
        throw new ValidationException(
                factoryIdentifier() + ": the key is no column of type " + String.join(" or ", types) + ": " + own.get("key"));
    }

    static long number(Map own, String name) {
        return Long.parseLong((String) own.get(name));
    }
}
