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
    private final SerializedString[] keys;
    private final SerializedString[] numbers;
    private final SerializedString[] unions;

    AdditiveJson(AdditiveColumns columns) {
        this.columns = columns;
        this.keys = names(columns, columns.keys, 0);
        this.unions = names(columns, columns.unions, 0);
        this.numbers = names(columns, columns.numbers, columns.countNames.length);
        for (int i = 0; i < columns.countNames.length; i++) {
            this.numbers[columns.numbers.length + i] = new SerializedString(columns.countNames[i]);
        }
    }

    private static SerializedString[] names(AdditiveColumns columns, int[] positions, int more) {
        SerializedString[] names = new SerializedString[positions.length + more];
        for (int i = 0; i < positions.length; i++) {
            names[i] = new SerializedString(columns.names[positions[i]]);
        }
        return names;
    }

    byte[] of(Sums sums) throws IOException {
        this.out.reset();
        JsonGenerator json = this.factory.createGenerator(this.out);
        json.writeStartObject();
        int at = 0;
        for (int i = 0; i < this.keys.length; i++) {
            if (this.columns.kinds[i] == AdditiveColumns.TEXT) {
                int length = AdditiveColumns.length(sums.key, at);
                at += AdditiveColumns.LENGTH_BYTES;
                if (length != AdditiveColumns.NO_TEXT) {
                    json.writeFieldName(this.keys[i]);
                    json.writeUTF8String(sums.key, at, length);
                    at += length;
                } else if (this.columns.absent != null) {
                    json.writeFieldName(this.keys[i]);
                    json.writeString(this.columns.absent);
                }
            } else {
                json.writeFieldName(this.keys[i]);
                json.writeNumber(number(sums.key, at));
                at += 8;
            }
        }
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

    private static void texts(JsonGenerator json, byte[] bytes, int end) throws IOException {
        json.writeStartArray();
        for (int at = 0; at < end;) {
            int length = AdditiveColumns.length(bytes, at);
            json.writeUTF8String(bytes, at + AdditiveColumns.LENGTH_BYTES, length);
            at += AdditiveColumns.LENGTH_BYTES + length;
        }
        json.writeEndArray();
    }

    private static long number(byte[] bytes, int at) {
        long bits = 0;
        for (int i = 7; i >= 0; i--) {
            bits = bits << 8 | bytes[at + i] & 0xFF;
        }
        return bits;
    }
}
