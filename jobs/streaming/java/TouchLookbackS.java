// touch_lookback_s(lookbacks, advertiser_id, event_type): for how many seconds a click or an impression of an advertiser can
// be credited with a conversion; 0: with none. `lookbacks` is JSON (AttributionLookbacks.java), read once.
package headwater;

import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.functions.ScalarFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

public class TouchLookbackS extends ScalarFunction {
    private static final StringData CLICK = BinaryStringData.fromString("click");

    private transient AttributionLookbacks known;

    public TypeInference getTypeInference(DataTypeFactory types) {
        DataType text = (DataType) DataTypes.STRING().bridgedTo(StringData.class);
        return TypeInference.newBuilder()
                .staticArguments(new StaticArgument[] {
                    StaticArgument.scalar("lookbacks", text, false),
                    StaticArgument.scalar("advertiser_id", text, false),
                    StaticArgument.scalar("event_type", text, false),
                })
                .outputTypeStrategy(TypeStrategies.explicit(DataTypes.BIGINT()))
                .build();
    }

    public Long eval(StringData lookbacks, StringData advertiser, StringData eventType) {
        if (this.known == null) {
            this.known = AttributionLookbacks.of(lookbacks.toString());
        }
        return Long.valueOf(this.known.ofKind(
                advertiser, CLICK.equals(eventType) ? AttributionTouch.CLICK : AttributionTouch.VIEW));
    }
}
