package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.InputStream;
import java.io.ObjectOutputStream;
import java.io.Serializable;
import java.lang.management.ManagementFactory;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;

import javax.management.ObjectName;
import javax.servlet.http.HttpServlet;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;

import org.apache.catalina.Manager;
import org.apache.catalina.ha.session.SessionMessage;
import org.junit.jupiter.api.Test;

/** A node that is taken out of service: what balancers see of it, and when it says that it may be stopped. */
class DrainTest {

    private static final String BEAN = "Catalina:type=Cluster";
    private static final String CONNECTOR = "<Connector port='0' address='127.0.0.1'/>";
    private static final long LONGEST_WAIT_MS = 30000;
    private static final AtomicInteger SERVED = new AtomicInteger();

    /** Changes the session, or only says what is in it. */
    public static final class Basket extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            SERVED.incrementAndGet();
            if ("newid".equals(request.getQueryString())) {
                request.changeSessionId();
            } else {
                request.getSession().setAttribute("time", System.nanoTime());
            }
            response.getWriter().print("served");
        }
    }

    private static final class Answer {
        final int status;
        final String text;
        final String retryAfter;
        final String cookie;

        Answer(OneNode node, String path, String cookie) throws IOException {
            URL url = new URL("http://127.0.0.1:" + node.port() + path);
            HttpURLConnection connection = (HttpURLConnection) url.openConnection();
            connection.setReadTimeout(30000);
            if (cookie != null) {
                connection.setRequestProperty("Cookie", cookie);
            }
            status = connection.getResponseCode();
            try (InputStream in = status < 400 ? connection.getInputStream() : connection.getErrorStream()) {
                text = new String(in.readAllBytes(), StandardCharsets.UTF_8).trim();
            }
            retryAfter = connection.getHeaderField("Retry-After");
            String set = connection.getHeaderField("Set-Cookie");
            this.cookie = set == null ? cookie : set.split(";")[0];
        }
    }

    private static OneNode node(int mcastPort, String attributes) throws Exception {
        OneNode.write("../webapps/basket/WEB-INF/web.xml", "<web-app metadata-complete='true'><distributable/><servlet>"
                + "<servlet-name>basket</servlet-name><servlet-class>" + Basket.class.getName()
                + "</servlet-class></servlet><servlet-mapping><servlet-name>basket</servlet-name><url-pattern>/put"
                + "</url-pattern></servlet-mapping></web-app>");
        OneNode node = new OneNode("<Cluster className='org.ringtribe.tomcat.RingtribeCluster' " + OneNode.HERE
                + "mcastPort='" + mcastPort + "' tcpListenAddress='127.0.0.1' tcpListenPort='@TCP@' " + attributes + "/>",
                CONNECTOR);
        node.start();
        return node;
    }

    private static Answer put(OneNode node, String cookie) throws IOException {
        return new Answer(node, "/basket/put", cookie);
    }

    private static void call(String operation) throws Exception {
        ManagementFactory.getPlatformMBeanServer().invoke(new ObjectName(BEAN), operation, new Object[0], new String[0]);
    }

    private static void isSafe(boolean safe, int underCopied, String because) throws Exception {
        String said = (String) OneNode.jmx(BEAN, "notSafeToStopBecause");
        assertEquals(underCopied, OneNode.jmx(BEAN, "underCopied"), said);
        assertTrue(because == null ? said.isEmpty() : said.contains(because), said);
        assertEquals(safe, OneNode.jmx(BEAN, "safeToStop"), said);
    }

    private static void await(String what, Callable<Boolean> condition) throws Exception {
        long until = System.nanoTime() + LONGEST_WAIT_MS * 1000000;
        while (!condition.call()) {
            assertTrue(System.nanoTime() < until, what);
            java.util.concurrent.locks.LockSupport.parkNanos(5000000);
        }
    }

    @Test
    void aBalancersCheckSeesItAndNoRequestFails() throws Exception {
        try (OneNode node = node(OneNode.freeUdpPort(), "readyPath='/ready'")) {
            Answer ready = new Answer(node, "/ready", null);
            assertEquals("200 ready", ready.status + " " + ready.text);
            // The path is that one only.
            assertEquals(404, new Answer(node, "/ready/", null).status);
            String old = put(node, null).cookie;
            call("stopAccepting");
            assertEquals(false, OneNode.jmx(BEAN, "accepting"));
            Answer gone = new Answer(node, "/ready", null);
            assertEquals("503 out of service", gone.status + " " + gone.text);
            assertTrue(node.log().contains("INFO: This node is being taken out of service: /ready answers 503"), node.log());
            assertEquals(200, put(node, old).status);
            Answer late = put(node, null);
            assertEquals(200, late.status);
            assertNotNull(late.cookie);
            call("startAccepting");
            assertEquals(200, new Answer(node, "/ready", null).status);
            assertEquals(true, OneNode.jmx(BEAN, "accepting"));
        }
    }

    @Test
    void itRefusesWhatHasNoSessionIfItIsToldTo() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (OneNode node = node(mcastPort, "whileNotAccepting='503'"); OtherMember other = new OtherMember(node, mcastPort)) {
            String cookie = put(node, null).cookie;
            int served = SERVED.get();
            call("stopAccepting");
            for (String stranger : new String[] { null, "JSESSIONID=0123456789ABCDEF" }) {
                Answer refused = put(node, stranger);
                assertEquals(503, refused.status, refused.text);
                assertEquals("5", refused.retryAfter);
                assertEquals(stranger, refused.cookie, "no new session");
            }
            assertEquals(served, SERVED.get(), "no application saw it");
            // Its own are served, and their changes go to the others.
            long sent = node.channel().copies().number();
            Answer own = put(node, cookie);
            assertEquals("200 served", own.status + " " + own.text);
            assertNull(own.retryAfter);
            assertTrue(node.channel().copies().number() > sent);
            isSafe(true, 0, null);
            call("startAccepting");
            assertEquals(200, put(node, null).status);
        }
    }

    @Test
    void itSaysThatNoBalancerCanNotice() throws Exception {
        try (OneNode node = node(OneNode.freeUdpPort(), "")) {
            call("stopAccepting");
            assertTrue(node.log().contains("WARNING: This node is being taken out of service: no balancer notices it by "
                    + "itself, since neither readyPath nor whileNotAccepting=\"503\" is set"), node.log());
            assertEquals(404, new Answer(node, "/ready", null).status);
        }
    }

    @Test
    void aSessionIsUnderCopiedUntilALivingMemberHasItsLastChange() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (OneNode node = node(mcastPort, "")) {
            isSafe(false, 0, "there is no other member");
            String one = put(node, null).cookie;
            String two = put(node, null).cookie;
            isSafe(false, 2, "2 sessions of localhost#/basket have no copy that another member acknowledged");
            try (OtherMember other = new OtherMember(node, mcastPort)) {
                // That somebody is there says nothing of what he has.
                isSafe(false, 2, "2 sessions");
                put(node, one);
                isSafe(false, 1, "1 sessions");
                put(node, two);
                isSafe(true, 0, null);
                other.failFor(event -> event == SessionMessage.EVT_SESSION_DELTA);
                put(node, two);
                isSafe(false, 1, "1 sessions");
                other.failFor(event -> false);
                put(node, two);
                isSafe(true, 0, null);
                // Under an id that the other does not know, it is as if it had none.
                other.failFor(event -> event == SessionMessage.EVT_CHANGE_SESSION_ID);
                new Answer(node, "/basket/put?newid", two);
                assertEquals(1, OneNode.jmx(BEAN, "underCopied"));
            }
            await("the other member is gone", () -> node.cluster().getMembers().length == 0);
            isSafe(false, 2, "there is no other member");
            try (OtherMember fetches = new OtherMember(node, mcastPort)) {
                isSafe(false, 2, "2 sessions");
                fetches.failFor(event -> event == SessionMessage.EVT_ALL_SESSION_DATA);
                fetches.fetch("localhost#/basket");
                isSafe(false, 2, "2 sessions");
                fetches.failFor(event -> false);
                fetches.fetch("localhost#/basket");
                isSafe(true, 0, null);
                put(node, null);
                isSafe(true, 0, null);
            }
        }
    }

    @Test
    void whatIsChangedWhileAllSessionsAreSentIsNotAmongThem() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (OneNode node = node(mcastPort, ""); OtherMember other = new OtherMember(node, mcastPort)) {
            put(node, null);
            isSafe(true, 0, null);
            AtomicInteger blocks = new AtomicInteger();
            AtomicReference<Exception> failure = new AtomicReference<>();
            other.failFor(event -> {
                if (event == SessionMessage.EVT_ALL_SESSION_DATA && blocks.getAndIncrement() == 0) {
                    try {
                        // One is made that the other does not take, and it asks again before it has got the first answer.
                        put(node, null);
                        other.fetch("localhost#/basket");
                    } catch (Exception e) {
                        failure.set(e);
                    }
                }
                return event == SessionMessage.EVT_SESSION_CREATED || event == SessionMessage.EVT_SESSION_DELTA;
            });
            other.fetch("localhost#/basket");
            assertNull(failure.get());
            assertEquals(1, blocks.get());
            isSafe(false, 1, "1 sessions");
            other.fetch("localhost#/basket");
            isSafe(true, 0, null);
        }
    }

    /** Makes its whole session one that cannot be written. */
    private static final class Unwritable implements Serializable {
        private static final long serialVersionUID = 1L;

        private void writeObject(ObjectOutputStream out) {
            throw new IllegalStateException("told to fail");
        }
    }

    @Test
    void aSessionThatCannotBeWrittenHasNoCopyWhereAllWereFetched() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (OneNode node = node(mcastPort, "")) {
            put(node, null);
            String odd = put(node, null).cookie.split("=")[1];
            Manager manager = node.context("localhost", "/basket").getManager();
            RingtribeDeltaSession session = (RingtribeDeltaSession) manager.findSession(odd);
            session.setAttribute("odd", new Unwritable());
            try (OtherMember other = new OtherMember(node, mcastPort)) {
                isSafe(false, 2, "2 sessions");
                other.fetch("localhost#/basket");
                isSafe(false, 1, "1 sessions");
                // A change of something that the other one does not have.
                put(node, "JSESSIONID=" + odd);
                isSafe(false, 1, "1 sessions");
                session.removeAttribute("odd");
                other.fetch("localhost#/basket");
                isSafe(true, 0, null);
            }
        }
    }

    @Test
    void whatIsNotAwaitedCountsWhenTheEnginesHaveIt() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (OneNode node = node(mcastPort, "channelSendOptions='8'"); OtherMember other = new OtherMember(node, mcastPort)) {
            put(node, null);
            await("it is acknowledged", () -> (Boolean) OneNode.jmx(BEAN, "safeToStop"));
            isSafe(true, 0, null);
        }
    }

    @Test
    void whatEndsAtTheStopOrIsNotKnownIsNotSafe() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (OneNode node = node(mcastPort, "expireSessionsOnShutdown='true'");
                OtherMember other = new OtherMember(node, mcastPort)) {
            isSafe(true, 0, null);
            put(node, null);
            isSafe(false, 0, "the sessions of localhost#/basket end everywhere when this node stops");
        }
        int another = OneNode.freeUdpPort();
        try (OneNode node = node(another, "managerClassName='org.apache.catalina.ha.session.BackupManager'");
                OtherMember other = new OtherMember(node, another)) {
            isSafe(true, 0, null);
            put(node, null);
            isSafe(false, 1, "are kept by a org.apache.catalina.ha.session.BackupManager, which does not say who has");
        }
    }

    @Test
    void wrongWordsAreRefused() throws Exception {
        try (OneNode node = new OneNode("<Cluster className='org.ringtribe.tomcat.RingtribeCluster' " + OneNode.HERE
                + "mcastPort='@MCAST@' tcpListenAddress='127.0.0.1' tcpListenPort='@TCP@' readyPath='ready?' "
                + "whileNotAccepting='404'/>")) {
            String refusal = node.refusal();
            assertTrue(refusal.contains("readyPath=\"ready?\" of Cluster is refused: give the path"), refusal);
            assertTrue(refusal.contains("whileNotAccepting=\"404\" of Cluster is refused: it is one of serve, 503"), refusal);
            assertFalse(refusal.contains("onReplicationFailure"), refusal);
        }
    }
}
