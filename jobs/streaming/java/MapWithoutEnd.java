// State of a function that clears it by itself: a map to packed bytes. Flink's own clearing looks at every entry of
// some maps at each access, which is too much for maps that grow.
package headwater;

import java.time.Duration;
import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.StateTypeStrategy;

/** Zero is Flink's way to say that state is kept for ever. */
final class MapWithoutEnd implements StateTypeStrategy {
    private final DataType key;

    MapWithoutEnd(DataType key) {
        this.key = key;
    }

    public Optional inferType(CallContext context) {
        return Optional.of(MapView.newMapViewDataType(this.key, DataTypes.BYTES()));
    }

    public Optional getTimeToLive(CallContext context) {
        return Optional.of(Duration.ZERO);
    }
}
