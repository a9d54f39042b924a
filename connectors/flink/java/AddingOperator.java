// Adds up rows of equal keys; the operator behind the connector `additive-kafka` (AdditiveKafkaSink.java).
package headwater;

import java.util.Arrays;
import java.util.zip.CRC32C;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.data.GenericRowData;
import org.apache.flink.table.data.RowData;
import org.apache.flink.table.data.binary.BinarySegmentUtils;
import org.apache.flink.table.data.binary.BinaryStringData;

final class AddingOperator extends AbstractStreamOperator implements OneInputStreamOperator {
    private static final long serialVersionUID = 1L;
    /** Rows that are written though no barrier has come: a bound of memory. */
    private static final int MOST_ROWS = 100000;

    private final AdditiveColumns columns;

    private transient AdditiveKey key;
    private transient Sums[] table;
    private transient int rows;
    private transient AdditiveJson json;
    private transient StreamRecord out;

    AddingOperator(AdditiveColumns columns) {
        this.columns = columns;
    }

    public void open() throws Exception {
        super.open();
        this.key = new AdditiveKey(this.columns);
        this.columns.open();
        this.json = new AdditiveJson(this.columns);
        this.table = new Sums[1024];
        this.rows = 0;
        this.out = new StreamRecord(null);
    }

    public void processElement(StreamRecord element) throws Exception {
        RowData row = (RowData) element.getValue();
        this.key.of(row);
        int hash = this.key.hash();
        int at = hash & (this.table.length - 1);
        Sums sums = this.table[at];
        while (sums != null && !(sums.hash == hash && this.key.is(sums.key))) {
            sums = sums.next;
        }
        if (sums == null) {
            sums = new Sums(hash, this.key.copy(), this.columns, this.table[at]);
            this.table[at] = sums;
            this.rows++;
            if (this.rows > this.table.length) {
                grow();
            }
        }
        this.columns.add(sums, row);
        if (this.rows >= MOST_ROWS) {
            flush();
        }
    }

    public void prepareSnapshotPreBarrier(long checkpoint) throws Exception {
        flush();
    }

    public void finish() throws Exception {
        flush();
        super.finish();
    }

    private void flush() throws Exception {
        if (this.rows == 0) {
            return;
        }
        for (int i = 0; i < this.table.length; i++) {
            for (Sums sums = this.table[i]; sums != null; sums = sums.next) {
                this.out.replace(GenericRowData.of(new Object[] {this.json.of(sums)}));
                this.output.collect(this.out);
            }
            this.table[i] = null;
        }
        this.rows = 0;
    }

    private void grow() {
        Sums[] larger = new Sums[this.table.length * 4];
        for (int i = 0; i < this.table.length; i++) {
            Sums sums = this.table[i];
            while (sums != null) {
                Sums next = sums.next;
                int at = sums.hash & (larger.length - 1);
                sums.next = larger[at];
                larger[at] = sums;
                sums = next;
            }
        }
        this.table = larger;
    }
}

/** The running sums of one key: few objects, because there may be many of them for as long as a checkpoint's interval. */
final class Sums {
    final int hash;
    final byte[] key;
    final long[] numbers;
    /** What is collected, each text after its length; `collectedBytes` of it count. They may repeat. */
    final byte[][] collected;
    final int[] collectedBytes;
    Sums next;

    Sums(int hash, byte[] key, AdditiveColumns columns, Sums next) {
        this.hash = hash;
        this.key = key;
        this.numbers = new long[columns.numbers.length + columns.countTexts.length];
        Arrays.fill(this.numbers, columns.sums, columns.numbers.length, Long.MIN_VALUE);
        this.collected = new byte[columns.unions.length][];
        this.collectedBytes = new int[columns.unions.length];
        this.next = next;
    }

    void collect(int union, BinaryStringData text) {
        text.ensureMaterialized();
        int length = text.getSizeInBytes();
        int from = this.collectedBytes[union];
        byte[] bytes = this.collected[union];
        if (bytes == null) {
            bytes = new byte[PackedFields.SLOT_BYTES + length];
        } else if (from + PackedFields.SLOT_BYTES + length > bytes.length) {
            bytes = Arrays.copyOf(bytes, (from + PackedFields.SLOT_BYTES + length) * 2);
        }
        PackedFields.put(bytes, from, length);
        int at = from + PackedFields.SLOT_BYTES;
        BinarySegmentUtils.copyToBytes(text.getSegments(), text.getOffset(), bytes, at, length);
        this.collected[union] = bytes;
        this.collectedBytes[union] = at + length;
    }
}

/**
 * A row's key as bytes, in one buffer that is used again: hashed and compared in one go instead of column by column.
 * First the BIGINTs, then the rest as PackedFields.
 */
final class AdditiveKey {
    private final AdditiveColumns columns;
    /** One instruction for eight bytes on common processors. */
    private final CRC32C checksum = new CRC32C();
    private byte[] bytes = new byte[512];
    private int size;

    AdditiveKey(AdditiveColumns columns) {
        this.columns = columns;
    }

    void of(RowData row) {
        int[] longs = this.columns.longs;
        this.size = 0;
        for (int i = 0; i < longs.length; i++) {
            long number = row.getLong(longs[i]);
            PackedFields.put(this.bytes, this.size, (int) number);
            PackedFields.put(this.bytes, this.size + 4, (int) (number >> 32));
            this.size += 8;
        }
        if (this.columns.packed < 0) {
            pack(row);
            return;
        }
        byte[] packed = row.getBinary(this.columns.packed);
        room(packed.length);
        System.arraycopy(packed, 0, this.bytes, this.size, packed.length);
        this.size += packed.length;
    }

    int hash() {
        this.checksum.reset();
        this.checksum.update(this.bytes, 0, this.size);
        int hash = (int) this.checksum.getValue();
        return hash ^ (hash >>> 15);
    }

    boolean is(byte[] other) {
        return Arrays.equals(this.bytes, 0, this.size, other, 0, other.length);
    }

    byte[] copy() {
        return Arrays.copyOf(this.bytes, this.size);
    }

    private void pack(RowData row) {
        int[] texts = this.columns.textColumns;
        int[] ints = this.columns.intColumns;
        int slot = this.size;
        int slots = (texts.length + ints.length) * PackedFields.SLOT_BYTES;
        room(slots);
        this.size += slots;
        for (int i = 0; i < texts.length; i++) {
            int length = PackedFields.NULL;
            if (!row.isNullAt(texts[i])) {
                BinaryStringData text = (BinaryStringData) row.getString(texts[i]);
                text.ensureMaterialized();
                length = text.getSizeInBytes();
                room(length);
                BinarySegmentUtils.copyToBytes(text.getSegments(), text.getOffset(), this.bytes, this.size, length);
                this.size += length;
            }
            PackedFields.put(this.bytes, slot, length);
            slot += PackedFields.SLOT_BYTES;
        }
        for (int i = 0; i < ints.length; i++) {
            PackedFields.put(this.bytes, slot, row.getInt(ints[i]));
            slot += PackedFields.SLOT_BYTES;
        }
    }

    private void room(int length) {
        if (this.size + length > this.bytes.length) {
            this.bytes = Arrays.copyOf(this.bytes, (this.size + length) * 2);
        }
    }
}
