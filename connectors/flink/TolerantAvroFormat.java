// The format `tolerant-avro-confluent`: avro-confluent that survives a bad record.
//
// Flink's own format has no option to go on after a record that does not decode: one such record ends the job, and
// ends it again after each restart. Worse, its decoder reads ahead, so bytes left over after a record are taken for
// the beginning of the next one, which is valid and then lost. Here such records are skipped and counted (metric
// `undecodable`), and the decoder behind them is thrown away. The lake's worker writes their dead letters.
// A registry that does not answer says nothing about a record: then the job fails and tries again, as before.
//
// Compiled by connectors/flink/formats.py with the compiler inside Flink (Janino: Java 8 without lambdas; generic
// types are read but not checked), because the runtime that the project installs has none.
package headwater;

import java.io.IOException;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.util.Set;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.metrics.Counter;
import org.apache.flink.table.connector.ChangelogMode;
import org.apache.flink.table.connector.format.DecodingFormat;
import org.apache.flink.table.connector.source.DynamicTableSource;
import org.apache.flink.table.factories.DeserializationFormatFactory;
import org.apache.flink.table.factories.DynamicTableFactory;
import org.apache.flink.table.factories.FactoryUtil;
import org.apache.flink.table.types.DataType;
import org.apache.flink.util.InstantiationUtil;

/** Finds avro-confluent and takes its options. */
public final class TolerantAvroFormat implements DeserializationFormatFactory {

    private DeserializationFormatFactory strict() {
        return (DeserializationFormatFactory) FactoryUtil.discoverFactory(
                Thread.currentThread().getContextClassLoader(), DeserializationFormatFactory.class, "avro-confluent");
    }

    public String factoryIdentifier() {
        return "tolerant-avro-confluent";
    }

    public Set requiredOptions() {
        return strict().requiredOptions();
    }

    public Set optionalOptions() {
        return strict().optionalOptions();
    }

    public DecodingFormat createDecodingFormat(DynamicTableFactory.Context context, ReadableConfig options) {
        return new Decoding((DecodingFormat) strict().createDecodingFormat(context, options));
    }
}

final class Decoding implements DecodingFormat {
    private final DecodingFormat strict;

    Decoding(DecodingFormat strict) {
        this.strict = strict;
    }

    public Object createRuntimeDecoder(DynamicTableSource.Context context, DataType type) {
        return new Decoder((DeserializationSchema) this.strict.createRuntimeDecoder(context, type));
    }

    public ChangelogMode getChangelogMode() {
        return this.strict.getChangelogMode();
    }
}

final class Decoder implements DeserializationSchema {
    private static final long serialVersionUID = 1L;
    private static final int HEADER_BYTES = 5;
    private static final String NO_POSITION = "the Avro decoder of this Flink can't be asked for its position";

    /** Never opened, so that a fresh decoder can be made of it. */
    private final DeserializationSchema pristine;

    private transient DeserializationSchema strict;
    private transient DeserializationSchema.InitializationContext context;
    private transient Counter undecodable;
    private transient Object decoder;
    private transient Method isEnd;

    Decoder(DeserializationSchema pristine) {
        this.pristine = pristine;
    }

    public void open(DeserializationSchema.InitializationContext context) throws Exception {
        this.context = context;
        this.undecodable = context.getMetricGroup().counter("undecodable");
        renew();
    }

    public Object deserialize(byte[] message) throws IOException {
        if (message == null || message.length < HEADER_BYTES || message[0] != 0) {
            this.undecodable.inc();
            return null;
        }
        Object row = null;
        try {
            row = this.strict.deserialize(message);
            if (row != null && isAtEnd()) {
                return row;
            }
        } catch (IOException e) {
            if (!isOfTheRecord(e)) {
                throw e;
            }
        }
        this.undecodable.inc();
        try {
            renew();
        } catch (Exception e) {
            throw new IOException("no fresh decoder", e);
        }
        return null;
    }

    public boolean isEndOfStream(Object row) {
        return false;
    }

    public TypeInformation getProducedType() {
        return this.pristine.getProducedType();
    }

    private void renew() throws Exception {
        ClassLoader loader = Thread.currentThread().getContextClassLoader();
        this.strict = (DeserializationSchema) InstantiationUtil.clone(this.pristine, loader);
        this.strict.open(this.context);
        this.decoder = null;
    }

    /** Whether the record was the whole message. The decoder is made at the first record, and kept. */
    private boolean isAtEnd() throws IOException {
        try {
            if (this.decoder == null) {
                this.decoder = field(field(this.strict, "nestedSchema"), "decoder");
                this.isEnd = this.decoder.getClass().getMethod("isEnd", new Class[0]);
            }
            return ((Boolean) this.isEnd.invoke(this.decoder, new Object[0])).booleanValue();
        } catch (Exception e) {
            throw new IOException(NO_POSITION, e);
        }
    }

    private static Object field(Object owner, String name) throws Exception {
        for (Class type = owner.getClass(); type != null; type = type.getSuperclass()) {
            Field[] fields = type.getDeclaredFields();
            for (int i = 0; i < fields.length; i++) {
                if (fields[i].getName().equals(name)) {
                    fields[i].setAccessible(true);
                    return fields[i].get(owner);
                }
            }
        }
        throw new NoSuchFieldException(name);
    }

    /** False when the registry could not be asked: any network error, or an answer other than "not found". */
    private static boolean isOfTheRecord(Throwable e) {
        for (Throwable cause = e; cause != null; cause = cause.getCause()) {
            String type = cause.getClass().getName();
            if (type.endsWith("RestClientException")) {
                return String.valueOf(cause.getMessage()).indexOf("error code: 404") >= 0;
            }
            if (type.startsWith("java.net.") || type.startsWith("javax.net.") || type.startsWith("java.nio.channels.")) {
                return false;
            }
            if (NO_POSITION.equals(cause.getMessage())) {
                return false;
            }
        }
        return true;
    }
}
