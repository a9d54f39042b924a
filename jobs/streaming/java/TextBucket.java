// text_bucket(text, buckets): which of so many parts of all texts a text belongs to.
package headwater;

import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.ScalarFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

public class TextBucket extends ScalarFunction {
    public TypeInference getTypeInference(DataTypeFactory types) {
        return TypeInference.newBuilder()
                .staticArguments(new StaticArgument[] {
                    StaticArgument.scalar("text", (DataType) DataTypes.STRING().bridgedTo(StringData.class), false),
                    StaticArgument.scalar("buckets", (DataType) DataTypes.INT().notNull(), false),
                })
                .outputTypeStrategy(TypeStrategies.explicit(DataTypes.INT()))
                .build();
    }

    public Integer eval(StringData text, Integer buckets) {
        return EventBucket.of(KeptByBucket.key(text), buckets);
    }
}
