// life_bucket(event_type, record_id, event_id, buckets): which of so many parts of all ads the ad of an event belongs to;
// what is not about showing an ad belongs where its event id does (LifeEvent.java).
package headwater;

import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.ScalarFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

public class LifeBucket extends ScalarFunction {
    public TypeInference getTypeInference(DataTypeFactory types) {
        DataType text = (DataType) DataTypes.STRING().bridgedTo(StringData.class);
        return TypeInference.newBuilder()
                .staticArguments(new StaticArgument[] {
                    StaticArgument.scalar("event_type", text, false),
                    StaticArgument.scalar("record_id", text, false),
                    StaticArgument.scalar("event_id", DataTypes.BYTES(), false),
                    StaticArgument.scalar("buckets", (DataType) DataTypes.INT().notNull(), false),
                })
                .outputTypeStrategy(TypeStrategies.explicit(DataTypes.INT()))
                .build();
    }

    public Integer eval(StringData eventType, StringData recordId, byte[] eventId, Integer buckets) {
        return EventBucket.of(LifeEvent.of(eventType).key(recordId, eventId), buckets);
    }
}
