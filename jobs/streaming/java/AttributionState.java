// State of attribution_credits: its type, and for how long it is kept, from an argument of the call.
package headwater;

import java.time.Duration;
import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.StateTypeStrategy;
import org.apache.flink.types.Row;

final class AttributionState implements StateTypeStrategy {
    private final DataType type;
    private final int secondsArgument;

    private AttributionState(DataType type, int secondsArgument) {
        this.type = type;
        this.secondsArgument = secondsArgument;
    }

    /** A touch by its slot. */
    static AttributionState slots(DataTypeFactory types, int secondsArgument) {
        DataType row = (DataType) types.createDataType(AttributionTouch.ROW).bridgedTo(RowData.class);
        return new AttributionState(MapView.newMapViewDataType((DataType) DataTypes.INT().notNull(), row), secondsArgument);
    }

    /** Some numbers. A Row and not RowData, which can't be written to when it comes from RocksDB or a checkpoint. */
    static AttributionState numbers(DataTypeFactory types, String row, int secondsArgument) {
        return new AttributionState((DataType) types.createDataType(row).bridgedTo(Row.class), secondsArgument);
    }

    public Optional inferType(CallContext call) {
        return Optional.of(this.type);
    }

    public Optional getTimeToLive(CallContext call) {
        Optional seconds = call.getArgumentValue(this.secondsArgument, Long.class);
        return seconds.isPresent()
                ? Optional.of(Duration.ofSeconds(((Long) seconds.get()).longValue()))
                : Optional.empty();
    }
}
