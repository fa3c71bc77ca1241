package org.ringtribe.tomcat;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Applications of one test, which are gone after it, and who visits them. */
final class Site implements AutoCloseable {

    private final List<Path> directories = new ArrayList<>();

    /**
     * @param inside of the web-app element, which is distributable
     * @param context attributes of the Context element
     */
    void add(String name, String context, String inside) throws IOException {
        directories.add(OneNode.BASE.resolve("webapps").resolve(name));
        OneNode.write("../webapps/" + name + "/META-INF/context.xml", "<Context " + context + "/>");
        OneNode.write("../webapps/" + name + "/WEB-INF/web.xml",
                "<web-app metadata-complete='true' version='4.0'><distributable/>" + inside + "</web-app>");
    }

    /** @return elements for web.xml */
    static String servlet(Class<?> type, String path) {
        String name = path.replace("/", "_").replace("*", "_");
        return "<servlet><servlet-name>" + name + "</servlet-name><servlet-class>" + type.getName()
                + "</servlet-class><async-supported>true</async-supported></servlet><servlet-mapping><servlet-name>" + name
                + "</servlet-name><url-pattern>" + path + "</url-pattern></servlet-mapping>";
    }

    @Override
    public void close() throws IOException {
        // The same one may have been given twice.
        for (Path directory : new LinkedHashSet<>(directories)) {
            try (Stream<Path> all = Files.walk(directory)) {
                for (Path path : all.sorted(Comparator.reverseOrder()).collect(Collectors.toList())) {
                    Files.delete(path);
                }
            }
        }
    }

    /** A browser: it has cookies, and follows redirects only when it is told to. */
    static final class Visitor {
        final Map<String,String> cookies = new LinkedHashMap<>();
        int status;
        String text;
        String location;
        String failed;

        /** @return the text of the answer */
        String get(OneNode node, String path) throws IOException {
            return ask(node, path, null);
        }

        String post(OneNode node, String path, String form) throws IOException {
            return ask(node, path, form);
        }

        private String ask(OneNode node, String path, String form) throws IOException {
            URL url = new URL("http://127.0.0.1:" + node.port() + path);
            HttpURLConnection connection = (HttpURLConnection) url.openConnection();
            connection.setReadTimeout(30000);
            connection.setInstanceFollowRedirects(false);
            if (!cookies.isEmpty()) {
                connection.setRequestProperty("Cookie", cookies.entrySet().stream()
                        .map(cookie -> cookie.getKey() + "=" + cookie.getValue()).collect(Collectors.joining("; ")));
            }
            if (form != null) {
                connection.setDoOutput(true);
                try (OutputStream out = connection.getOutputStream()) {
                    out.write(form.getBytes(StandardCharsets.UTF_8));
                }
            }
            status = connection.getResponseCode();
            InputStream in = status < 400 ? connection.getInputStream() : connection.getErrorStream();
            text = in == null ? "" : new String(in.readAllBytes(), StandardCharsets.UTF_8);
            location = connection.getHeaderField("Location");
            failed = connection.getHeaderField("X-Ringtribe-Replication");
            List<String> set = connection.getHeaderFields().get("Set-Cookie");
            for (String cookie : set == null ? new ArrayList<String>() : set) {
                String[] parts = cookie.split(";")[0].split("=", 2);
                cookies.put(parts[0], parts[1]);
            }
            return text;
        }

        /** @return where the last answer sent it, as a path */
        String path() {
            return location.replaceFirst("^http://[^/]*", "");
        }

        String session() {
            return cookies.get("JSESSIONID");
        }
    }
}
