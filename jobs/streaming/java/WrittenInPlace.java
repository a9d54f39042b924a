// Writes bytes of state that may be the very array that the state has handed out.
//
// The heap's state hands out what it keeps, a copy first if a checkpoint is being written (CopyOnWriteStateMap.get): what is
// changed in that array is changed in the state, and writing it back is a second look-up that changes nothing. RocksDB hands
// out a copy each time. Which one it is shows when the same key is asked for twice. Flink's changelog would have to be told
// of each write, so the application leaves it off (application.py).
package headwater;

import org.apache.flink.table.api.dataview.MapView;

/** One per state and subtask. */
final class WrittenInPlace {
    private boolean asked;
    private boolean handsOutItsOwn;

    /** `found` is what the state gave for the key, null for nothing. */
    void put(MapView state, Object key, byte[] found, byte[] bytes) throws Exception {
        if (found == bytes && this.handsOutItsOwn) {
            return;
        }
        state.put(key, bytes);
        if (!this.asked) {
            this.asked = true;
            this.handsOutItsOwn = state.get(key) == bytes;
        }
    }
}
