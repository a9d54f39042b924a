// How RowAvroFormat decodes records of one writer's schema. What is common is one call per field of generated code
// (RowAvroLayout.java), which ends in the methods of this class; what is rare is a walk over the field's type.
package headwater;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.core.memory.MemorySegment;
import org.apache.flink.core.memory.MemorySegmentFactory;
import org.apache.flink.table.api.ValidationException;
import org.apache.flink.table.data.GenericArrayData;
import org.apache.flink.table.data.GenericMapData;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.StringData;
import org.apache.flink.table.data.binary.BinaryStringData;
import org.apache.flink.table.data.binary.BinaryStringDataUtil;

/** Public, with protected methods, for the generated class, which another class loader has. Not shared by threads. */
public abstract class RowAvroPlan {
    /** Ends the decoding of a record; without a stack, because a flood of bad records must stay cheap. */
    private static final class Undecodable extends RuntimeException {
        Undecodable() {
            super("", null, false, false);
        }
    }

    private static final Undecodable UNDECODABLE = new Undecodable();
    private static final BinaryStringData COMMA = BinaryStringData.fromString(",");
    private static final long NOT_ASCII = 0x8080808080808080L;

    RowAvroLayout layout;

    private byte[] buffer;
    private MemorySegment[] segments;
    private int position;
    /** Where the record has the texts that are packed (-1: it has not), and their lengths (-1: null); then the numbers. */
    private int[] starts;
    private int[] slots;
    private byte[] packed;
    private final PackedWriter packing = new PackedWriter(512);

    /** Fills the row's columns; false when the bytes are not exactly one record. */
    final boolean decode(byte[] message, int from, GenericRowData row) {
        this.buffer = message;
        this.segments = null;
        int end;
        try {
            this.layout.packing.begin(this.starts, this.slots);
            end = fields(message, from, row);
            this.packed = this.slots.length == 0 ? null : pack();
        } catch (Undecodable e) {
            return false;
        } catch (ArrayIndexOutOfBoundsException e) {
            return false;
        } finally {
            this.buffer = null;
        }
        int[] absent = this.layout.absent;
        for (int i = 0; i < absent.length; i++) {
            row.setField(absent[i], this.layout.defaults[i]);
        }
        return end == message.length;
    }

    /** The packed fields of the record decoded last. */
    final byte[] packed() {
        return this.packed;
    }

    final void use(RowAvroLayout layout) {
        this.layout = layout;
        this.starts = new int[layout.packing.texts.length];
        this.slots = new int[this.starts.length + layout.packing.numbers.length];
    }

    private byte[] pack() {
        PackedWriter out = this.packing;
        out.position = 0;
        for (int i = 0; i < this.starts.length; i++) {
            int length = this.slots[i];
            int start = this.starts[i];
            out.put(length + 1L);
            if (length > 0 && start < 0) {
                out.put(this.layout.packing.defaults[i], 0, length);
            } else if (length > 0) {
                requireUtf8(start, length);
                out.put(this.buffer, start, length);
            }
        }
        for (int i = this.starts.length; i < this.slots.length; i++) {
            out.put((long) this.slots[i]);
        }
        return Arrays.copyOf(out.bytes, out.position);
    }

    // ---- what the generated code calls: each reads at `p` and gives the position after ----------------------------

    /** All fields in their order. */
    protected abstract int fields(byte[] b, int p, GenericRowData row);

    /** Whether the union at `p`, of null and one type, has a value; `absent` is the index of null. */
    protected final boolean present(byte[] b, int p, int absent) {
        int index = b[p];
        if ((index & ~2) != 0) {
            throw UNDECODABLE;
        }
        return index >> 1 != absent;
    }

    protected final int overNumber(byte[] b, int p) {
        if (b[p] >= 0) {
            return p + 1;
        }
        this.position = p;
        readLong();
        return this.position;
    }

    protected final int wideNumber(int p, GenericRowData row, int column) {
        this.position = p;
        row.setField(column, Long.valueOf(readLong()));
        return this.position;
    }

    protected final int number(int p, GenericRowData row, int column) {
        this.position = p;
        long number = readLong();
        if (number != (int) number) {
            throw UNDECODABLE;
        }
        row.setField(column, Integer.valueOf((int) number));
        return this.position;
    }

    protected final int overBytes(int p) {
        this.position = p;
        int size = (int) length();
        return this.position + size;
    }

