// The number of a text among a few known ones, at less than a hash map costs: by its length and two of its bytes, and then
// by comparing it.
package headwater;

import java.nio.charset.StandardCharsets;
import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;

final class KnownTexts {
    private static final int PLACES = 128;

    private final byte[][] texts = new byte[PLACES][];
    private final int[] numbers = new int[PLACES];

    /** Of different texts, fewer than PLACES and none of them empty. */
    KnownTexts(String[] known) {
        for (int i = 0; i < known.length; i++) {
            byte[] text = known[i].getBytes(StandardCharsets.UTF_8);
            int place = place(text.length, text[0], text[text.length - 1]);
            while (this.texts[place] != null) {
                place = (place + 1) % PLACES;
            }
            this.texts[place] = text;
            this.numbers[place] = i;
        }
    }

    /** Its place in the array; -1: it is not one of them. */
    int number(StringData text) {
        BinaryStringData binary = (BinaryStringData) text;
        binary.ensureMaterialized();
        int size = binary.getSizeInBytes();
        if (size == 0) {
            return -1;
        }
        int from = binary.getOffset();
        MemorySegment segment = binary.getSegments()[0];
        if (from + size > segment.size()) {
            return number(BinaryStringData.fromBytes(binary.toBytes()));
        }
        int place = place(size, segment.get(from), segment.get(from + size - 1));
        while (this.texts[place] != null) {
            byte[] known = this.texts[place];
            int same = known.length == size ? 0 : -1;
            while (same >= 0 && same < size && segment.get(from + same) == known[same]) {
                same++;
            }
            if (same == size) {
                return this.numbers[place];
            }
            place = (place + 1) % PLACES;
        }
        return -1;
    }

    private static int place(int size, byte first, byte last) {
        return (size * 5 + first * 7 + last) & PLACES - 1;
    }
}
