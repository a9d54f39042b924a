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
        for (int i = 0; i < sums.count(); i++) {
            if (sums.number(i) != 0) {
                json.writeFieldName(this.numbers[sums.column(i)]);
                json.writeNumber(sums.number(i));
            }
        }
        for (int i = 0; i < this.unions.length; i++) {
            if (sums.collected[i] != null) {
                json.writeFieldName(this.unions[i]);
                texts(json, sums.collected[i]);
            }
        }
        json.writeEndObject();
        json.close();
        return this.out.toByteArray();
    }

    private void key(JsonGenerator json, byte[] key) throws IOException {
        PackedReader in = new PackedReader(key, 0);
        numbers(json, in, this.longs);
        for (int i = 0; i < this.texts.length; i++) {
            int length = in.overText();
            if (length >= 0) {
                json.writeFieldName(this.texts[i]);
                json.writeUTF8String(key, in.position - length, length);
            } else if (this.columns.absent != null) {
                json.writeFieldName(this.texts[i]);
                json.writeString(this.columns.absent);
            }
        }
        numbers(json, in, this.ints);
    }

    private static void numbers(JsonGenerator json, PackedReader in, SerializedString[] names) throws IOException {
        for (int i = 0; i < names.length; i++) {
            json.writeFieldName(names[i]);
            json.writeNumber(in.next());
        }
    }

    private static void texts(JsonGenerator json, PackedWriter texts) throws IOException {
        PackedReader in = new PackedReader(texts.bytes, 0);
        json.writeStartArray();
        while (in.position < texts.position) {
            int length = in.overText();
            json.writeUTF8String(in.bytes, in.position - length, length);
        }
        json.writeEndArray();
    }
}
