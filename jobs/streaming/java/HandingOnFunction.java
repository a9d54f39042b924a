// Functions that hand rows of their table on as they are, within rows of their own (EventOutput.java). Each call is
// specialised for the type of its table, for only of a table of a known type does Flink hand over its own rows; it converts
// every field of others and back.
package headwater;

import java.util.EnumSet;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.functions.ProcessTableFunction;
import org.apache.flink.table.functions.SpecializedFunction;
import org.apache.flink.table.functions.TableSemantics;
import org.apache.flink.table.functions.UserDefinedFunction;
import org.apache.flink.table.types.DataType;
import org.apache.flink.table.types.inference.StaticArgument;
import org.apache.flink.table.types.inference.StaticArgumentTrait;

abstract class HandingOnFunction extends ProcessTableFunction implements SpecializedFunction {
    static final EnumSet BY_KEY_IN_TIME =
            EnumSet.of(StaticArgumentTrait.SET_SEMANTIC_TABLE, StaticArgumentTrait.REQUIRE_ON_TIME);

    /** The type of the table; null until a call is known. */
    private transient DataType row;

    /** Another one of its class. */
    abstract HandingOnFunction another();

    public UserDefinedFunction specialize(SpecializedFunction.SpecializedContext context) {
        HandingOnFunction special = another();
        special.row = ((TableSemantics) context.getCallContext().getTableSemantics(0).get()).dataType();
        return special;
    }

    /** The table argument `input`, of any columns until a call is known. */
    final StaticArgument input(EnumSet traits) {
        return this.row == null
                ? StaticArgument.table("input", RowData.class, false, traits)
                : StaticArgument.table("input", (DataType) this.row.bridgedTo(RowData.class), false, traits);
    }
}
