package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.ringtribe.tomcat.TwoNodes.BEAN;
import static org.ringtribe.tomcat.TwoNodes.SHOP;
import static org.ringtribe.tomcat.TwoNodes.STOCK;
import static org.ringtribe.tomcat.TwoNodes.await;
import static org.ringtribe.tomcat.TwoNodes.manager;
import static org.ringtribe.tomcat.TwoNodes.ours;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

import org.apache.catalina.Session;
import org.apache.catalina.ha.session.DeltaSession;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.Member;
import org.junit.jupiter.api.Test;

/** What two nodes make of their sessions when they missed something of each other. */
class ReconcilerTest {

    private static final long LONGEST_WAIT_S = 30;

    private final TwoNodes cluster = new TwoNodes();

    ReconcilerTest() throws Exception {
        // The application is there.
    }

    private static RingtribeDeltaSession session(OneNode node, String id) {
        return ours(node).find(id);
    }

    /** A change of which the other node gets nothing, as if the link were cut. */
    private static void changeAlone(OneNode node, String id, String value) {
        RingtribeDeltaSession session = session(node, id);
        session.setAttribute("value", value);
        session.resetDeltaRequest();
        node.channel().copies().begin(session.copy(), node.channel().getMembers(), false)
                .acknowledged(new ChannelException("cut off"));
    }

    private static boolean isCopied(OneNode node, String id) {
        return node.channel().copies().isCopied(SHOP, session(node, id).copy());
    }

    private static void change(OneNode node, String id, String value) {
        session(node, id).setAttribute("value", value);
        manager(node).requestCompleted(id, false);
    }

    private static Member other(OneNode node) {
        return node.channel().getMembers()[0];
    }

    /** As the engine tells it, to both sides. */
    private static void gap(OneNode one, OneNode two) throws Exception {
        CountDownLatch repaired = new CountDownLatch(2);
        ours(one).reconciler().gap(other(one), repaired::countDown);
        ours(two).reconciler().gap(other(two), repaired::countDown);
        assertTrue(repaired.await(LONGEST_WAIT_S, TimeUnit.SECONDS), one.log());
    }

    /** All that a node has, to compare. */
    private static Map<String,String> state(OneNode node) {
        Map<String,String> state = new TreeMap<>();
        for (Session one : manager(node).findSessions()) {
            RingtribeDeltaSession session = (RingtribeDeltaSession) one;
            state.put(session.getIdInternal(), session.getAttribute("value") + " " + session.changes());
        }
        return state;
    }

    private static void isEqual(OneNode one, OneNode two) throws Exception {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(LONGEST_WAIT_S);
        while (!state(one).equals(state(two)) && System.nanoTime() < until) {
            TimeUnit.MILLISECONDS.sleep(5);
        }
        assertEquals(state(one), state(two));
    }

