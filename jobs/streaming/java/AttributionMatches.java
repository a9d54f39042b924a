// attribution_matches(input => TABLE ... PARTITION BY match_bucket, lookbacks => ..., ...)
//
// Brings conversions and the touches that they may be credited to together, whichever arrives first. The input's rows
// have `kind` (AttributionTouch: a conversion, a view or a click); all rows of a `match_key` are of one user (or one ad)
// and one advertiser.
//
// Out: for each conversion at once its best touch so far, or none (`first` is true); then a row for each eligible touch
// that arrives later. Event time decides what is eligible and what is best; attribution_credits takes the best of them.
//
// State, by the bucket and the hash of the key (KeptByBucket.java): the last `touches` clicks, as many views, and the last
// `orders` conversions (AttributionRing.java), so that a busy user's state is bounded. Each is kept for as long as an event
// can still come that needs it, in publish time: a conversion for `late_s`, a touch for its look-back and `late_s`.
package headwater;

import java.util.EnumSet;
import java.util.LinkedHashMap;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.StaticArgumentTrait;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

public class AttributionMatches extends ProcessTableFunction {
    private static final long serialVersionUID = 1L;
    private static final long CLEARED_EVERY_MS = 3600000L;

    private transient AttributionLookbacks known;
    private transient KeptByBucket buckets;

    public TypeInference getTypeInference(DataTypeFactory types) {
        LinkedHashMap state = new LinkedHashMap();
        state.put("kept", KeptByBucket.state());
        StaticArgument[] arguments = new StaticArgument[] {
            StaticArgument.table(
                    "input",
                    (DataType) types.createDataType(AttributionTouch.INPUT).bridgedTo(RowData.class),
                    false,
                    EnumSet.of(StaticArgumentTrait.SET_SEMANTIC_TABLE)),
            StaticArgument.scalar("lookbacks", (DataType) DataTypes.STRING().bridgedTo(StringData.class), false),
            StaticArgument.scalar("touches", (DataType) DataTypes.INT().notNull(), false),
            StaticArgument.scalar("orders", (DataType) DataTypes.INT().notNull(), false),
            StaticArgument.scalar("late_s", (DataType) DataTypes.BIGINT().notNull(), false),
            StaticArgument.scalar("id_buckets", (DataType) DataTypes.INT().notNull(), false),
        };
        DataType output = types.createDataType("ROW<conversion " + AttributionTouch.MOMENT_ROW + ", touch "
                + AttributionTouch.ROW + ", lookback_s BIGINT, `first` BOOLEAN, decided_time_ms BIGINT>");
        return TypeInference.newBuilder()
                .staticArguments(arguments)
                .stateTypeStrategies(state)
                .outputTypeStrategy(TypeStrategies.explicit((DataType) output.bridgedTo(RowData.class)))
                .build();
    }

    public void eval(
            MapView kept,
            RowData input,
            StringData lookbacks,
            Integer touches,
            Integer orders,
            Long lateS,
            Integer buckets)
            throws Exception {
        if (this.known == null) {
            this.known = AttributionLookbacks.of(lookbacks.toString());
            this.buckets = new KeptByBucket(buckets.intValue(), CLEARED_EVERY_MS);
        }
        RowData row = input.getRow(AttributionTouch.MOMENT, AttributionTouch.MOMENT_COLUMNS);
        long nowMs = AttributionTouch.publishedMs(row);
        this.buckets.open(kept, input.getInt(AttributionTouch.MATCH_BUCKET), nowMs);
        long key = KeptByBucket.key(input.getString(AttributionTouch.MATCH_KEY));
        AttributionRing ring = new AttributionRing(this.buckets.get(key));
        int kind = AttributionTouch.kind(row);
        boolean converts = kind == AttributionTouch.CONVERSION;
        long lookbackS = converts ? 0 : AttributionTouch.lookbackS(this.known, row, kind);
        if (converts) {
            answer(ring, row, nowMs);
        } else {
            offer(ring, row, lookbackS, nowMs);
        }
        long untilMs = nowMs + (lateS.longValue() + lookbackS) * 1000;
        this.buckets.put(key, ring.with(row, untilMs, nowMs, converts ? orders.intValue() : touches.intValue()));
    }

    /** The best touch so far of a conversion, or none. */
    private void answer(AttributionRing ring, RowData conversion, long nowMs) {
        RowData best = null;
        long bestS = 0;
        while (ring.advance()) {
            if (ring.isTouch()) {
                RowData touch = ring.touch();
                long lookbackS = AttributionTouch.lookbackS(this.known, conversion, ring.kind());
                if (AttributionTouch.eligible(touch, conversion, lookbackS)
                        && (best == null || AttributionTouch.better(touch, best))) {
                    best = touch;
                    bestS = lookbackS;
                }
            }
        }
        emit(conversion, best, bestS, true, nowMs);
    }

    /** A touch to the conversions that came before it. */
    private void offer(AttributionRing ring, RowData row, long lookbackS, long nowMs) {
        RowData touch = null;
        while (ring.advance()) {
            if (!ring.isTouch()) {
                touch = touch == null ? AttributionTouch.of(row) : touch;
                if (AttributionTouch.eligible(touch, ring.conversion(), lookbackS)) {
                    emit(ring.conversion(), touch, lookbackS, false, nowMs);
                }
            }
        }
    }

    private void emit(RowData conversion, RowData touch, long lookbackS, boolean first, long decidedMs) {
        collect(GenericRowData.of(new Object[] {
            conversion, touch, Long.valueOf(lookbackS), Boolean.valueOf(first), Long.valueOf(decidedMs)
        }));
    }
}
