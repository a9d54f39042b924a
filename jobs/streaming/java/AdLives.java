// ad_lives(input => TABLE ..., on_time => DESCRIPTOR(rowtime), gap_ms => ..., remember_ms => ...)
//
// One look at an ad's state for two questions: has this event been seen before, and what has become of its ad? (Where no
// sessions are kept, the first alone is cheaper to answer: FirstCopies.java.)
// The input is partitioned by `id_bucket` (LifeBucket.java): of the ad's record id, or for what is not about showing an ad
// (conversions, opt-outs) of the event id, so that all copies of an event meet in one partition.
//
// Out: a row with `event`, the input's row, for the first copy of each event; and a row with `session` when `gap_ms` of
// publish time, rounded up to the second, have passed without an event of the ad. A session row sums up the ad's whole
// life so far. An event after that makes another one with the next `revision`, when its own gap has passed; the
// `..._delta` columns add up to what the last revision says, in the minute in which the life began: when that turns out to
// be another one, a row of revision 0 first takes back what was said. So how often a life was cut, which depends on the
// order of arrival, changes no final row and no sum.
//
// The input's type is a constant of its own (EventInput, written by views.py for the columns of the deployment): only
// for a typed table does Flink hand over its own rows instead of converting every field of every event and back.
//
// State, of each bucket: its lives by 64 bits of their id's hash (AdLife.java), their events' ids until the watermark is
// `remember_ms` past the last event, their sums until no event can come any more (EventInput.OLDEST_MS past the last); and
// which of them are due in which second (DueLives.java). A timer per bucket and second looks after all that are due then:
// with a key and timers of its own for each ad, Flink's queue of timers took two fifths of the job's CPU. Each life is due
// once at a time, and is moved on only when that comes. An event later than the watermark is treated like any other:
// nothing is dropped.
package headwater;

import java.util.LinkedHashMap;
import java.util.List;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.logical.RowType;

public class AdLives extends ProcessTableFunction {
    private transient AdLifeColumns columns;

    public TypeInference getTypeInference(DataTypeFactory types) {
        LinkedHashMap state = new LinkedHashMap();
        state.put("lives", new MapWithoutEnd((DataType) DataTypes.BIGINT().notNull()));
        state.put("due", new MapWithoutEnd((DataType) DataTypes.BIGINT().notNull()));
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

    public void eval(
            ProcessTableFunction.Context context, MapView lives, MapView due, RowData input, Long gapMs, Long rememberMs)
            throws Exception {
        if (this.columns == null) {
            DataType row = context.tableSemanticsFor("input").dataType();
            this.columns = new AdLifeColumns(((RowType) row.getLogicalType()).getFieldNames());
        }
        byte[] eventId = input.getBinary(this.columns.eventId);
        LifeEvent kind = LifeEvent.of(input.getString(this.columns.eventType));
        Long key = Long.valueOf(kind.key(input.getString(this.columns.recordId), eventId));
        Long watermarkMs = (Long) context.timeContext(Long.class).currentWatermark();
        byte[] kept = (byte[]) lives.get(key);
        AdLife life = AdLife.of(kept);
        if (kept != null && watermarkMs != null && !life.forget(watermarkMs.longValue())) {
            life = AdLife.of(null);
        }
        if (!life.sees(eventId)) {
            return;
        }
        long publishedMs = input.getLong(this.columns.publishedTimeMs);
        life.remember(publishedMs + rememberMs.longValue());
        if (kind.ofTheAd) {
            life.add(input, kind, this.columns, gapMs.longValue());
        }
        wake(context, due, life, key);
        lives.put(key, life.packed());
        collect(GenericRowData.of(new Object[] {input, null}));
    }

    public void onTimer(ProcessTableFunction.OnTimerContext context, MapView lives, MapView due) throws Exception {
        Long now = (Long) context.timeContext(Long.class).time();
        byte[] keys = (byte[]) due.get(now);
        due.remove(now);
        int count = DueLives.count(keys);
        for (int i = 0; i < count; i++) {
            Long key = Long.valueOf(DueLives.key(keys, i));
            AdLife life = AdLife.of((byte[]) lives.get(key));
            if (life.dueMs != now.longValue()) {
                continue; // it is due at another time by now, or forgotten
            }
            if (life.isOver(now.longValue())) {
                GenericRowData takenBack = life.takeBack();
                if (takenBack != null) {
                    collect(GenericRowData.of(new Object[] {null, takenBack}));
                }
                collect(GenericRowData.of(new Object[] {null, life.close()}));
            }
            if (life.forget(now.longValue())) {
                life.dueMs = 0;
                wake(context, due, life, key);
                lives.put(key, life.packed());
            } else {
                lives.remove(key);
            }
        }
    }

    /** Sees to it that the life is looked at when there is something to do; a look too early finds out by itself. */
    private static void wake(ProcessTableFunction.Context context, MapView due, AdLife life, Long key) throws Exception {
        long wakeMs = life.wakeMs(key.longValue());
        if (life.dueMs != 0 && life.dueMs <= wakeMs) {
            return;
        }
        life.dueMs = wakeMs;
        Long at = Long.valueOf(wakeMs);
        byte[] keys = (byte[]) due.get(at);
        if (keys == null) {
            context.timeContext(Long.class).registerOnTime(at);
        }
        due.put(at, DueLives.add(keys, key.longValue()));
    }
}

/** Where the input has what is needed of it. */
final class AdLifeColumns {
    final int eventId;
    final int recordId;
    final int eventType;
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
        this.recordId = names.indexOf("record_id");
        this.eventType = names.indexOf("event_type");
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
