// What the functions that hand rows on give (HandingOnFunction.java): ROW<event ROW<columns of the input>, ...>, beside it
// what else they say.
package headwater;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.TableSemantics;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.TypeStrategy;

final class EventOutput implements TypeStrategy {
    private final DataTypes.Field[] beside;

    EventOutput(DataTypes.Field[] beside) {
        this.beside = beside;
    }

    public Optional inferType(CallContext call) {
        Optional table = call.getTableSemantics(0);
        if (!table.isPresent()) {
            return Optional.empty();
        }
        DataType event = ((TableSemantics) table.get()).dataType();
        List fields = new ArrayList();
        fields.add(DataTypes.FIELD("event", (DataType) event.nullable()));
        fields.addAll(Arrays.asList(this.beside));
        return Optional.of(DataTypes.ROW(fields).bridgedTo(RowData.class));
    }
}