    protected final int text(int p, GenericRowData row, int column) {
        this.position = p;
        int size = (int) length();
        row.setField(column, textAt(this.position, size));
        return this.position + size;
    }

    protected final int packText(int p, int which) {
        this.position = p;
        int size = (int) length();
        this.starts[which] = this.position;
        this.slots[which] = size;
        return this.position + size;
    }

    protected final int packNumber(int p, int which) {
        this.position = p;
        long number = readLong();
        if (number != (int) number) {
            throw UNDECODABLE;
        }
        this.slots[which] = (int) number;
        return this.position;
    }

    protected final int bytes(int p, GenericRowData row, int column) {
        this.position = p;
        row.setField(column, bytes((int) length()));
        return this.position;
    }

    /** Over an array (`each` is 1) or a map (2) of texts. */
    protected final int overTexts(int p, int each) {
        this.position = p;
        for (long count = blockCount(); count != 0; count = blockCount()) {
            for (long i = count * each; i > 0; i--) {
                advance(readLong());
            }
        }
        return this.position;
    }

    /** The items of the array of texts at `p`, with commas between them, into a column. */
    protected final void joined(int p, GenericRowData row, int column) {
        this.position = p;
        BinaryStringData all = BinaryStringData.EMPTY_UTF8;
        int items = 0;
        for (long count = blockCount(); count != 0; count = blockCount()) {
            for (long i = count; i > 0; i--) {
                BinaryStringData item = text();
                all = items++ == 0 ? item : BinaryStringDataUtil.concat(new BinaryStringData[] {all, COMMA, item});
            }
        }
        row.setField(column, all);
    }

    /** The entry of the map of texts at `p` that text `which` asks for, or null, into a column. */
    protected final void entry(int p, GenericRowData row, int which, int column) {
        this.position = p;
        byte[] key = this.layout.texts.keys[which];
        StringData found = null;
        for (long count = blockCount(); count != 0; count = blockCount()) {
            for (long i = count; i > 0; i--) {
                int size = (int) length();
                int from = advance(size);
                int valueSize = (int) length();
                int valueFrom = advance(valueSize);
                if (Arrays.equals(this.buffer, from, from + size, key, 0, key.length)) {
                    found = textAt(valueFrom, valueSize);
                }
            }
        }
        row.setField(column, found);
    }

    /** A field of a rarer type, into a column or (-1) over it. */
    protected final int other(int p, GenericRowData row, int field, int column) {
        this.position = p;
        RowAvroType type = this.layout.types[field];
        if (column < 0) {
            skip(type);
        } else {
            row.setField(column, read(type, this.layout.wide[field]));
        }
        return this.position;
    }

    // ---- the walk over a type ------------------------------------------------------------------------------------

    private void skip(RowAvroType type) {
        switch (type.kind) {
            case RowAvroType.NULL:
                return;
            case RowAvroType.BOOLEAN:
                advance(1);
                return;
            case RowAvroType.INT:
            case RowAvroType.LONG:
            case RowAvroType.ENUM:
                readLong();
                return;
            case RowAvroType.FLOAT:
                advance(4);
                return;
            case RowAvroType.DOUBLE:
                advance(8);
                return;
            case RowAvroType.FIXED:
                advance(type.size);
                return;
            case RowAvroType.BYTES:
            case RowAvroType.STRING:
                advance(readLong());
                return;
            case RowAvroType.UNION:
                skip(branch(type));
                return;
            case RowAvroType.RECORD:
                for (int i = 0; i < type.parts.length; i++) {
                    skip(type.parts[i]);
                }
                return;
            default:
                for (long count = blockCount(); count != 0; count = blockCount()) {
                    for (long i = 0; i < count; i++) {
                        if (type.kind == RowAvroType.MAP) {
                            advance(readLong());
                        }
                        skip(type.items);
                    }
                }
        }
    }