    @Test
    void twoNodesThatWereCutOffHaveOneStateAfterwards() throws Exception {
        try (OneNode one = cluster.started("One", ""); OneNode two = cluster.started("Two", "")) {
            int many = 2 * Reconciler.BLOCK_DIGESTS + 10;
            for (int n = 0; n < many; n++) {
                if (n < 10) {
                    manager(one).createSession("id-" + n);
                    change(one, "id-" + n, "both");
                } else {
                    manager(one).createSession("id-" + n, false);
                    manager(two).createSession("id-" + n, false);
                }
            }
            isEqual(one, two);
            changeAlone(one, "id-1", "newer at one");
            changeAlone(two, "id-2", "newer at two");
            changeAlone(one, "id-3", "older");
            changeAlone(two, "id-4", "older");
            TimeUnit.MILLISECONDS.sleep(2);
            changeAlone(two, "id-3", "later");
            changeAlone(one, "id-4", "later");
            manager(one).createSession("only-one", false);
            changeAlone(one, "only-one", "made at one");
            manager(two).createSession("only-two", false);
            // It ends at one, is used at the other, and the message is lost.
            changeAlone(two, "id-5", "used");
            ours(one).copies().ended(session(one, "id-5"));
            session(one, "id-5").expire(true, false);
            // Nobody used it at one, at two somebody did: it goes on.
            ours(one).copies().expired().add("id-6",
                    new ExpiredSessions.End(session(one, "id-6").getCreationTimeInternal(), 1, true, null));
            session(one, "id-6").expire(true, false);
            String three = session(one, "id-3").hash();
            String four = session(one, "id-4").hash();
            assertFalse(isCopied(one, "id-1") || isCopied(one, "only-one") || isCopied(two, "id-2"));

            gap(one, two);
            assertTrue(isCopied(one, "id-1") && isCopied(one, "only-one"), "the other one has them now");
            assertTrue(isCopied(two, "id-2"));
            isEqual(one, two);
            for (OneNode node : Arrays.asList(one, two)) {
                assertEquals("newer at one", session(node, "id-1").getAttribute("value"));
                assertEquals("newer at two", session(node, "id-2").getAttribute("value"));
                assertEquals("later", session(node, "id-3").getAttribute("value"));
                assertEquals("later", session(node, "id-4").getAttribute("value"));
                assertEquals("made at one", session(node, "only-one").getAttribute("value"));
                assertNotNull(session(node, "only-two"));
                assertNull(session(node, "id-5"), "one that ended is not revived");
                assertEquals("both", session(node, "id-6").getAttribute("value"));
                assertEquals(many + 1, manager(node).findSessions().length);
                assertEquals(2, ours(node).getReconcileConflicts(), "those two");
                assertEquals(1, ours(node).getReconciliations());
            }
            for (OneNode node : Arrays.asList(one, two)) {
                assertTrue(node.log().contains("2 sessions were changed here and at"), node.log());
                assertTrue(node.log().contains(three) && node.log().contains(four), node.log());
                assertFalse(node.log().contains("id-3"), "an id is a key to the session");
            }
            assertEquals(2L, OneNode.jmx("One" + BEAN, "reconcileConflicts"));
            assertEquals(1L, OneNode.jmx("Two" + BEAN, "reconciliations"));
            // What is changed from now on is copied as always, and nothing is left to do.
            change(two, "id-3", "after it");
            change(one, "id-4", "after it");
            isEqual(one, two);
            assertEquals("after it", session(one, "id-3").getAttribute("value"));
            gap(one, two);
            assertEquals(2, ours(one).getReconcileConflicts());
        }
    }

    @Test
    void aSessionThatGotAnotherIdIsNotThereTwiceAndMayGetItsOldOneBack() throws Exception {
        try (OneNode one = cluster.started("One", ""); OneNode two = cluster.started("Two", "")) {
            for (String id : new String[] { "a.one", "b.one", "c.one" }) {
                manager(one).createSession(id);
                change(one, id, "both");
            }
            manager(one).changeSessionId(session(one, "c.one"), "c.two");
            isEqual(one, two);
            // As when its node is away: the other one puts its route into the id.
            ours(two).changeSessionId(session(two, "a.one"), "a.two", false, false);
            ours(two).changeSessionId(session(two, "b.one"), "b.two", false, false);
            ours(two).changeSessionId(session(two, "b.two"), "b.one", false, false);
            changeAlone(two, "b.one", "newer");
            // At the other node this id has ended.
            ours(two).changeSessionId(session(two, "c.two"), "c.one", false, false);
            gap(one, two);
            isEqual(one, two);
            assertEquals(3, manager(one).findSessions().length);
            assertEquals("both", session(one, "c.one").getAttribute("value"));
            assertNull(session(one, "a.one"));
            assertEquals("both", session(one, "a.two").getAttribute("value"));
            assertEquals("newer", session(one, "b.one").getAttribute("value"));
            // Both know it by now, and it goes back with a message.
            manager(one).changeSessionId(session(one, "a.two"), "a.one");
            change(one, "a.one", "after it");
            isEqual(one, two);
            gap(one, two);
            assertEquals("after it", session(two, "a.one").getAttribute("value"));
            assertEquals(3, manager(two).findSessions().length);
            assertEquals(0, ours(one).getReconcileConflicts());
        }
    }

