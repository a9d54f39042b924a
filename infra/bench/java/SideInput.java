// The connector `side-input`: a bounded table for look-ups, read from a file of lines `key,number` into a map when a task
// starts. So did Flink's old CSV source, which Nexmark's query 13 is written for and which Flink 2 has no longer; its file
// system connector can't be looked up in.
package headwater;

import java.io.BufferedReader;
import java.io.FileReader;
import java.io.IOException;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.connector.source.LookupTableSource;
import org.apache.flink.table.connector.source.lookup.LookupFunctionProvider;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.DynamicTableSourceFactory;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.LookupFunction;

public final class SideInput implements DynamicTableSourceFactory {
    public String factoryIdentifier() {
        return "side-input";
    }

    public Set requiredOptions() {
        return new HashSet();
    }

    public Set optionalOptions() {
        return new HashSet();
    }

    public DynamicTableSource createDynamicTableSource(DynamicTableFactory.Context context) {
        return new SideInputSource((String) context.getCatalogTable().getOptions().get("path"));
    }
}

final class SideInputSource implements LookupTableSource {
    private final String path;

    SideInputSource(String path) {
        this.path = path;
    }

    public LookupTableSource.LookupRuntimeProvider getLookupRuntimeProvider(LookupTableSource.LookupContext context) {
        return new SideInputProvider(this.path);
    }

    public DynamicTableSource copy() {
        return new SideInputSource(this.path);
    }

    public String asSummaryString() {
        return "side input";
    }
}

final class SideInputProvider implements LookupFunctionProvider {
    private final String path;

    SideInputProvider(String path) {
        this.path = path;
    }

    public LookupFunction createLookupFunction() {
        return new SideInputLookup(this.path);
    }
}

class SideInputLookup extends LookupFunction {
    private static final long serialVersionUID = 1L;

    private final String path;
    private transient Map rows;

    SideInputLookup(String path) {
        this.path = path;
    }

    public void open(FunctionContext context) throws Exception {
        this.rows = new HashMap();
        BufferedReader file = new BufferedReader(new FileReader(this.path));
        try {
            for (String line = file.readLine(); line != null; line = file.readLine()) {
                int comma = line.indexOf(',');
                BinaryStringData key = BinaryStringData.fromString(line.substring(0, comma));
                RowData row = GenericRowData.of(new Object[] {key, Long.valueOf(line.substring(comma + 1))});
                this.rows.put(key, Collections.singletonList(row));
            }
        } finally {
            file.close();
        }
    }

    public Collection lookup(RowData key) throws IOException {
        Collection found = (Collection) this.rows.get(key.getString(0));
        return found == null ? Collections.EMPTY_LIST : found;
    }
}
