// packed_number(packed, fields, which): number `which` of `fields` packed fields (PackedFields.java).
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
                    StaticArgument.scalar("fields", (DataType) DataTypes.INT().notNull(), false),
                    StaticArgument.scalar("which", (DataType) DataTypes.INT().notNull(), false),
                })
                .outputTypeStrategy(TypeStrategies.explicit(DataTypes.INT()))
                .build();
    }

    public Integer eval(byte[] packed, Integer fields, Integer which) {
        return packed == null ? null : Integer.valueOf(PackedFields.slot(packed, 0, which.intValue()));
    }
}
