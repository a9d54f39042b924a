// The connector `side-input`: a bounded table for look-ups, read from a file of lines `key,number` into a map when a task
// starts. So did Flink's old CSV source, which Nexmark's query 13 is written for and which Flink 2 has no longer; its file
// system connector can't be looked up in.
package headwater;

import java.util.HashSet;
import java.util.Set;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.connector.source.LookupTableSource;
import org.apache.flink.table.connector.source.lookup.LookupFunctionProvider;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.DynamicTableSourceFactory;
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
