// SQL function `campaign_spend`: what a campaign has spent, by day and ever, and what it has won but not yet spent.
//
// A win and its impression come from two topics, in either order; whichever is second finds the first in the state.
// Wins are summed by minute of decision, so nothing has to expire here: a reader knows from the minute which wins can't
// be confirmed any more, and from older minutes how many are.
//
// One topic may be read far ahead of the other: after an outage, or when both are read again from their beginnings. So what
// waits is given up by the clock of the topic that is behind, and by that of the one ahead only when it is a day ahead: a
// topic that says nothing more of a campaign must not hold its state for ever.
package headwater;

import java.time.LocalDate;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.api.dataview.MapView;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.StaticArgumentTrait;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

/**
 * `campaign_spend(input => TABLE t PARTITION BY campaign_id, open_s => n, minute_s => n, day_s => n)`.
 *
 * <p>In: campaign_id, record_id, decided (a win; else an event), time_ms (of the decision or the event), shown (an
 * impression), cost_micros, currency, updated_ms. Out, after campaign_id: the absolute columns of campaign-spend-v1.
 * `open_s` is how long a win or an impression waits for the other, by the clock of the topic that is behind; `minute_s`
 * and `day_s` are how long the sums of a minute and of a day are kept after their last change. Of a campaign without
 * traffic the last ones stay.
 */
public final class CampaignSpend extends ProcessTableFunction {
    private static final long serialVersionUID = 1L;
    private static final long MINUTE_MS = 60000L;
    private static final long DAY_MS = 86400000L;
    private static final long SWEEP_MS = 60000L;
    private static final long MOST_APART_MS = DAY_MS;
    private static final Long HEARD = Long.valueOf(0L);
    private static final StringData OPEN = BinaryStringData.fromString("open");
    private static final StringData TOTAL = BinaryStringData.fromString("total");

    /** Campaign to its clocks. */
    private transient Map clocks;

    public void eval(
            MapView ads, MapView minutes, MapView days, MapView totals, MapView heard, RowData input, Integer openS,
            Integer minuteS, Integer dayS) throws Exception {
        SpendClocks clocks = clocksOf(input.getString(0).toString(), heard);
        clocks.hear(input.getBoolean(2), input.getLong(7));
        long nowMs = clocks.bothMs(MOST_APART_MS);
        long openMs = openS.longValue() * 1000L;
        if (nowMs >= clocks.sweptMs + SWEEP_MS) {
            clocks.sweptMs = nowMs;
            heard.put(HEARD, clocks.packed());
            sweepAds(ads, nowMs - openMs);
            sweep(minutes, 32, nowMs - minuteS.longValue() * 1000L);
            sweep(days, 16, nowMs - dayS.longValue() * 1000L);
        }
        long ad = EventBucket.hash(input.getString(1).toBytes());
        long timeMs = input.getLong(3);
        long costMicros = input.getLong(5);
        if (input.getBoolean(2)) {
            won(ads, minutes, input, ad, timeMs, costMicros, openMs);
            return;
        }
        boolean shown = input.getBoolean(4);
        Long day = Long.valueOf(Math.floorDiv(timeMs, DAY_MS));
        spent(days, day, input, dayText(day.longValue()), costMicros, shown);
        spent(totals, Long.valueOf(0L), input, TOTAL, costMicros, shown);
        if (shown) {
            shown(ads, minutes, input, ad, openMs);
        }
    }

    /** A campaign's clocks, after a restart as they were when its maps were last swept: the next rows set them again. */
    private SpendClocks clocksOf(String campaign, MapView heard) throws Exception {
        if (this.clocks == null) {
            this.clocks = new HashMap();
        }
        SpendClocks known = (SpendClocks) this.clocks.get(campaign);
        if (known == null) {
            known = new SpendClocks((byte[]) heard.get(HEARD));
            this.clocks.put(campaign, known);
        }
        return known;
    }

    /** Removes entries whose time, an i64 at a position of their bytes, is not after a moment. */
    private static void sweep(MapView state, int at, long overMs) throws Exception {
        List over = new ArrayList();
        Iterator entries = state.entries().iterator();
        while (entries.hasNext()) {
            Map.Entry entry = (Map.Entry) entries.next();
            if (Packed.getLong((byte[]) entry.getValue(), at) <= overMs) {
                over.add(entry.getKey());
            }
        }
        for (int i = 0; i < over.size(); i++) {
            state.remove(over.get(i));
        }
    }