    @Test
    void theNodeWhereASessionWasUsedLastEndsIt() throws Exception {
        try (OneNode one = cluster.started("One", ""); OneNode two = cluster.started("Two", "")) {
            for (String id : new String[] { "at-one", "at-two" }) {
                manager(one).createSession(id);
                change(one, id, "both");
            }
            isEqual(one, two);
            // Only looked at, by a client that went to the other node: nothing was changed.
            long later = System.currentTimeMillis() + 5000;
            for (OneNode node : Arrays.asList(one, two)) {
                RingtribeDeltaSession session = session(node, node == one ? "at-one" : "at-two");
                session.usedElsewhere(later);
                session.setPrimarySession(true);
                session(node, node == one ? "at-two" : "at-one").setPrimarySession(true);
            }
            gap(one, two);
            for (OneNode node : Arrays.asList(one, two)) {
                assertEquals(later, session(node, "at-one").getThisAccessedTimeInternal());
                assertEquals(later, session(node, "at-two").getThisAccessedTimeInternal());
                assertEquals(node == one, session(node, "at-one").isPrimarySession());
                assertEquals(node == two, session(node, "at-two").isPrimarySession());
            }
            assertEquals(0, ours(one).getReconcileConflicts());
        }
    }

    @Test
    void whatARunningRequestHasChangedStays() throws Exception {
        try (OneNode one = cluster.started("One", ""); OneNode two = cluster.started("Two", "")) {
            manager(one).createSession("x");
            session(one, "x").setAttribute("gone", "1");
            change(one, "x", "both");
            isEqual(one, two);
            session(two, "x").removeAttribute("gone");
            session(two, "x").setAttribute("shared", "theirs");
            changeAlone(two, "x", "newer");
            RingtribeDeltaSession used = session(one, "x");
            used.setAttribute("basket", "bread");
            used.setAttribute("shared", "mine");
            gap(one, two);
            assertEquals(used, session(one, "x"), "a request that runs keeps its session");
            assertEquals("newer", used.getAttribute("value"));
            assertEquals("bread", used.getAttribute("basket"));
            assertNull(used.getAttribute("gone"));
            manager(one).requestCompleted("x", false);
            isEqual(one, two);
            assertEquals("bread", session(two, "x").getAttribute("basket"));
            for (OneNode node : Arrays.asList(one, two)) {
                assertEquals("mine", session(node, "x").getAttribute("shared"));
            }
        }
    }

    @Test
    void aChangeThatFollowsALostOneBringsTheWholeSession() throws Exception {
        try (OneNode one = cluster.started("One", ""); OneNode two = cluster.started("Two", "")) {
            manager(one).createSession("x");
            change(one, "x", "both");
            isEqual(one, two);
            session(one, "x").setAttribute("lost", "1");
            changeAlone(one, "x", "lost");
            change(one, "x", "after it");
            isEqual(one, two);
            assertEquals("1", session(two, "x").getAttribute("lost"));
            // Stock drops the changes of a session that it does not know, and says so at debug.
            manager(one).createSession("y", false);
            changeAlone(one, "y", "lost");
            session(one, "y").setAttribute("lost", "2");
            change(one, "y", "after it");
            isEqual(one, two);
            assertEquals("2", session(two, "y").getAttribute("lost"));
            assertEquals(0, ours(two).getReconcileConflicts());
            assertEquals(0, ours(two).getReconciliations(), "no other session was looked at");
        }
    }

    @Test
    void aStockManagerIsNamedOnceAndLeftAlone() throws Exception {
        try (OneNode one = cluster.started("One", ""); OneNode two = cluster.started("Two", STOCK)) {
            ours(one).reconciler().setSilenceMillis(300);
            manager(one).createSession("x");
            change(one, "x", "both");
            await("it is there", () -> manager(two).findSessions().length == 1);
            for (int n = 0; n < 3; n++) {
                CountDownLatch repaired = new CountDownLatch(1);
                ours(one).reconciler().gap(other(one), repaired::countDown);
                assertTrue(repaired.await(LONGEST_WAIT_S, TimeUnit.SECONDS), one.log());
            }
            assertEquals(2, one.log().split("it does not answer when they are to be reconciled", -1).length, one.log());
            assertEquals(0, ours(one).getReconciliations());
            change(one, "x", "after it");
            await("it goes on", () -> "after it".equals(((DeltaSession) find(two, "x")).getAttribute("value")));
            ((DeltaSession) find(two, "x")).setAttribute("value", "from stock");
            two.cluster().send(manager(two).requestCompleted("x"));
            await("and back", () -> "from stock".equals(session(one, "x").getAttribute("value")));
        }
    }

