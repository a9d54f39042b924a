// packed_number(packed, texts, which): number `which` behind the texts of packed fields (PackedFields.java).
package headwater;

import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.functions.ScalarFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

public class PackedNumber extends ScalarFunction {
    public TypeInference getTypeInference(DataTypeFactory types) {
        return TypeInference.newBuilder()
                .staticArguments(new StaticArgument[] {
                    StaticArgument.scalar("packed", DataTypes.BYTES(), false),
                    StaticArgument.scalar("texts", (DataType) DataTypes.INT().notNull(), false),
                    StaticArgument.scalar("which", (DataType) DataTypes.INT().notNull(), false),
                })
                .outputTypeStrategy(TypeStrategies.explicit(DataTypes.INT()))
                .build();
    }

    public Integer eval(byte[] packed, Integer texts, Integer which) {
        return packed == null
                ? null
                : Integer.valueOf(PackedFields.number(packed, texts.intValue(), which.intValue()));
    }
}
