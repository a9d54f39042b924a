// An operator that holds what it has made of its input for a moment, and gives it all at once: when the moment is over,
// before each checkpoint's barrier, and at the end. So nothing is held across a checkpoint, and no state is needed.
package headwater;

import org.apache.flink.api.common.operators.ProcessingTimeService;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;

abstract class HoldingOperator extends AbstractStreamOperator
        implements OneInputStreamOperator, ProcessingTimeService.ProcessingTimeCallback {
    private static final long serialVersionUID = 1L;
    /** No moment: until the next barrier. */
    static final long UNTIL_BARRIER = Long.MAX_VALUE;

    private final long holdMs;
    private transient boolean waiting;

    HoldingOperator(long holdMs) {
        this.holdMs = holdMs;
    }

    /** Gives all that is held. */
    abstract void flush() throws Exception;

    /** To be called when something is held. */
    final void hold() {
        if (!this.waiting && this.holdMs != UNTIL_BARRIER) {
            long nowMs = getProcessingTimeService().getCurrentProcessingTime();
            getProcessingTimeService().registerTimer((nowMs / this.holdMs + 1) * this.holdMs, this);
            this.waiting = true;
        }
    }

    public void onProcessingTime(long timeMs) throws Exception {
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
}
