// Keeps the last row of each key for a moment; the operator behind the connector `absolute-kafka` (AbsoluteKafkaSink.java).
package headwater;

import java.util.HashMap;
import java.util.Iterator;
import java.util.Map;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryStringData;

/** Gives (key, value) as bytes. */
final class LatestOperator extends HoldingOperator {
    private static final long serialVersionUID = 1L;
    /** Keys that are written though it is not time yet: a bound of memory. */
    private static final int MOST_KEYS = 10000;

    private final int key;
    private final AvroValues values;

    private transient Map latest;

    LatestOperator(int key, AvroValues values, long intervalMs) {
        super(intervalMs);
        this.key = key;
        this.values = values;
    }

    public void open() throws Exception {
        super.open();
        begin();
    }

    void begin() throws Exception {
        this.values.open();
        this.latest = new HashMap();
    }

    public void processElement(StreamRecord element) throws Exception {
        RowData row = (RowData) element.getValue();
        BinaryStringData key = (BinaryStringData) row.getString(this.key);
        Latest last = (Latest) this.latest.get(key);
        if (last == null) {
            last = new Latest();
            this.latest.put(key.copy(), last);
        }
        last.value = this.values.of(row);
        if (this.latest.size() >= MOST_KEYS) {
            flush();
        } else {
            hold();
        }
    }

    void flush() {
        for (Iterator all = this.latest.entrySet().iterator(); all.hasNext();) {
            Map.Entry one = (Map.Entry) all.next();
            byte[] key = ((BinaryStringData) one.getKey()).toBytes();
            this.output.collect(this.values.record(key, ((Latest) one.getValue()).value));
        }
        this.latest.clear();
    }

    private static final class Latest {
        byte[] value;
    }
}
