// State of the attribution functions: its type, and for how long it is kept, from the arguments of the call.
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
    private final int lateArgument;
    private final int lookbacksArgument;
    private final int kind;

    private AttributionState(DataType type, int lateArgument, int lookbacksArgument, int kind) {
        this.type = type;
        this.lateArgument = lateArgument;
        this.lookbacksArgument = lookbacksArgument;
        this.kind = kind;
    }

    /** A ring of rows of one kind, each kept for the longest look-back of its kind and what an event may be late. */
    static AttributionState slots(DataTypeFactory types, int lookbacksArgument, int lateArgument, int kind) {
        DataType row = (DataType) types.createDataType(AttributionTouch.ROW).bridgedTo(RowData.class);
        return new AttributionState(
                MapView.newMapViewDataType((DataType) DataTypes.INT().notNull(), row),
                lateArgument,
                lookbacksArgument,
                kind);
    }

    /**
     * Some numbers, kept like clicks are, or without `lookbacksArgument` (-1) for what an event may be late. A Row and not
     * RowData, which can't be written to when it comes from RocksDB or a checkpoint.
     */
    static AttributionState numbers(DataTypeFactory types, String row, int lookbacksArgument, int lateArgument) {
        return new AttributionState(
                (DataType) types.createDataType(row).bridgedTo(Row.class),
                lateArgument,
                lookbacksArgument,
                lookbacksArgument < 0 ? AttributionTouch.CONVERSION : AttributionTouch.CLICK);
    }

    public Optional inferType(CallContext call) {
        return Optional.of(this.type);
    }

    public Optional getTimeToLive(CallContext call) {
        Optional lateS = call.getArgumentValue(this.lateArgument, Long.class);
        if (!lateS.isPresent()) {
            return Optional.empty();
        }
        long lookbackS = 0;
        if (this.kind != AttributionTouch.CONVERSION) {
            Optional lookbacks = call.getArgumentValue(this.lookbacksArgument, String.class);
            if (!lookbacks.isPresent()) {
                return Optional.empty();
            }
            lookbackS = AttributionLookbacks.of((String) lookbacks.get()).longest(this.kind);
        }
        return Optional.of(Duration.ofSeconds(lookbackS + ((Long) lateS.get()).longValue()));
    }
}
