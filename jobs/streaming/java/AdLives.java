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
// State, of each bucket (KeptByBucket.java): its lives by 64 bits of their id's hash (AdLife.java), their events' ids until the
// watermark is `remember_ms` past the last event, their sums until no event can come any more (EventContract.OLDEST_MS past
// the last), and when the first of those that are open closes: the one time at which the bucket is looked at by itself. With
// timers for each ad, Flink's queue of them took two fifths of the job's CPU. An event later than the watermark is treated
// like any other: nothing is dropped.
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

public class AdLives extends HandingOnFunction {
    private static final long CLEARED_EVERY_MS = 600000;

    private transient AdLifeColumns columns;
    private transient KeptByBucket buckets;
    private transient AdLife life;
    private transient PackedWriter out;

    HandingOnFunction another() {
        return new AdLives();
    }

    public TypeInference getTypeInference(DataTypeFactory types) {
        LinkedHashMap state = new LinkedHashMap();
        state.put("lives", KeptByBucket.state());
        StaticArgument[] arguments = new StaticArgument[] {
            input(BY_KEY_IN_TIME),
            StaticArgument.scalar("gap_ms", (DataType) DataTypes.BIGINT().notNull(), false),
            StaticArgument.scalar("remember_ms", (DataType) DataTypes.BIGINT().notNull(), false),
            StaticArgument.scalar("id_buckets", (DataType) DataTypes.INT().notNull(), false),
        };
        return TypeInference.newBuilder()
                .staticArguments(arguments)
                .stateTypeStrategies(state)
                .outputTypeStrategy(new EventOutput(new DataTypes.Field[] {DataTypes.FIELD("session", AdLife.sessionType())}))
                .build();
    }

    public void eval(
            ProcessTableFunction.Context context,
            MapView lives,
            RowData input,
            Long gapMs,
            Long rememberMs,
            Integer idBuckets)
            throws Exception {
        if (this.columns == null) {
            DataType row = context.tableSemanticsFor("input").dataType();
            this.columns = new AdLifeColumns(((RowType) row.getLogicalType()).getFieldNames());
            open(idBuckets.intValue());
        }
        AdLife life = this.life;
        KeptByBucket bucket = this.buckets;
        Long watermarkMs = (Long) context.timeContext(Long.class).currentWatermark();
        if (watermarkMs == null) {
            bucket.open(lives);
        } else {
            bucket.open(lives, input.getInt(this.columns.idBucket), watermarkMs.longValue());
        }
        byte[] eventId = input.getBinary(this.columns.eventId);
        LifeEvent kind = LifeEvent.of(input.getString(this.columns.eventType));
        long key = kind.key(input.getBinary(this.columns.ids), eventId);
        int at = bucket.find(key);
        boolean known = at != bucket.end();
        if (known) {
            life.read(bucket.bytes(), KeptByBucket.value(at), bucket.next(at) - KeptByBucket.value(at));
        }
        if (!known || watermarkMs != null && !life.forget(watermarkMs.longValue())) {
            life.begin();
        }
        if (!life.sees(eventId)) {
            return;
        }
        life.remember(input.getLong(this.columns.publishedTimeMs) + rememberMs.longValue());
        if (kind.ofTheAd) {
            life.add(input, kind, this.columns, gapMs.longValue());
            if (bucket.note == 0 || life.closesMs() < Seconds.ms(bucket.note)) {
                lookAgain(context, life.closesMs());
            }
        }
        life.write(this.out);
        bucket.replace(at, key, this.out.bytes, this.out.position);
        bucket.write();
        collect(GenericRowData.of(new Object[] {input, null}));
    }

    public void onTimer(ProcessTableFunction.OnTimerContext context, MapView lives) throws Exception {
        if (this.buckets == null) {
            open(1); // no event since the start: eval makes it anew, of as many buckets as there are
        }
        long nowMs = ((Long) context.timeContext(Long.class).time()).longValue();
        KeptByBucket bucket = this.buckets;
        bucket.open(lives);
        long nextMs = Long.MAX_VALUE;
        for (int at = bucket.first(); at < bucket.end(); at = bucket.next(at)) {
            int from = KeptByBucket.value(at);
            long closesMs = AdLife.closesMs(bucket.bytes(), from);
            if (closesMs > nowMs) {
                nextMs = Math.min(nextMs, closesMs);
            } else if (closesMs != 0) {
                this.life.read(bucket.bytes(), from, bucket.next(at) - from);
                GenericRowData takenBack = this.life.takeBack();
                if (takenBack != null) {
                    collect(GenericRowData.of(new Object[] {null, takenBack}));
                }
                collect(GenericRowData.of(new Object[] {null, this.life.close()}));
                this.life.write(this.out);
                bucket.replace(at, bucket.key(at), this.out.bytes, this.out.position);
            }
        }
        bucket.note = 0;
        if (nextMs != Long.MAX_VALUE) {
            lookAgain(context, nextMs);
        }
        if (bucket.end() > bucket.first()) {
            bucket.write();
        }
    }

    private void open(int buckets) {
        this.buckets = new KeptByBucket(buckets, CLEARED_EVERY_MS, new ForgettingIds());
        this.life = new AdLife();
        this.out = new PackedWriter(512);
    }

    /** Notes in the open bucket when the first of its lives closes, and has it looked at then. */
    private void lookAgain(ProcessTableFunction.Context context, long ms) throws Exception {
        context.timeContext(Long.class).registerOnTime(Long.valueOf(ms));
        this.buckets.note = Seconds.of(ms);
    }
}

/** Where the input has what is needed of it. */
final class AdLifeColumns {
    final int idBucket;
    final int eventId;
    final int ids;
    final int eventType;
    final int eventTimeMs;
    final int publishedTimeMs;
    final int costMicros;
    final int watchPercent;
    final int creativeLengthS;
    final int dimensions;

    AdLifeColumns(List names) {
        this.idBucket = names.indexOf("id_bucket");
        this.eventId = names.indexOf("event_id");
        this.ids = names.indexOf("packed_ids");
        this.eventType = names.indexOf("event_type");
        this.eventTimeMs = names.indexOf("event_time_ms");
        this.publishedTimeMs = names.indexOf("published_time_ms");
        this.costMicros = names.indexOf("cost_micros");
        this.watchPercent = names.indexOf("watch_percent");
        this.creativeLengthS = names.indexOf("creative_length_s");
        this.dimensions = names.indexOf(AdLife.DIMENSIONS);
    }
}
