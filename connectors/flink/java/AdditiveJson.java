// The JSON object that additive-kafka writes for a key's sums. What is 0, and a null number, is left out: most are.
package headwater;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonGenerator;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.io.SerializedString;

final class AdditiveJson {
    private final AdditiveColumns columns;
    private final JsonFactory factory = new JsonFactory();
    private final ByteArrayOutputStream out = new ByteArrayOutputStream(2048);
    private final SerializedString[] longs;
    private final SerializedString[] texts;
    private final SerializedString[] ints;
    private final SerializedString[] numbers;
    private final SerializedString[] unions;

    AdditiveJson(AdditiveColumns columns) {
        this.columns = columns;
        this.longs = names(columns.named(columns.longs), 0);
        this.texts = names(columns.texts, 0);
        this.ints = names(columns.ints, 0);
        this.unions = names(columns.named(columns.unions), 0);
        this.numbers = names(columns.named(columns.numbers), columns.countNames.length);
        for (int i = 0; i < columns.countNames.length; i++) {
            this.numbers[columns.numbers.length + i] = new SerializedString(columns.countNames[i]);
        }
    }

    private static SerializedString[] names(String[] of, int more) {
        SerializedString[] names = new SerializedString[of.length + more];
        for (int i = 0; i < of.length; i++) {
            names[i] = new SerializedString(of[i]);
        }
        return names;
    }

    byte[] of(Sums sums) throws IOException {
        this.out.reset();
        JsonGenerator json = this.factory.createGenerator(this.out);
        json.writeStartObject();
        key(json, sums.key);
        for (int i = 0; i < this.numbers.length; i++) {
            if (sums.numbers[i] != 0) {
                json.writeFieldName(this.numbers[i]);
                json.writeNumber(sums.numbers[i]);
            }
        }
        for (int i = 0; i < this.unions.length; i++) {
            if (sums.collectedBytes[i] > 0) {
                json.writeFieldName(this.unions[i]);
                texts(json, sums.collected[i], sums.collectedBytes[i]);
            }
        }
        json.writeEndObject();
        json.close();
        return this.out.toByteArray();
    }

    private void key(JsonGenerator json, byte[] key) throws IOException {
        int slots = 0;
        for (int i = 0; i < this.longs.length; i++) {
            json.writeFieldName(this.longs[i]);
            json.writeNumber((long) PackedFields.get(key, slots + 4) << 32 | PackedFields.get(key, slots) & 0xFFFFFFFFL);
            slots += 8;
        }
        int at = slots + (this.texts.length + this.ints.length) * PackedFields.SLOT_BYTES;
        for (int i = 0; i < this.texts.length; i++) {
            int length = PackedFields.slot(key, slots, i);
            if (length != PackedFields.NULL) {
                json.writeFieldName(this.texts[i]);
                json.writeUTF8String(key, at, length);
                at += length;
            } else if (this.columns.absent != null) {
                json.writeFieldName(this.texts[i]);
                json.writeString(this.columns.absent);
            }
        }
        for (int i = 0; i < this.ints.length; i++) {
            json.writeFieldName(this.ints[i]);
            json.writeNumber(PackedFields.slot(key, slots, this.texts.length + i));
        }
    }

    private static void texts(JsonGenerator json, byte[] bytes, int end) throws IOException {
        json.writeStartArray();
        for (int at = 0; at < end;) {
            int length = PackedFields.get(bytes, at);
            json.writeUTF8String(bytes, at + PackedFields.SLOT_BYTES, length);
            at += PackedFields.SLOT_BYTES + length;
        }
        json.writeEndArray();
    }
}
