// State of a function: a map to packed bytes, of which an entry is kept for a time after its last change.
package headwater;

import java.time.Duration;
import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.StateTypeStrategy;

/** The time is in seconds, given by the call's argument at a position. */
final class MapKeptFor implements StateTypeStrategy {
    private final DataType key;
    private final int argument;

    MapKeptFor(DataType key, int argument) {
        this.key = key;
        this.argument = argument;
    }

    public Optional inferType(CallContext context) {
        return Optional.of(MapView.newMapViewDataType(this.key, DataTypes.BYTES()));
    }

    public Optional getTimeToLive(CallContext context) {
        Optional seconds = context.getArgumentValue(this.argument, Integer.class);
        return seconds.isPresent()
                ? Optional.of(Duration.ofSeconds(((Integer) seconds.get()).longValue()))
                : Optional.empty();
    }
}