    /** The same of ads (OpenAds.java), by when they were heard of. */
    private static void sweepAds(MapView ads, long overMs) throws Exception {
        Map left = new HashMap();
        for (Iterator parts = ads.entries().iterator(); parts.hasNext();) {
            Map.Entry part = (Map.Entry) parts.next();
            OpenAds some = new OpenAds((byte[]) part.getValue());
            if (some.sweep(overMs)) {
                left.put(part.getKey(), some.bytes);
            }
        }
        for (Iterator parts = left.entrySet().iterator(); parts.hasNext();) {
            Map.Entry part = (Map.Entry) parts.next();
            if (((byte[]) part.getValue()).length == 0) {
                ads.remove(part.getKey());
            } else {
                ads.put(part.getKey(), part.getValue());
            }
        }
    }

    private void spent(MapView state, Long key, RowData input, StringData day, long costMicros, boolean shown)
            throws Exception {
        byte[] sums = sumsOf(state, key, 24);
        add(sums, 0, costMicros);
        add(sums, 8, shown ? 1L : 0L);
        Packed.putLong(sums, 16, Math.max(Packed.getLong(sums, 16), input.getLong(7)));
        state.put(key, sums);
        Long nothing = Long.valueOf(0L);
        emit(input, day, "", new Long[] {
            number(sums, 0), number(sums, 8), number(sums, 16), nothing, nothing, nothing, nothing, nothing
        });
    }

    private void won(
            MapView ads, MapView minutes, RowData input, long ad, long decidedMs, long costMicros, long openMs)
            throws Exception {
        OpenAds some = new OpenAds((byte[]) ads.get(OpenAds.part(ad)));
        boolean known = some.find(ad);
        if (known && some.state() != OpenAds.SHOWN) {
            return;
        }
        boolean confirmed = known && isInTime(some, input, openMs);
        long minuteMs = decidedMs - Math.floorMod(decidedMs, MINUTE_MS);
        if (confirmed) {
            some.put(ad, OpenAds.CONFIRMED, input.getLong(7));
        } else {
            some.putWin(ad, input.getLong(7), minuteMs, costMicros);
        }
        ads.put(OpenAds.part(ad), some.bytes);
        open(minutes, input, minuteMs, costMicros, confirmed ? costMicros : 0L);
    }

    /** Whether the other half comes before the one kept would be swept, which may still be there by chance. */
    private static boolean isInTime(OpenAds kept, RowData input, long openMs) {
        return Math.abs(input.getLong(7) - kept.heardMs()) < openMs;
    }

    private void shown(MapView ads, MapView minutes, RowData input, long ad, long openMs) throws Exception {
        OpenAds some = new OpenAds((byte[]) ads.get(OpenAds.part(ad)));
        if (!some.find(ad)) {
            some.put(ad, OpenAds.SHOWN, input.getLong(7));
        } else if (some.state() == OpenAds.WON && isInTime(some, input, openMs)) {
            open(minutes, input, some.minuteMs(), 0L, some.costMicros());
            some.put(ad, OpenAds.CONFIRMED, input.getLong(7));
        } else {
            return;
        }
        ads.put(OpenAds.part(ad), some.bytes);
    }

    /** The cost of a win is never 0, so an amount also says whether there is a win or a confirmation to count. */
    private void open(MapView minutes, RowData input, long minuteMs, long wonMicros, long confirmedMicros)
            throws Exception {
        Long key = Long.valueOf(minuteMs);
        byte[] sums = sumsOf(minutes, key, 40);
        add(sums, 0, wonMicros);
        add(sums, 8, confirmedMicros);
        add(sums, 16, wonMicros > 0L ? 1L : 0L);
        add(sums, 24, confirmedMicros > 0L ? 1L : 0L);
        Packed.putLong(sums, 32, Math.max(Packed.getLong(sums, 32), input.getLong(7)));
        minutes.put(key, sums);
        Long nothing = Long.valueOf(0L);
        emit(input, OPEN, "|" + minuteMs, new Long[] {
            nothing, nothing, number(sums, 32), key, number(sums, 0), number(sums, 8), number(sums, 16), number(sums, 24)
        });
    }