    private static Session find(OneNode node, String id) {
        try {
            return manager(node).findSession(id);
        } catch (java.io.IOException e) {
            throw new IllegalStateException(e);
        }
    }

    @Test
    void onlyWhatDiffersIsSentAndNoMessageHasAll() throws Exception {
        try (OneNode node = cluster.started("Catalina", ""); ScriptedMember other = new ScriptedMember(cluster.mcastPort)) {
            await("it is a member", () -> node.channel().hasMembers());
            int many = 2 * Reconciler.BLOCK_DIGESTS + 1;
            for (int n = 0; n < many; n++) {
                manager(node).createSession("id-" + n, false);
            }
            List<ReconcileMessage> came = Collections.synchronizedList(new ArrayList<>());
            CountDownLatch over = new CountDownLatch(1);
            other.does((message, sender) -> {
                if (message.getEventType() != ReconcileMessage.EVENT) {
                    return;
                }
                ReconcileMessage digests = ReconcileMessage.decode(message.getSession());
                came.add(digests);
                if (digests.kind == ReconcileMessage.Kind.DIGEST) {
                    ReconcileMessage answer = new ReconcileMessage(ReconcileMessage.Kind.ANSWER, digests.round);
                    answer.block = digests.block;
                    answer.entries.add(ReconcileMessage.Entry.unknown(digests.entries.get(0).id));
                    other.send(sender, ReconcileMessage.EVENT, answer.encode(), "RECONCILE", "RECONCILE", 0);
                } else if (digests.kind == ReconcileMessage.Kind.END) {
                    over.countDown();
                }
            });
            ours(node).reconciler().whole(other(node), null);
            assertTrue(over.await(LONGEST_WAIT_S, TimeUnit.SECONDS), node.log());
            // Each message has a thread: that of the end may overtake that of the last sessions.
            await("three blocks of sessions", () -> states(came) >= 3);
            int digests = 0;
            String to = "";
            for (ReconcileMessage message : came) {
                if (message.kind == ReconcileMessage.Kind.DIGEST) {
                    assertTrue(message.entries.size() <= Reconciler.BLOCK_DIGESTS);
                    assertEquals(to, message.from);
                    to = message.to;
                    digests += message.entries.size();
                }
            }
            assertEquals(many, digests);
            assertEquals("", to, "the last block has no end");
            assertEquals(3, states(came));
        }
    }

    private static long states(List<ReconcileMessage> messages) {
        synchronized (messages) {
            return messages.stream().filter(message -> message.kind == ReconcileMessage.Kind.STATE).count();
        }
    }

    @Test
    void aMessageThatIsNoneIsNamedAndForgotten() throws Exception {
        try (OneNode node = cluster.started("Catalina", ""); ScriptedMember other = new ScriptedMember(cluster.mcastPort)) {
            await("it is a member", () -> node.channel().hasMembers());
            manager(node).createSession("x", false);
            ReconcileMessage digests = new ReconcileMessage(ReconcileMessage.Kind.DIGEST, 7);
            digests.entries.add(ReconcileMessage.Entry.held(session(node, "x"), true));
            digests.entries.add(ReconcileMessage.Entry.unknown("y"));
            byte[] whole = digests.encode();
            assertTrue(ReconcileMessage.decode(whole).entries.get(0).changes.equals(SessionVersion.NONE));
            Member to = ScriptedMember.member(node.channel().getLocalMember(false));
            for (int n = 0; n < whole.length; n++) {
                other.send(to, ReconcileMessage.EVENT, Arrays.copyOf(whole, n), "RECONCILE", "RECONCILE", 0);
                byte[] broken = whole.clone();
                broken[n] = -1;
                other.send(to, ReconcileMessage.EVENT, broken, "RECONCILE", "RECONCILE", 0);
            }
            assertTrue(node.log().contains("that reconciles sessions is without effect"), node.log());
            assertEquals(1, manager(node).findSessions().length);
            other.send(to, ReconcileMessage.EVENT, whole, "RECONCILE", "RECONCILE", 0);
            other.awaitEvent(ReconcileMessage.EVENT);
        }
    }
}
