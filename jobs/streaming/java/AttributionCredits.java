// attribution_credits(input => TABLE ... PARTITION BY conversion_event_id, late_s => ...)
//
// The credit of each conversion, and what a later and better one takes back. The input is what attribution_matches gives
// for a conversion, from each key that it lies under.
//
// Out: `revision` 1 when every key has given its first answer; a better touch that comes after that gives two rows: the
// old credit with `sign` -1 and the new one with +1 and the next revision. The order of answers changes no last row, and
// the signs of each touch add up to 1 for the last credit and to 0 for all others.
//
// State: one value per conversion, kept for `late_s` after the last answer, which must be longer than attribution_matches
// remembers the conversion: else a revision 1 would come twice.
package headwater;

import java.util.EnumSet;
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

public class AttributionCredits extends ProcessTableFunction {
    private static final long serialVersionUID = 1L;

    /** Position among the arguments. */
    private static final int LATE_S = 1;

    /** Columns of the input (attribution_answers.sql), in its order. */
    private static final int CONVERSION = 1;
    private static final int OFFERED = 2;
    private static final int OFFERED_LOOKBACK_S = 3;
    private static final int FIRST = 4;
    private static final int DECIDED_TIME_MS = 5;

    /** Columns of the state. */
    private static final int ANSWERS = 0;
    private static final int REVISION = 1;
    private static final int LOOKBACK_S = 2;
    /** The one slot of state `held`: the touch that has the credit. */
    private static final Integer HELD = Integer.valueOf(0);

    private transient RowDataSerializer copier;

    public TypeInference getTypeInference(DataTypeFactory types) {
        LinkedHashMap state = new LinkedHashMap();
        String credit = "ROW<answers INT, revision INT, lookback_s BIGINT>";
        state.put("credit", AttributionState.numbers(types, credit, LATE_S));
        state.put("held", AttributionState.slots(types, LATE_S));
        DataType input = types.createDataType("ROW<conversion_event_id BYTES, conversion " + AttributionTouch.MOMENT_ROW
                + ", touch " + AttributionTouch.ROW + ", lookback_s BIGINT, `first` BOOLEAN, decided_time_ms BIGINT>");
        DataType output = types.createDataType("ROW<sign INT, revision INT, conversion " + AttributionTouch.MOMENT_ROW
                + ", touch " + AttributionTouch.ROW + ", lookback_s BIGINT, decided_time_ms BIGINT>");
        StaticArgument[] arguments = new StaticArgument[] {
            StaticArgument.table(
                    "input",
                    (DataType) input.bridgedTo(RowData.class),
                    false,
                    EnumSet.of(StaticArgumentTrait.SET_SEMANTIC_TABLE)),
            StaticArgument.scalar("late_s", (DataType) DataTypes.BIGINT().notNull(), false),
        };
        return TypeInference.newBuilder()
                .staticArguments(arguments)
                .stateTypeStrategies(state)
                .outputTypeStrategy(TypeStrategies.explicit((DataType) output.bridgedTo(RowData.class)))
                .build();
    }

    public void eval(ProcessTableFunction.Context context, Row credit, MapView held, RowData input, Long lateS)
            throws Exception {
        if (this.copier == null) {
            RowType row = (RowType) context.tableSemanticsFor("input").dataType().getLogicalType();
            this.copier = new RowDataSerializer((RowType) row.getTypeAt(OFFERED));
        }
        RowData conversion = input.getRow(CONVERSION, AttributionTouch.MOMENT_COLUMNS);
        RowData offered = input.isNullAt(OFFERED) ? null : input.getRow(OFFERED, AttributionTouch.COLUMNS);
        RowData last = (RowData) held.get(HELD);
        long offeredLookbackS = input.getLong(OFFERED_LOOKBACK_S);
        long lastLookbackS = number(credit, LOOKBACK_S);
        int answers = (int) number(credit, ANSWERS) + (input.getBoolean(FIRST) ? 1 : 0);
        int revision = (int) number(credit, REVISION);
        boolean better = offered != null && (last == null || AttributionTouch.better(offered, last));
        long decidedMs = Math.max(input.getLong(DECIDED_TIME_MS), publishedMs(better ? offered : last));

        if (revision == 0 && answers >= AttributionTouch.keys(conversion)) {
            revision = 1;
            emit(1, 1, conversion, better ? offered : last, better ? offeredLookbackS : lastLookbackS, decidedMs);
        } else if (revision > 0 && better) {
            emit(-1, revision, conversion, last, lastLookbackS, decidedMs);
            revision++;
            emit(1, revision, conversion, offered, offeredLookbackS, decidedMs);
        }
        credit.setField(ANSWERS, Integer.valueOf(answers));
        credit.setField(REVISION, Integer.valueOf(revision));
        if (better) {
            held.put(HELD, this.copier.toBinaryRow(offered).copy());
            credit.setField(LOOKBACK_S, Long.valueOf(offeredLookbackS));
        }
    }

    /** When a touch became known. An answer from a key without it may come later than the touch. */
    private static long publishedMs(RowData touch) {
        return touch == null ? 0L : touch.getLong(AttributionTouch.PUBLISHED_TIME_MS);
    }

    private static long number(Row credit, int column) {
        return credit.getField(column) == null ? 0L : ((Number) credit.getField(column)).longValue();
    }

    private void emit(int sign, int revision, RowData conversion, RowData touch, long lookbackS, long decidedMs) {
        collect(GenericRowData.of(new Object[] {
            Integer.valueOf(sign),
            Integer.valueOf(revision),
            conversion,
            touch,
            Long.valueOf(lookbackS),
            Long.valueOf(decidedMs)
        }));
    }
}
