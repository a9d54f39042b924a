// contradictions(input => TABLE moments PARTITION BY ad_bucket, on_time => DESCRIPTOR(rowtime),
//     window_ms => ..., tolerance_ms => ..., fastest_percent => ...)
//
// Which of two events of an ad can't both be true of a person watching it, by their event times and in either order of
// arrival: a click before the impression, a quartile before the impression or sooner after it than the creative's length
// allows, a quartile before a lower one. Of a click and an impression the click is at fault, of an impression and a quartile
// the impression, of two quartiles the higher one.
//
// Out: a row for each event at fault, once for each event that it contradicts; invalid_verdicts.sql keeps the first. None
// for an event of a listed network, which has its verdict without that.
// Which events are at fault does not depend on the order of arrival. A row is held until the watermark has passed the later
// of the two: lists and rates, which speak at once, come first, so that the same rule gives an event its verdict each time.
//
// State, by the bucket and the hash of the ad's record id (KeptByBucket.java): its moments (AdMoments.java) for `window_ms`
// of publish time after the last one. As a pattern (MATCH_RECOGNIZE) the rule cost five times as much: each event lay in a
// queue until the watermark, then in a buffer with a state machine and timers of its own, once for each kind of
// contradiction, because a match ends with the first one that it finds.
package headwater;

import java.util.Arrays;
import java.util.EnumSet;
import java.util.LinkedHashMap;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinaryRowData;
import org.apache.flink.table.data.binary.BinarySegmentUtils;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.runtime.typeutils.RowDataSerializer;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.StaticArgumentTrait;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;
import org.apache.flink.table.types.logical.BigIntType;
import org.apache.flink.table.types.logical.LogicalType;
import org.apache.flink.table.types.logical.VarBinaryType;
import org.apache.flink.table.types.logical.VarCharType;

public class Contradictions extends ProcessTableFunction {
    private static final long serialVersionUID = 1L;

    /** Columns of the input that the verdict has too, in both in this order; then those of the input alone. */
    private static final String SHARED = "packed_ids BYTES, packed_dimensions BYTES";

    private static final LogicalType TEXT = VarCharType.STRING_TYPE;
    private static final LogicalType BYTES = new VarBinaryType(VarBinaryType.MAX_LENGTH);
    private static final LogicalType NUMBER = new BigIntType();
    /** Types of the verdict's columns; the last is when it is given. */
    private static final LogicalType[] OUTPUT = {
        BYTES, BYTES, BYTES, TEXT, NUMBER, NUMBER, TEXT, TEXT, NUMBER
    };
    private static final String INPUT = "ROW<" + SHARED + ", ad_bucket INT, event_id BYTES, event_type STRING, "
            + "event_time_ms BIGINT, published_time_ms BIGINT, cost_micros BIGINT, creative_length_s INT, "
            + "listed BOOLEAN, rowtime TIMESTAMP_LTZ(3)>";
    private static final int AD_BUCKET = 2;
    private static final int EVENT_ID = 3;
    private static final int EVENT_TYPE = 4;
    private static final int EVENT_TIME_MS = 5;
    private static final int PUBLISHED_TIME_MS = 6;
    private static final int COST_MICROS = 7;
    private static final int CREATIVE_LENGTH_S = 8;
    private static final int LISTED = 9;

    private transient KeptByBucket buckets;
    private transient ContradictionRules rules;
    private transient RowDataSerializer copier;

    public TypeInference getTypeInference(DataTypeFactory types) {
        LinkedHashMap state = new LinkedHashMap();
        state.put("moments", KeptByBucket.state());
        state.put("held", new MapWithoutEnd((DataType) DataTypes.BIGINT().notNull()));
        StaticArgument[] arguments = new StaticArgument[] {
            StaticArgument.table(
                    "input",
                    (DataType) types.createDataType(INPUT).bridgedTo(RowData.class),
                    false,
                    EnumSet.of(StaticArgumentTrait.SET_SEMANTIC_TABLE, StaticArgumentTrait.REQUIRE_ON_TIME)),
            StaticArgument.scalar("window_ms", (DataType) DataTypes.BIGINT().notNull(), false),
            StaticArgument.scalar("tolerance_ms", (DataType) DataTypes.BIGINT().notNull(), false),
            StaticArgument.scalar("fastest_percent", (DataType) DataTypes.INT().notNull(), false),
            StaticArgument.scalar("id_buckets", (DataType) DataTypes.INT().notNull(), false),
        };
        DataType output = types.createDataType("ROW<" + SHARED + ", event_id BYTES, event_type STRING, "
                + "event_time_ms BIGINT, cost_micros BIGINT, rule STRING, detail STRING, verdict_time_ms BIGINT>");
        return TypeInference.newBuilder()
                .staticArguments(arguments)
                .stateTypeStrategies(state)
                .outputTypeStrategy(TypeStrategies.explicit((DataType) output.bridgedTo(RowData.class)))
                .build();
    }

