// attribution_matches(input => TABLE ... PARTITION BY match_key, lookbacks => ..., touches => ..., orders => ...)
//
// Brings conversions and the touches that they may be credited to together, whichever arrives first. The input's rows
// have `kind` (AttributionTouch: a conversion, a view or a click); all rows of a key are of one user (or one ad) and one
// advertiser.
//
// Out: for each conversion at once its best touch so far, or none (`first` is true); then a row for each eligible touch
// that arrives later. Event time decides what is eligible and what is best; attribution_credits takes the best of them.
//
// State, per key: the last `touches` clicks, as many views, and the last `orders` conversions, each in a ring of slots,
// so that a busy user's state is bounded. A slot is kept for as long as an event can still come that needs it: a
// conversion for `late_s`, a touch for its look-back and `late_s` (processing time).
package headwater;

import java.util.EnumSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.runtime.typeutils.RowDataSerializer;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.StaticArgumentTrait;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.types.Row;

public class AttributionMatches extends ProcessTableFunction {
    private static final long serialVersionUID = 1L;

    /** Positions among the arguments. */
    private static final int LOOKBACKS = 1;
    private static final int LATE_S = 4;

    /** Columns of state `next`: the slot of each ring that is written next. */
    private static final int CLICKS = 0;
    private static final int VIEWS = 1;
    private static final int CONVERSIONS = 2;

    private transient RowDataSerializer copier;
    private transient AttributionLookbacks known;

    public TypeInference getTypeInference(DataTypeFactory types) {
        LinkedHashMap state = new LinkedHashMap();
        state.put("clicks", AttributionState.slots(types, LOOKBACKS, LATE_S, AttributionTouch.CLICK));
        state.put("views", AttributionState.slots(types, LOOKBACKS, LATE_S, AttributionTouch.VIEW));
        state.put("conversions", AttributionState.slots(types, LOOKBACKS, LATE_S, AttributionTouch.CONVERSION));
        state.put("next", AttributionState.numbers(types, "ROW<clicks INT, views INT, conversions INT>", LOOKBACKS, LATE_S));
        StaticArgument[] arguments = new StaticArgument[] {
            StaticArgument.table(
                    "input",
                    (DataType) types.createDataType(AttributionTouch.ROW).bridgedTo(RowData.class),
                    false,
                    EnumSet.of(StaticArgumentTrait.SET_SEMANTIC_TABLE)),
            StaticArgument.scalar("lookbacks", (DataType) DataTypes.STRING().notNull(), false),
            StaticArgument.scalar("touches", (DataType) DataTypes.INT().notNull(), false),
            StaticArgument.scalar("orders", (DataType) DataTypes.INT().notNull(), false),
            StaticArgument.scalar("late_s", (DataType) DataTypes.BIGINT().notNull(), false),
        };
        DataType output = types.createDataType("ROW<conversion " + AttributionTouch.ROW + ", touch "
                + AttributionTouch.ROW + ", lookback_s BIGINT, `first` BOOLEAN, decided_time_ms BIGINT>");
        return TypeInference.newBuilder()
                .staticArguments(arguments)
                .stateTypeStrategies(state)
                .outputTypeStrategy(TypeStrategies.explicit((DataType) output.bridgedTo(RowData.class)))
                .build();
    }

    public void eval(
            ProcessTableFunction.Context context,
            MapView clicks,
            MapView views,
            MapView conversions,
            Row next,
            RowData input,
            String lookbacks,
            Integer touches,
            Integer orders,
            Long lateS)
            throws Exception {
        if (this.known == null) {
            DataType row = context.tableSemanticsFor("input").dataType();
            this.copier = new RowDataSerializer((RowType) row.getLogicalType());
            this.known = AttributionLookbacks.of(lookbacks);
        }
        int kind = AttributionTouch.kind(input);
        if (kind == AttributionTouch.CONVERSION) {
            RowData best = best(clicks, input);
            emit(input, best == null ? best(views, input) : best, true, input);
            keep(conversions, next, CONVERSIONS, orders.intValue(), input);
        } else if (this.known.ofTouch(input) > 0) {
            boolean click = kind == AttributionTouch.CLICK;
            keep(click ? clicks : views, next, click ? CLICKS : VIEWS, touches.intValue(), input);
            for (Iterator waiting = conversions.values().iterator(); waiting.hasNext();) {
                RowData conversion = (RowData) waiting.next();
                if (this.known.eligible(input, conversion)) {
                    emit(conversion, input, false, input);
                }
            }
        }
    }

    private RowData best(MapView touches, RowData conversion) throws Exception {
        RowData best = null;
        for (Iterator each = touches.values().iterator(); each.hasNext();) {
            RowData touch = (RowData) each.next();
            if (this.known.eligible(touch, conversion) && (best == null || AttributionTouch.better(touch, best))) {
                best = touch;
            }
        }
        return best;
    }

    /** Puts a copy of a row into the slot after the last one, over the oldest when all are taken. */
    private void keep(MapView slots, Row next, int which, int size, RowData row) throws Exception {
        int slot = next.getField(which) == null ? 0 : ((Integer) next.getField(which)).intValue();
        slots.put(Integer.valueOf(slot), this.copier.toBinaryRow(row).copy());
        next.setField(which, Integer.valueOf((slot + 1) % size));
    }

    private void emit(RowData conversion, RowData touch, boolean first, RowData cause) {
        collect(GenericRowData.of(new Object[] {
            conversion,
            touch,
            Long.valueOf(touch == null ? 0L : this.known.ofTouch(touch)),
            Boolean.valueOf(first),
            Long.valueOf(cause.getLong(AttributionTouch.PUBLISHED_TIME_MS))
        }));
    }
}