    private void emit(RowData input, StringData day, String suffix, Long[] n) {
        StringData key = BinaryStringData.fromString(input.getString(0).toString() + "|" + day.toString() + suffix);
        collect(GenericRowData.of(new Object[] {
            key, day, n[0], input.getString(6), n[1], n[2], n[3], n[4], n[5], n[6], n[7]
        }));
    }

    private static byte[] sumsOf(MapView state, Long key, int bytes) throws Exception {
        byte[] before = (byte[]) state.get(key);
        return before == null ? new byte[bytes] : (byte[]) before.clone();
    }

    private static void add(byte[] sums, int at, long delta) {
        Packed.putLong(sums, at, Packed.getLong(sums, at) + delta);
    }

    private static Long number(byte[] sums, int at) {
        return Long.valueOf(Packed.getLong(sums, at));
    }

    private static StringData dayText(long day) {
        return BinaryStringData.fromString(LocalDate.ofEpochDay(day).format(DateTimeFormatter.BASIC_ISO_DATE));
    }

    public TypeInference getTypeInference(DataTypeFactory factory) {
        DataType input = factory.createDataType("ROW<campaign_id STRING, record_id STRING, decided BOOLEAN, "
                + "time_ms BIGINT, shown BOOLEAN, cost_micros BIGINT, currency STRING, updated_ms BIGINT> NOT NULL");
        DataType output = factory.createDataType("ROW<spend_key STRING NOT NULL, `day` STRING NOT NULL, "
                + "spend_micros BIGINT NOT NULL, currency STRING NOT NULL, impressions BIGINT NOT NULL, "
                + "updated_ms BIGINT NOT NULL, decision_minute_ms BIGINT NOT NULL, won_micros BIGINT NOT NULL, "
                + "confirmed_micros BIGINT NOT NULL, wins BIGINT NOT NULL, confirmed_wins BIGINT NOT NULL> NOT NULL");
        LinkedHashMap state = new LinkedHashMap();
        state.put("ads", new MapWithoutEnd(DataTypes.BIGINT()));
        state.put("minutes", new MapWithoutEnd(DataTypes.BIGINT()));
        state.put("days", new MapWithoutEnd(DataTypes.BIGINT()));
        state.put("totals", new MapWithoutEnd(DataTypes.BIGINT()));
        state.put("heard", new MapWithoutEnd(DataTypes.BIGINT()));
        return TypeInference.newBuilder()
                .staticArguments(new StaticArgument[] {
                    StaticArgument.table(
                            "input",
                            (DataType) input.bridgedTo(RowData.class),
                            false,
                            EnumSet.of(StaticArgumentTrait.SET_SEMANTIC_TABLE)),
                    StaticArgument.scalar("open_s", DataTypes.INT(), false),
                    StaticArgument.scalar("minute_s", DataTypes.INT(), false),
                    StaticArgument.scalar("day_s", DataTypes.INT(), false)
                })
                .stateTypeStrategies(state)
                .outputTypeStrategy(TypeStrategies.explicit((DataType) output.bridgedTo(RowData.class)))
                .build();
    }
}

/** The newest times that a campaign's events and decisions have said, ms; 0 for none. Kept: eight bytes each. */
final class SpendClocks {
    private long eventsMs;
    private long decisionsMs;
    /** When, by both clocks, the campaign's maps were last cleared of what is over. Not kept. */
    long sweptMs;

    SpendClocks(byte[] kept) {
        if (kept != null) {
            this.eventsMs = Packed.getLong(kept, 0);
            this.decisionsMs = Packed.getLong(kept, 8);
        }
    }

    void hear(boolean decision, long timeMs) {
        if (decision) {
            this.decisionsMs = Math.max(this.decisionsMs, timeMs);
        } else {
            this.eventsMs = Math.max(this.eventsMs, timeMs);
        }
    }

    /** What time it is for both: that of the one behind, if it is no further behind than this. */
    long bothMs(long mostApartMs) {
        long aheadMs = Math.max(this.eventsMs, this.decisionsMs);
        return Math.max(Math.min(this.eventsMs, this.decisionsMs), aheadMs - mostApartMs);
    }

    byte[] packed() {
        byte[] bytes = new byte[16];
        Packed.putLong(bytes, 0, this.eventsMs);
        Packed.putLong(bytes, 8, this.decisionsMs);
        return bytes;
    }
}