    private Object read(RowAvroType type, boolean wide) {
        switch (type.kind) {
            case RowAvroType.NULL:
                return null;
            case RowAvroType.BOOLEAN:
                int from = advance(1);
                if (this.buffer[from] != 0 && this.buffer[from] != 1) {
                    throw UNDECODABLE;
                }
                return Boolean.valueOf(this.buffer[from] == 1);
            case RowAvroType.INT:
            case RowAvroType.LONG:
                long number = readLong();
                if (wide) {
                    return Long.valueOf(number);
                }
                if (number != (int) number) {
                    throw UNDECODABLE;
                }
                return Integer.valueOf((int) number);
            case RowAvroType.FLOAT:
                float single = Float.intBitsToFloat((int) littleEndian(4));
                return wide ? (Object) Double.valueOf(single) : (Object) Float.valueOf(single);
            case RowAvroType.DOUBLE:
                return Double.valueOf(Double.longBitsToDouble(littleEndian(8)));
            case RowAvroType.BYTES:
                return bytes((int) length());
            case RowAvroType.FIXED:
                return bytes(type.size);
            case RowAvroType.STRING:
                return text();
            case RowAvroType.UNION:
                return read(branch(type), wide);
            case RowAvroType.ARRAY:
                List items = new ArrayList();
                for (long count = blockCount(); count != 0; count = blockCount()) {
                    for (long i = 0; i < count; i++) {
                        items.add(read(type.items, wide));
                    }
                }
                return new GenericArrayData(items.toArray());
            case RowAvroType.MAP:
                Map entries = new LinkedHashMap();
                for (long count = blockCount(); count != 0; count = blockCount()) {
                    for (long i = 0; i < count; i++) {
                        StringData key = text();
                        entries.put(key, read(type.items, wide));
                    }
                }
                return new GenericMapData(entries);
            default:
                throw new ValidationException("records and enums of a record are not read into columns");
        }
    }

    private RowAvroType branch(RowAvroType union) {
        long index = readLong();
        if (index < 0 || index >= union.parts.length) {
            throw UNDECODABLE;
        }
        return union.parts[(int) index];
    }

    /** Number of items in the next block; 0 at the end. An item needs a byte at least, or a count could be anything. */
    private long blockCount() {
        long count = readLong();
        if (count < 0) {
            readLong();
            count = -count;
        }
        if (count < 0 || count > this.buffer.length - this.position) {
            throw UNDECODABLE;
        }
        return count;
    }

    private BinaryStringData text() {
        int size = (int) length();
        return textAt(advance(size), size);
    }

    private BinaryStringData textAt(int from, int size) {
        requireUtf8(from, size);
        return new BinaryStringData(segments(), from, size);
    }

    private MemorySegment[] segments() {
        if (this.segments == null) {
            this.segments = new MemorySegment[] {MemorySegmentFactory.wrap(this.buffer)};
        }
        return this.segments;
    }

    private void requireUtf8(int from, int size) {
        if (isAscii(from, from + size)) {
            return;
        }
        try {
            StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(this.buffer, from, size));
        } catch (CharacterCodingException e) {
            throw UNDECODABLE;
        }
    }

    private boolean isAscii(int from, int end) {
        if (end - from < 8) {
            byte any = 0;
            for (int at = from; at < end; at++) {
                any |= this.buffer[at];
            }
            return any >= 0;
        }
        MemorySegment segment = segments()[0];
        long any = segment.getLong(end - 8); // which may overlap the one before
        for (int at = from; at + 8 < end; at += 8) {
            any |= segment.getLong(at);
        }
        return (any & NOT_ASCII) == 0;
    }

    private byte[] bytes(int size) {
        int from = advance(size);
        byte[] copy = new byte[size];
        System.arraycopy(this.buffer, from, copy, 0, size);
        return copy;
    }

    private long length() {
        long size = readLong();
        if (size < 0 || size > this.buffer.length - this.position) {
            throw UNDECODABLE;
        }
        return size;
    }

    /** Moves on by `size` bytes; gives the position before. */
    private int advance(long size) {
        if (size < 0 || size > this.buffer.length - this.position) {
            throw UNDECODABLE;
        }
        int from = this.position;
        this.position = from + (int) size;
        return from;
    }

    private long readLong() {
        byte first = this.buffer[this.position];
        if (first >= 0) {
            this.position++;
            return (first >>> 1) ^ -(first & 1);
        }
        int shift = 0;
        long bits = 0;
        while (shift < 70) {
            byte part = this.buffer[this.position++];
            bits |= (long) (part & 0x7F) << shift;
            if (part >= 0) {
                return (bits >>> 1) ^ -(bits & 1);
            }
            shift += 7;
        }
        throw UNDECODABLE;
    }

    private long littleEndian(int size) {
        int from = advance(size);
        long bits = 0;
        for (int i = size - 1; i >= 0; i--) {
            bits = (bits << 8) | (this.buffer[from + i] & 0xFF);
        }
        return bits;
    }
}
