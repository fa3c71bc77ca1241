package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

import org.apache.catalina.Session;
import org.junit.jupiter.api.Test;

/** One node: what it makes of a difference, and of the state that another one sends. */
class RingtribeDeltaManagerTest {

    /** An attribute whose class is there. */
    private static final class Known1 implements Serializable {
        private static final long serialVersionUID = 1L;
        private final List<String> inside = Collections.singletonList("x");
    }

    /** Serializable but for what is in it. */
    private static final class Hollow implements Serializable {
        private static final long serialVersionUID = 1L;
        private final Object inside = new Object();
    }

    private static OneNode node(String attributes) throws Exception {
        OneNode.write("../webapps/shop/WEB-INF/web.xml", "<web-app metadata-complete='true'><distributable/></web-app>");
        OneNode node = new OneNode("<Cluster className='org.ringtribe.tomcat.RingtribeCluster' " + OneNode.HERE
                + "mcastPort='@MCAST@' tcpListenAddress='127.0.0.1' tcpListenPort='@TCP@' " + attributes + "/>");
        node.start();
        return node;
    }

    private static RingtribeDeltaManager manager(OneNode node) {
        return (RingtribeDeltaManager) node.context("localhost", "/shop").getManager();
    }

    /** What another node would get of the session's difference. */
    private static RingtribeDeltaSession copy(RingtribeDeltaManager manager, RingtribeDeltaSession of, byte[] before)
            throws Exception {
        byte[] difference = of.getDiff();
        manager.remove(of);
        manager.deserializeSessions(before);
        RingtribeDeltaSession copy = (RingtribeDeltaSession) manager.findSession(of.getIdInternal());
        copy.applyDiff(difference, 0, difference.length);
        return copy;
    }

    @Test
    void oneSessionOfAMissingClassCostsThatSession() throws Exception {
        try (OneNode node = node("")) {
            RingtribeDeltaManager manager = manager(node);
            for (int n = 0; n < 100; n++) {
                Session session = manager.createSession("id-" + n);
                ((RingtribeDeltaSession) session).setAttribute("a", "value-" + n);
                if (n == 42) {
                    ((RingtribeDeltaSession) session).setAttribute("b", new Known1());
                    ((RingtribeDeltaSession) session).setAttribute("c", "after it");
                }
            }
            byte[] state = manager.serializeSessions(manager.findSessions());
            String gone = new String(state, StandardCharsets.ISO_8859_1).replace("ManagerTest$Known1", "ManagerTest$Known2");
            for (Session session : manager.findSessions()) {
                manager.remove(session);
            }
            manager.deserializeSessions(gone.getBytes(StandardCharsets.ISO_8859_1));
            assertEquals(99, manager.findSessions().length);
            assertNull(manager.findSession("id-42"));
            for (int n = 0; n < 100; n++) {
                if (n != 42) {
                    assertEquals("value-" + n, ((RingtribeDeltaSession) manager.findSession("id-" + n)).getAttribute("a"));
                }
            }
            assertEquals(1, manager.getCounterUnreadableSessions());
            String log = node.log();
            assertTrue(log.contains("RingtribeDeltaManagerTest$Known2"), log);
            assertFalse(log.contains("id-42"), "an id is a key to the session: " + log);
            // A message that is cut off costs what is missing, and says so.
            manager.deserializeSessions(java.util.Arrays.copyOf(state, state.length / 2));
            assertTrue(node.log().contains("of 100 sessions of a message"), node.log());
        }
    }

    @Test
    void anAttributeThatCannotBeSerializedCostsThatAttribute() throws Exception {
        try (OneNode node = node("")) {
            RingtribeDeltaManager manager = manager(node);
            RingtribeDeltaSession session = (RingtribeDeltaSession) manager.createSession("mixed");
            session.setAttribute("bad", "an older value");
            byte[] before = manager.serializeSessions(new Session[] { session });
            session.resetDeltaRequest();
            session.setAttribute("good", "1");
            session.setAttribute("bad", new Hollow());
            // Stock throws at this one, and the request ends with 500.
            session.setAttribute("worse", new Object());
            RingtribeDeltaSession copy = copy(manager, session, before);
            assertEquals("1", copy.getAttribute("good"));
            assertNull(copy.getAttribute("bad"), "an older value would pass for the present one");
            assertNull(copy.getAttribute("worse"));
            assertEquals(2, manager.getCounterUnserializableAttributes());
            String bean = "Catalina:type=Manager,host=localhost,context=/shop";
            assertEquals(2L, OneNode.jmx(bean, "counterUnserializableAttributes"));
            assertEquals(0L, OneNode.jmx(bean, "counterSend_EVT_SESSION_DELTA"), "stock's names are there too");
            assertEquals(false, OneNode.jmx(bean, "expireSessionsOnShutdown"));
            String log = node.log();
            assertTrue(log.contains("The attribute \"bad\" of session " + session.hash()) && log.contains("$Hollow"), log);
            assertTrue(log.contains("java.lang.Object is not Serializable"), log);
        }
    }

    @Test
    void whatComesFromAnotherNodeLeavesWhatIsToBeSentFromHere() throws Exception {
        try (OneNode node = node("")) {
            RingtribeDeltaManager manager = manager(node);
            RingtribeDeltaSession session = (RingtribeDeltaSession) manager.createSession("both");
            session.resetDeltaRequest();
            session.setAttribute("there", "2");
            byte[] ofThere = session.getDiff();
            session.removeAttribute("there");
            session.resetDeltaRequest();
            byte[] before = manager.serializeSessions(new Session[] { session });
            // A request has set this one, and has not ended.
            session.setAttribute("here", "1");
            session.deserializeAndExecuteDeltaRequest(ofThere);
            assertEquals("2", session.getAttribute("there"));
            assertEquals("1", session.getAttribute("here"));
            assertFalse(session.isPrimarySession());
            RingtribeDeltaSession copy = copy(manager, session, before);
            assertEquals("1", copy.getAttribute("here"), "it was lost on the way");
            assertNull(copy.getAttribute("there"), "what came is not sent again");
        }
    }

    @Test
    void whatWasChangedInPlaceIsNoticedWithoutTheDirtyFlag() throws Exception {
        try (OneNode node = node("useDirtyFlag='false'")) {
            RingtribeDeltaManager manager = manager(node);
            RingtribeDeltaSession session = (RingtribeDeltaSession) manager.createSession("basket");
            List<String> basket = new ArrayList<>();
            session.setAttribute("basket", basket);
            session.setAttribute("count", 1);
            manager.requestCompleted("basket", false);
            session.resetDeltaRequest();
            byte[] before = manager.serializeSessions(new Session[] { session });
            session.findChanged();
            assertFalse(session.isDirty(), "nothing was changed");
            basket.add("bread");
            session.findChanged();
            assertTrue(session.isDirty());
            assertEquals(Collections.singletonList("bread"), copy(manager, session, before).getAttribute("basket"));
        }
        try (OneNode node = node("useDirtyFlag='true'")) {
            RingtribeDeltaManager manager = manager(node);
            RingtribeDeltaSession session = (RingtribeDeltaSession) manager.createSession("basket");
            List<String> basket = new ArrayList<>();
            session.setAttribute("basket", basket);
            session.resetDeltaRequest();
            basket.add("bread");
            manager.requestCompleted("basket", false);
            assertFalse(session.isDirty(), "only what was set is sent");
        }
    }
}
