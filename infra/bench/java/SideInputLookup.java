// The rows of a side input (SideInput.java), in memory.
package headwater;

import java.io.BufferedReader;
import java.io.FileReader;
import java.io.IOException;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.functions.FunctionContext;
import org.apache.flink.table.functions.LookupFunction;

public class SideInputLookup extends LookupFunction {
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