    public void eval(
            ProcessTableFunction.Context context,
            MapView moments,
            MapView held,
            RowData input,
            Long windowMs,
            Long toleranceMs,
            Integer fastestPercent,
            Integer buckets)
            throws Exception {
        if (this.rules == null) {
            this.rules = new ContradictionRules(toleranceMs.longValue(), fastestPercent.longValue());
            this.buckets = new KeptByBucket(buckets.intValue(), windowMs.longValue());
            this.copier = new RowDataSerializer(OUTPUT);
        }
        AdMoment latter = new AdMoment(
                EventContract.TYPES.number(input.getString(EVENT_TYPE)),
                input.getBinary(EVENT_ID),
                input.getLong(EVENT_TIME_MS),
                input.getLong(PUBLISHED_TIME_MS),
                input.getLong(COST_MICROS),
                input.isNullAt(CREATIVE_LENGTH_S) ? 0 : input.getInt(CREATIVE_LENGTH_S),
                input.getBoolean(LISTED));
        this.buckets.open(moments, input.getInt(AD_BUCKET), latter.publishedMs);
        long key = PackedIds.hash(input.getBinary(0), EventContract.RECORD_ID);
        AdMoments before = new AdMoments(this.buckets.get(key));
        for (AdMoment former = before.next(); former != null; former = before.next()) {
            if (Math.abs(latter.publishedMs - former.publishedMs) < windowMs.longValue()) {
                hold(context, held, verdict(former, latter, input));
            }
        }
        this.buckets.put(key, before.with(latter, windowMs.longValue()));
    }

    public void onTimer(ProcessTableFunction.OnTimerContext context, MapView moments, MapView held) throws Exception {
        Long now = (Long) context.timeContext(Long.class).time();
        byte[] rows = (byte[]) held.get(now);
        held.remove(now);
        for (int at = 0; rows != null && at < rows.length; at += 4 + Packed.getInt(rows, at)) {
            BinaryRowData row = new BinaryRowData(OUTPUT.length);
            row.pointTo(MemorySegmentFactory.wrap(rows), at + 4, Packed.getInt(rows, at));
            collect(row);
        }
    }

    private void hold(ProcessTableFunction.Context context, MapView held, GenericRowData verdict) throws Exception {
        if (verdict == null) {
            return;
        }
        Long until = Long.valueOf(verdict.getLong(OUTPUT.length - 1));
        byte[] before = (byte[]) held.get(until);
        int end = before == null ? 0 : before.length;
        BinaryRowData row = this.copier.toBinaryRow(verdict);
        int bytes = row.getSizeInBytes();
        byte[] rows = before == null ? new byte[4 + bytes] : Arrays.copyOf(before, end + 4 + bytes);
        Packed.putInt(rows, end, bytes);
        BinarySegmentUtils.copyToBytes(row.getSegments(), row.getOffset(), rows, end + 4, bytes);
        held.put(until, rows);
        context.timeContext(Long.class).registerOnTime(until);
    }

    private GenericRowData verdict(AdMoment former, AdMoment latter, RowData input) {
        boolean inOrder = former.step() <= latter.step();
        AdMoment low = inOrder ? former : latter;
        AdMoment high = inOrder ? latter : former;
        AdMoment atFault = low.isQuartile() ? high : low;
        BinaryStringData rule = atFault.listed ? null : this.rules.broken(low, high);
        if (rule == null) {
            return null;
        }
        GenericRowData row = new GenericRowData(OUTPUT.length);
        row.setField(0, input.getBinary(0));
        row.setField(1, input.getBinary(1));
        row.setField(2, atFault.eventId);
        row.setField(3, BinaryStringData.fromString(atFault.type()));
        row.setField(4, Long.valueOf(atFault.timeMs));
        row.setField(5, Long.valueOf(atFault.costMicros));
        row.setField(6, rule);
        row.setField(7, BinaryStringData.fromString(
                latter.type() + " " + (latter.timeMs - former.timeMs) + " ms after " + former.type()));
        row.setField(8, Long.valueOf(Math.max(former.publishedMs, latter.publishedMs)));
        return row;
    }
}

/** What can't be true of two events of an ad. Source: jobs/transforms/invalid_traffic.py `conflict`. */
final class ContradictionRules {
    private static final BinaryStringData CLICK = BinaryStringData.fromString("click_before_impression");
    private static final BinaryStringData BEFORE = BinaryStringData.fromString("quartile_before_impression");
    private static final BinaryStringData TOO_FAST = BinaryStringData.fromString("quartiles_too_fast");
    private static final BinaryStringData ORDER = BinaryStringData.fromString("quartiles_out_of_order");

    private final long toleranceMs;
    private final long fastestPercent;

    ContradictionRules(long toleranceMs, long fastestPercent) {
        this.toleranceMs = toleranceMs;
        this.fastestPercent = fastestPercent;
    }

    /** The rule that two events break, of which `low` stands before `high` in the playing of an ad; or null. */
    BinaryStringData broken(AdMoment low, AdMoment high) {
        long apartMs = high.timeMs - low.timeMs;
        if (low.isClick()) {
            return high.isImpression() && apartMs > this.toleranceMs ? CLICK : null;
        }
        if (low.isImpression()) {
            if (high.step() <= 0) {
                return null;
            }
            long leastMs = high.step() * high.lengthS * 1000L * this.fastestPercent / 10000L - this.toleranceMs;
            return apartMs >= leastMs ? null : apartMs < -this.toleranceMs ? BEFORE : TOO_FAST;
        }
        return low.step() < high.step() && apartMs < -this.toleranceMs ? ORDER : null;
    }
}
