// ad_lives(input => TABLE ..., on_time => DESCRIPTOR(rowtime), gap_ms => ..., remember_ms => ...)
//
// One state access per event for two questions: has this event been seen before, and what has become of its ad? (Where no
// sessions are kept, the first alone is cheaper to answer: FirstCopies.java.)
// The input is partitioned by `life_id`: the ad's record id, or for what is not about showing an ad (`of_the_ad` is
// false: conversions, opt-outs) the event id, so that all copies of an event meet in one partition.
//
// Out: a row with `event`, the input's row, for the first copy of each event; and a row with `session` when `gap_ms` of
// publish time have passed without an event of the ad. A session row sums up the ad's whole life so far. An event after
// that makes another one with the next `revision`, when its own gap has passed; the `..._delta` columns add up to what
// the last revision says, in the minute in which the life began: when that turns out to be another one, a row of revision
// 0 first takes back what was said. So how often a life was cut, which depends on the order of arrival, changes no final
// row and no sum.
//
// The input's type is a constant of its own (EventInput, written by views.py for the columns of the deployment): only
// for a typed table does Flink hand over its own rows instead of converting every field of every event and back.
//
// State: one value per key (AdLife.java), kept until the watermark is `remember_ms` past its last event. One timer per
// key at a time does both, closing and forgetting, and is moved only when it fires: Flink's own time to live would look
// at other keys' state at each access. An event later than the watermark is treated like any other: nothing is dropped.
package headwater;

import java.time.Duration;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.StateTypeStrategy;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.logical.RowType;
import org.apache.flink.types.Row;

public class AdLives extends ProcessTableFunction {
    private transient AdLifeColumns columns;

    public TypeInference getTypeInference(DataTypeFactory types) {
        LinkedHashMap state = new LinkedHashMap();
        state.put("life", new AdLifeState());
        StaticArgument[] arguments = new StaticArgument[] {
            EventOutput.input(types),
            StaticArgument.scalar("gap_ms", (DataType) DataTypes.BIGINT().notNull(), false),
            StaticArgument.scalar("remember_ms", (DataType) DataTypes.BIGINT().notNull(), false),
        };
        return TypeInference.newBuilder()
                .staticArguments(arguments)
                .stateTypeStrategies(state)
                .outputTypeStrategy(new EventOutput(AdLife.sessionType()))
                .build();
    }

    public void eval(ProcessTableFunction.Context context, Row state, RowData input, Long gapMs, Long rememberMs) {
        if (this.columns == null) {
            DataType row = context.tableSemanticsFor("input").dataType();
            this.columns = new AdLifeColumns(((RowType) row.getLogicalType()).getFieldNames());
        }
        AdLife life = AdLife.of(state);
        if (!life.sees(input.getBinary(this.columns.eventId))) {
            return;
        }
        long wakeMs = input.getLong(this.columns.publishedTimeMs) + rememberMs.longValue();
        life.forgetMs = Math.max(life.forgetMs, wakeMs);
        if (input.getBoolean(this.columns.ofTheAd)) {
            life.add(input, this.columns);
            wakeMs = life.number(AdLife.LAST_PUBLISHED_MS) + gapMs.longValue();
            life.set(AdLife.CLOSES_MS, wakeMs);
        }
        // an earlier timer finds out by itself that there is nothing to do yet
        if (life.timerMs == 0 || life.timerMs > wakeMs) {
            wake(context, life, wakeMs);
        }
        life.keep(state);
        collect(GenericRowData.of(new Object[] {input, null}));
    }

    public void onTimer(ProcessTableFunction.OnTimerContext context, Row state) {
        AdLife life = AdLife.of(state);
        long nowMs = ((Long) context.timeContext(Long.class).time()).longValue();
        if (nowMs != life.timerMs) {
            return; // one that an earlier timer has replaced, or of a state that is forgotten
        }
        long closesMs = life.number(AdLife.CLOSES_MS);
        if (closesMs > nowMs) {
            wake(context, life, closesMs);
            life.keep(state);
            return;
        }
        if (closesMs > 0) {
            GenericRowData takenBack = life.takeBack();
            if (takenBack != null) {
                collect(GenericRowData.of(new Object[] {null, takenBack}));
            }
            collect(GenericRowData.of(new Object[] {null, life.close()}));
        }
        if (life.forgetMs > nowMs) {
            wake(context, life, life.forgetMs);
            life.keep(state);
        } else {
            context.clearAllState();
        }
    }

    private static void wake(ProcessTableFunction.Context context, AdLife life, long atMs) {
        life.timerMs = atMs;
        context.timeContext(Long.class).registerOnTime(Long.valueOf(atMs));
    }
}

/** The type of the state: packed bytes. */
final class AdLifeState implements StateTypeStrategy {
    public Optional inferType(CallContext call) {
        return Optional.of(DataTypes.ROW(Arrays.asList(new Object[] {DataTypes.FIELD("life", DataTypes.BYTES())})));
    }

    /** None, not even the deployment's: the function forgets by itself. */
    public Optional getTimeToLive(CallContext call) {
        return Optional.of(Duration.ZERO);
    }
}

/** Where the input has what is needed of it. */
final class AdLifeColumns {
    final int eventId;
    final int ofTheAd;
    final int eventType;
    final int quartile;
    final int eventTimeMs;
    final int publishedTimeMs;
    final int costMicros;
    final int source;
    final int watchPercent;
    final int creativeLengthS;
    final int dimensions;
    final int[] texts;

    AdLifeColumns(List names) {
        this.eventId = names.indexOf("event_id");
        this.ofTheAd = names.indexOf("of_the_ad");
        this.eventType = names.indexOf("event_type");
        this.quartile = names.indexOf("quartile");
        this.eventTimeMs = names.indexOf("event_time_ms");
        this.publishedTimeMs = names.indexOf("published_time_ms");
        this.costMicros = names.indexOf("cost_micros");
        this.source = names.indexOf("source");
        this.watchPercent = names.indexOf("watch_percent");
        this.creativeLengthS = names.indexOf("creative_length_s");
        this.dimensions = names.indexOf(AdLife.DIMENSIONS);
        this.texts = new int[AdLife.TEXTS.length];
        for (int i = 0; i < this.texts.length; i++) {
            this.texts[i] = names.indexOf(AdLife.TEXTS[i]);
        }
    }
}
