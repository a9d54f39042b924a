// packed_text(packed, which): text `which` of packed fields (PackedFields.java), or null. A view of the bytes, nothing is
// copied.
package headwater;

import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.ScalarFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategy;

public class PackedText extends ScalarFunction {
    public TypeInference getTypeInference(DataTypeFactory types) {
        return TypeInference.newBuilder()
                .staticArguments(new StaticArgument[] {
                    StaticArgument.scalar("packed", DataTypes.BYTES(), false),
                    StaticArgument.scalar("which", (DataType) DataTypes.INT().notNull(), false),
                })
                .outputTypeStrategy(new Text())
                .build();
    }

    public StringData eval(byte[] packed, Integer which) {
        return packed == null ? null : PackedFields.text(packed, which.intValue());
    }

    private static final class Text implements TypeStrategy {
        public Optional inferType(CallContext call) {
            return Optional.of(DataTypes.STRING().bridgedTo(StringData.class));
        }
    }
}
