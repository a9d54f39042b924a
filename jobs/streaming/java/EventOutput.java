// What the functions that deduplicate give: ROW<event ROW<columns of the input>>, and for AdLives a
// session beside it, one of the two null.
package headwater;

import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.TableSemantics;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.TypeStrategy;

final class EventOutput implements TypeStrategy {
    private final DataType session;

    /** `session` is null for a function that gives events only. */
    EventOutput(DataType session) {
        this.session = session;
    }

    public Optional inferType(CallContext call) {
        Optional table = call.getTableSemantics(0);
        if (!table.isPresent()) {
            return Optional.empty();
        }
        DataType event = ((TableSemantics) table.get()).dataType();
        List fields = new ArrayList();
        fields.add(DataTypes.FIELD("event", (DataType) event.nullable()));
        if (this.session != null) {
            fields.add(DataTypes.FIELD("session", this.session));
        }
        return Optional.of(DataTypes.ROW(fields).bridgedTo(RowData.class));
    }
}
