// Short fields of a record as one value of bytes: what RowAvroFormat gives as metadata `packed`, and part of a key in
// AddingOperator. First the texts, then the numbers (PackedBytes.java). Equal fields are equal bytes.
//
// Why. Flink makes five objects of a text in a row, and each query step copies it. The dimensions of an event are sixteen
// columns that nobody looks at between the topic and the sums: as one value they are copied once.
package headwater;

import java.util.Arrays;
import org.apache.flink.table.data.binary.BinaryStringData;

final class PackedFields {
    private PackedFields() {}

    /** The text `which`, a view of the bytes, or null. */
    static BinaryStringData text(byte[] packed, int which) {
        return behind(packed, which).text();
    }

    /** The number `which` behind `texts` texts. */
    static int number(byte[] packed, int texts, int which) {
        PackedReader in = behind(packed, texts);
        for (int i = 0; i < which; i++) {
            in.next();
        }
        return (int) in.next();
    }

    /** Of each field the greater: of texts by their bytes, null least. Both have `texts` texts, then `numbers` numbers. */
    static byte[] greatest(byte[] one, byte[] other, int texts, int numbers) {
        PackedReader ones = new PackedReader(one, 0);
        PackedReader others = new PackedReader(other, 0);
        PackedWriter out = new PackedWriter(one.length + other.length);
        for (int i = 0; i < texts; i++) {
            BinaryStringData text = ones.text();
            BinaryStringData otherText = others.text();
            boolean first = otherText == null || text != null && text.compareTo(otherText) >= 0;
            out.put(first ? text : otherText);
        }
        for (int i = 0; i < numbers; i++) {
            out.put(Math.max(ones.next(), others.next()));
        }
        return Arrays.copyOf(out.bytes, out.position);
    }

    /** A reader behind so many texts. */
    static PackedReader behind(byte[] packed, int texts) {
        PackedReader in = new PackedReader(packed, 0);
        for (int i = 0; i < texts; i++) {
            in.overText();
        }
        return in;
    }
}
