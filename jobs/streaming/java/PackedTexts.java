// packed_texts(a, b, c, d, e, f): texts as one value, each may be null (connectors/flink/java/PackedFields.java).
package headwater;

import java.util.Arrays;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.catalog.DataTypeFactory;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.functions.ScalarFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.TypeInference;
import org.apache.flink.table.types.inference.TypeStrategies;

public class PackedTexts extends ScalarFunction {
    private transient PackedWriter out;

    public TypeInference getTypeInference(DataTypeFactory types) {
        DataType text = (DataType) DataTypes.STRING().bridgedTo(StringData.class);
        return TypeInference.newBuilder()
                .staticArguments(new StaticArgument[] {
                    StaticArgument.scalar("a", text, false),
                    StaticArgument.scalar("b", text, false),
                    StaticArgument.scalar("c", text, false),
                    StaticArgument.scalar("d", text, false),
                    StaticArgument.scalar("e", text, false),
                    StaticArgument.scalar("f", text, false),
                })
                .outputTypeStrategy(TypeStrategies.explicit((DataType) DataTypes.BYTES().notNull()))
                .build();
    }

    public byte[] eval(StringData a, StringData b, StringData c, StringData d, StringData e, StringData f) {
        if (this.out == null) {
            this.out = new PackedWriter(128);
        }
        this.out.position = 0;
        this.out.put(a);
        this.out.put(b);
        this.out.put(c);
        this.out.put(d);
        this.out.put(e);
        this.out.put(f);
        return Arrays.copyOf(this.out.bytes, this.out.position);
    }
}
