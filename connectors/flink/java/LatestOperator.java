// Keeps the last row of each key for a moment; the operator behind the connector `absolute-kafka` (AbsoluteKafkaSink.java).
package headwater;

import java.util.Arrays;
import java.util.HashMap;
import java.util.Iterator;
import java.util.Map;
import org.apache.flink.api.common.operators.ProcessingTimeService;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryStringData;

/** Gives (key, value) as bytes; the value in the Confluent wire format. */
final class LatestOperator extends AbstractStreamOperator
        implements OneInputStreamOperator, ProcessingTimeService.ProcessingTimeCallback {
    private static final long serialVersionUID = 1L;
    /** Keys that are written though it is not time yet: a bound of memory. */
    private static final int MOST_KEYS = 10000;

    private final int key;
    private final RowAvroWriter writer;
    private final RegistrySubject subject;
    private final long intervalMs;

    private transient Map latest;
    private transient PackedWriter value;
    private transient StreamRecord out;
    private transient boolean waiting;

    LatestOperator(int key, RowAvroWriter writer, RegistrySubject subject, long intervalMs) {
        this.key = key;
        this.writer = writer;
        this.subject = subject;
        this.intervalMs = intervalMs;
    }

    public void open() throws Exception {
        super.open();
        begin(this.subject.schemaId());
    }

    void begin(int schemaId) {
        this.latest = new HashMap();
        this.value = new PackedWriter(256);
        byte[] header = RegistrySubject.header(schemaId);
        this.value.put(header, 0, header.length);
        this.out = new StreamRecord(null);
        this.waiting = false;
    }

    public void processElement(StreamRecord element) throws Exception {
        RowData row = (RowData) element.getValue();
        this.value.position = RegistrySubject.HEADER_BYTES;
        this.writer.write(row, this.value);
        BinaryStringData key = (BinaryStringData) row.getString(this.key);
        Latest last = (Latest) this.latest.get(key);
        if (last == null) {
            last = new Latest();
            this.latest.put(key.copy(), last);
        }
        last.value = Arrays.copyOf(this.value.bytes, this.value.position);
        if (this.latest.size() >= MOST_KEYS) {
            flush();
        } else if (!this.waiting) {
            long nowMs = getProcessingTimeService().getCurrentProcessingTime();
            getProcessingTimeService().registerTimer((nowMs / this.intervalMs + 1) * this.intervalMs, this);
            this.waiting = true;
        }
    }

    public void onProcessingTime(long timeMs) {
        this.waiting = false;
        flush();
    }

    public void prepareSnapshotPreBarrier(long checkpoint) throws Exception {
        flush();
    }

    public void finish() throws Exception {
        flush();
        super.finish();
    }

    private void flush() {
        for (Iterator all = this.latest.entrySet().iterator(); all.hasNext();) {
            Map.Entry one = (Map.Entry) all.next();
            byte[] key = ((BinaryStringData) one.getKey()).toBytes();
            this.out.replace(GenericRowData.of(new Object[] {key, ((Latest) one.getValue()).value}));
            this.output.collect(this.out);
        }
        this.latest.clear();
    }

    private static final class Latest {
        byte[] value;
    }
}
