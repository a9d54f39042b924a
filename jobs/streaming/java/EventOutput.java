// What the functions that deduplicate take, and what they give: ROW<event ROW<columns of the input>>, and for AdLives a
// session beside it, one of the two null.
package headwater;

import java.util.ArrayList;
import java.util.EnumSet;
import java.util.List;
import java.util.Optional;
import org.apache.flink.table.api.DataTypes;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.SpecializedFunction;
import org.apache.flink.table.functions.TableSemantics;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.CallContext;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.StaticArgumentTrait;
import org.apache.flink.table.types.inference.TypeStrategy;

final class EventOutput implements TypeStrategy {
    private final DataType session;

    /**
     * The table argument `input`: rows by key, with a row time; of any columns where `row` is null, as it is until a call is
     * known. Only for a table of a known type does Flink hand over its own rows: it converts every field of others and back.
     */
    static StaticArgument input(DataType row) {
        EnumSet traits = EnumSet.of(StaticArgumentTrait.SET_SEMANTIC_TABLE, StaticArgumentTrait.REQUIRE_ON_TIME);
        return row == null
                ? StaticArgument.table("input", RowData.class, false, traits)
                : StaticArgument.table("input", (DataType) row.bridgedTo(RowData.class), false, traits);
    }

    /** The type of the table that a function is called with. */
    static DataType row(SpecializedFunction.SpecializedContext context) {
        return ((TableSemantics) context.getCallContext().getTableSemantics(0).get()).dataType();
    }

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
