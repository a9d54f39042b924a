// The schema registry, as far as formats and connectors ask it, and the header that its ids are written in. Source: the
// Confluent REST API of the registry (`/schemas/ids`, `/subjects/{subject}/versions`) and its wire format.
package headwater;

import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.Serializable;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

/** A schema under a subject. Errors of all calls: IOException when the registry does not answer, or refuses, with why. */
final class RegistrySubject implements Serializable {
    private static final long serialVersionUID = 1L;
    static final int HEADER_BYTES = 5;

    private final String url;
    private final String subject;
    private final String schema;

    RegistrySubject(String url, String subject, String schema) {
        this.url = url;
        this.subject = subject;
        this.schema = schema;
    }

    /** The schema's id; it is registered if it is new. */
    int schemaId() throws IOException {
        ObjectNode body = new ObjectMapper().createObjectNode();
        body.put("schema", this.schema);
        JsonNode answer = ask(this.url + "/subjects/" + this.subject + "/versions", body.toString());
        return ((JsonNode) answer.get("id")).asInt();
    }

    /** The text of the schema with an id; null when the registry has none. */
    static String schemaOf(String url, int id) throws IOException {
        try {
            return ((JsonNode) ask(url + "/schemas/ids/" + id, null).get("schema")).asText();
        } catch (FileNotFoundException e) {
            return null;
        }
    }

    static byte[] header(int id) {
        return new byte[] {0, (byte) (id >> 24), (byte) (id >> 16), (byte) (id >> 8), (byte) id};
    }

    private static JsonNode ask(String url, String body) throws IOException {
        HttpURLConnection connection = (HttpURLConnection) new URL(url).openConnection();
        connection.setConnectTimeout(5000);
        connection.setReadTimeout(10000);
        if (body != null) {
            connection.setRequestMethod("POST");
            connection.setRequestProperty("Content-Type", "application/vnd.schemaregistry.v1+json");
            connection.setDoOutput(true);
            OutputStream out = connection.getOutputStream();
            out.write(body.getBytes(StandardCharsets.UTF_8));
            out.close();
        }
        int status = connection.getResponseCode();
        boolean refused = status >= HttpURLConnection.HTTP_BAD_REQUEST;
        String said = text(refused ? connection.getErrorStream() : connection.getInputStream());
        if (refused) {
            String why = "The schema registry refused " + url + " with " + status + ": " + said;
            throw status == HttpURLConnection.HTTP_NOT_FOUND ? new FileNotFoundException(why) : new IOException(why);
        }
        return (JsonNode) new ObjectMapper().readTree(said);
    }

    /** All of a stream; of none, nothing. */
    private static String text(InputStream from) throws IOException {
        if (from == null) {
            return "";
        }
        try {
            return new String(from.readAllBytes(), StandardCharsets.UTF_8);
        } finally {
            from.close();
        }
    }
}
