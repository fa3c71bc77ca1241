package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.lang.management.ManagementFactory;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;

import javax.management.Attribute;
import javax.management.MBeanServer;
import javax.management.ObjectName;
import javax.management.RuntimeOperationsException;
import javax.servlet.AsyncContext;
import javax.servlet.http.HttpServlet;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;

import org.apache.catalina.Session;
import org.apache.catalina.ha.session.SessionMessage;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Requests over HTTP whose session reaches nobody, or whose difference the other member's application refuses. */
class ReplicationFailureTest {

    private static final String CLUSTER_BEAN = "Catalina:type=Cluster";
    private static final String VALVE_BEAN = "Catalina:type=Valve,name=RingtribeReplicationValve";
    private static final String CONNECTOR = "<Connector port='0' address='127.0.0.1'/>";
    private static final String SERVED = "served by the shop";

    /** Changes the session, and answers as the query says. */
    public static final class Shop extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            request.getSession().setAttribute("time", System.nanoTime());
            response.setHeader("X-Shop", "open");
            String query = String.valueOf(request.getQueryString());
            if (query.equals("async")) {
                AsyncContext later = request.startAsync();
                later.start(() -> {
                    try {
                        later.getResponse().getWriter().print(SERVED);
                    } catch (IOException e) {
                        throw new java.io.UncheckedIOException(e);
                    }
                    later.complete();
                });
                return;
            }
            response.getWriter().print(SERVED);
            if (query.equals("flushed")) {
                response.flushBuffer();
            } else if (query.equals("large")) {
                response.getWriter().print(new String(new char[20000]).replace('\0', '.'));
            } else if (query.equals("newid")) {
                request.changeSessionId();
            } else if (query.equals("huge")) {
                request.getSession().setAttribute("huge", new byte[200000]);
            } else if (query.equals("redirected")) {
                response.sendRedirect("elsewhere");
            } else if (query.equals("logout")) {
                request.getSession().invalidate();
            }
        }
    }

    /** An answer of the node. */
    private static final class Answer {
        final int status;
        final String text;
        final String failed;
        final String retryAfter;
        final String shop;
        final String cookie;

        Answer(OneNode node, String query, String cookie) throws IOException {
            URL url = new URL("http://127.0.0.1:" + node.port() + "/shop/buy" + query);
            HttpURLConnection connection = (HttpURLConnection) url.openConnection();
            connection.setReadTimeout(30000);
            connection.setInstanceFollowRedirects(false);
            if (cookie != null) {
                connection.setRequestProperty("Cookie", cookie);
            }
            status = connection.getResponseCode();
            try (InputStream in = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
                java.io.ByteArrayOutputStream bytes = new java.io.ByteArrayOutputStream();
                byte[] block = new byte[4096];
                for (int length = in.read(block); length >= 0; length = in.read(block)) {
                    bytes.write(block, 0, length);
                }
                text = new String(bytes.toByteArray(), StandardCharsets.UTF_8);
            }
            failed = connection.getHeaderField("X-Ringtribe-Replication");
            retryAfter = connection.getHeaderField("Retry-After");
            shop = connection.getHeaderField("X-Shop");
            String set = connection.getHeaderField("Set-Cookie");
            this.cookie = set == null ? cookie : set.split(";")[0];
        }

        void isAsTheApplicationAnswered() {
            assertEquals(200, status, text);
            assertTrue(text.startsWith(SERVED), text);
            assertEquals("open", shop);
            assertNull(failed);
            assertNull(retryAfter);
        }
    }

    private static OneNode node(int mcastPort, String attributes, String inside) throws Exception {
        OneNode.write("../webapps/shop/WEB-INF/web.xml", "<web-app "
                + "metadata-complete='true'><distributable/><servlet><servlet-name>shop</servlet-name><servlet-class>"
                + Shop.class.getName() + "</servlet-class><async-supported>true</async-supported></servlet>"
                + "<servlet-mapping><servlet-name>shop</servlet-name><url-pattern>/buy</url-pattern></servlet-mapping>"
                + "</web-app>");
        OneNode node = new OneNode("<Cluster className='org.ringtribe.tomcat.RingtribeCluster' " + OneNode.HERE
                + "mcastPort='" + mcastPort + "' tcpListenAddress='127.0.0.1' tcpListenPort='@TCP@' " + attributes + ">"
                + inside + "</Cluster>", CONNECTOR);
        node.start();
        return node;
    }

    private static void counts(long failures, long tooLate, long withoutCopy) throws Exception {
        for (String bean : new String[] { CLUSTER_BEAN, VALVE_BEAN }) {
            assertEquals(failures, OneNode.jmx(bean, "replicationFailures"), bean);
            assertEquals(tooLate, OneNode.jmx(bean, "replicationFailuresTooLate"), bean);
            assertEquals(withoutCopy, OneNode.jmx(bean, "requestsWithoutCopy"), bean);
        }
    }

    private static String onlySession(OneNode node, String id) throws IOException {
        Session session = node.context("localhost", "/shop").getManager().findSession(id);
        assertNotNull(session, "the cookie names a session that is there");
        return ((RingtribeDeltaSession) session).hash();
    }

    private static int times(String text, String part) {
        return text.split(java.util.regex.Pattern.quote(part), -1).length - 1;
    }

    @ParameterizedTest
    @ValueSource(strings = { "log", "header", "503", "503 of the Valve" })
    void aRequestIsAnsweredAsTheWordSays(String given) throws Exception {
        String word = given.split(" ")[0];
        boolean isOfValve = given.contains("Valve");
        String attribute = "onReplicationFailure='" + word + "' ";
        String valve = "<Valve className='" + RingtribeReplicationValve.class.getName() + "' " + attribute + "/>";
        int mcastPort = OneNode.freeUdpPort();
        // The word log is the default, which nobody has to write.
        try (OneNode node = node(mcastPort, isOfValve || word.equals("log") ? "" : attribute, isOfValve ? valve : "")) {
            assertEquals(word, OneNode.jmx(CLUSTER_BEAN, "onReplicationFailure"));
            Answer alone = new Answer(node, "", null);
            alone.isAsTheApplicationAnswered();
            counts(0, 0, 1);
            try (OtherMember other = new OtherMember(node, mcastPort)) {
                new Answer(node, "", alone.cookie).isAsTheApplicationAnswered();
                counts(0, 0, 1);
                String before = node.log();
                assertFalse(before.contains("is not replicated"), before);
                other.failFor(event -> true);

                Answer fresh = new Answer(node, "", null);
                String id = fresh.cookie.substring("JSESSIONID=".length());
                counts(1, 0, 1);
                told(word, fresh);
                String log = node.log();
                assertEquals(1, times(log, "is not replicated"), log);
                assertTrue(log.contains("SEVERE: A request of /shop is not replicated: session " + onlySession(node, id)
                        + " is not on " + other.name() + " ("), log);
                assertFalse(log.contains(id), "an id is a key to the session: " + log);

                // Whoever repeats a request must find the session under the id that it has by now.
                Answer renamed = new Answer(node, "?newid", fresh.cookie);
                assertFalse(renamed.cookie.equals(fresh.cookie), renamed.cookie);
                told(word, renamed);
                onlySession(node, renamed.cookie.substring("JSESSIONID=".length()));
                counts(2, 0, 1);

                long late = word.equals("log") ? 0 : 1;
                new Answer(node, "?flushed", renamed.cookie).isAsTheApplicationAnswered();
                counts(3, late, 1);
                new Answer(node, "?large", renamed.cookie).isAsTheApplicationAnswered();
                counts(4, 2 * late, 1);
                // Nobody else writes when a request completes.
                told(word, new Answer(node, "?async", renamed.cookie));
                counts(5, 2 * late, 1);

                // What is sent while the application runs counts as well: others keep the session.
                told(word, new Answer(node, "?logout", renamed.cookie));
                counts(6, 2 * late, 1);
                Answer redirected = new Answer(node, "?redirected", null);
                assertEquals(word.equals("503") ? 503 : 302, redirected.status);
                assertEquals(word.equals("header") ? "failed" : null, redirected.failed);
                counts(7, 2 * late, 1);
                // Without its beginning, what follows of a session is of no use to the other one.
                other.failFor(event -> event == SessionMessage.EVT_SESSION_CREATED);
                told(word, new Answer(node, "", null));
                counts(8, 2 * late, 1);
                log = node.log();
                assertEquals(8, times(log, "is not replicated"), log);
                assertEquals(2 * late, times(log, "\"" + word + "\" came too late, the response was on its way"), log);
            }
        }
    }

    private static void told(String word, Answer answer) {
        if (word.equals("503")) {
            assertEquals(503, answer.status, answer.text);
            assertFalse(answer.text.contains(SERVED), answer.text);
            assertNull(answer.shop, "what the application answered is gone");
            assertTrue(Integer.parseInt(answer.retryAfter) > 0, answer.retryAfter);
            assertNull(answer.failed);
        } else if (word.equals("header")) {
            assertEquals(200, answer.status, answer.text);
            assertEquals(SERVED, answer.text);
            assertEquals("open", answer.shop);
            assertEquals("failed", answer.failed);
        } else {
            answer.isAsTheApplicationAnswered();
        }
    }

    @Test
    void whatNobodyWaitsForIsNoFailureOfTheRequest() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (OneNode node = node(mcastPort, "replicationMode='asynchronous' maxMessageBytes='65536' onReplicationFailure='503'", "")) {
            try (OtherMember other = new OtherMember(node, mcastPort)) {
                other.failFor(event -> true);
                new Answer(node, "", null).isAsTheApplicationAnswered();
                // This one is refused at once, by the sender itself.
                new Answer(node, "?huge", null).isAsTheApplicationAnswered();
                counts(0, 0, 0);
                assertTrue(node.log().contains("An update of session "), node.log());
            }
        }
    }

    @Test
    void theWordMayBeChangedWhileTheClusterRuns() throws Exception {
        MBeanServer server = ManagementFactory.getPlatformMBeanServer();
        ObjectName bean = new ObjectName(CLUSTER_BEAN);
        try (OneNode node = node(OneNode.freeUdpPort(), "", "")) {
            server.setAttribute(bean, new Attribute("onReplicationFailure", "header"));
            assertEquals("header", OneNode.jmx(VALVE_BEAN, "onReplicationFailure"));
            Attribute wrong = new Attribute("onReplicationFailure", "never");
            assertThrows(RuntimeOperationsException.class, () -> server.setAttribute(bean, wrong));
            assertThrows(RuntimeOperationsException.class, () -> server.setAttribute(new ObjectName(VALVE_BEAN), wrong));
            assertEquals("header", OneNode.jmx(CLUSTER_BEAN, "onReplicationFailure"));
        }
    }
}
