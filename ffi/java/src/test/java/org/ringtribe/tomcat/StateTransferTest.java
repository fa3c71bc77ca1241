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

import java.io.InputStream;
import java.io.Serializable;
import java.lang.reflect.Constructor;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

import org.apache.catalina.LifecycleState;
import org.apache.catalina.Session;
import org.apache.catalina.ha.session.DeltaManager;
import org.apache.catalina.ha.session.DeltaSession;
import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.tribes.Member;
import org.junit.jupiter.api.Test;

/** What a node that starts gets of the others, and when. */
class StateTransferTest {

    private final TwoNodes cluster = new TwoNodes();
    private final int mcastPort = cluster.mcastPort;

    StateTransferTest() throws Exception {
        // The application is there.
    }

    private static void fill(DeltaManager manager, int sessions, int bytes) {
        for (int n = 0; n < sessions; n++) {
            DeltaSession session = (DeltaSession) manager.createSession("id-" + n, false);
            session.setAttribute("number", n);
            session.setAttribute("load", new byte[bytes]);
            session.resetDeltaRequest();
        }
    }

    private static void isWhole(DeltaManager manager, int sessions) throws Exception {
        assertEquals(sessions, manager.findSessions().length);
        for (int n = 0; n < sessions; n++) {
            assertEquals(n, ((DeltaSession) manager.findSession("id-" + n)).getAttribute("number"));
        }
    }

    /** Blocks of one session each, as a node with such sessions sends them. */
    private List<byte[]> blocks(int sessions) throws Exception {
        List<byte[]> blocks = new ArrayList<>();
        try (OneNode node = cluster.started("Catalina", "")) {
            fill(manager(node), sessions, 10);
            for (int n = 0; n < sessions; n++) {
                blocks.add(ours(node).serializeSessions(new Session[] { manager(node).findSession("id-" + n) }));
            }
        }
        return blocks;
    }

    private static boolean asks(SessionMessage message) {
        return message.getEventType() == SessionMessage.EVT_GET_ALL_SESSIONS;
    }

    @Test
    void allSessionsAreThereBeforeHttpOpensInBlocksOfBoundedSize() throws Exception {
        try (OneNode first = cluster.started("One", ""); OneNode second = cluster.node("Two", "")) {
            String name = ScriptedMember.name(first.channel().getLocalMember(false));
            fill(manager(first), 3000, 10);
            DeltaManager source = manager(first);
            for (int n = 3000; n < 3040; n++) {
                // 10 MiB: the block that they come in is split.
                DeltaSession session = (DeltaSession) source.createSession("id-" + n, false);
                session.setAttribute("number", n);
                session.setAttribute("load", new byte[256 << 10]);
            }
            second.start();
            isWhole(manager(second), 3040);
            long blocks = manager(second).getCounterReceive_EVT_ALL_SESSION_DATA();
            assertTrue(blocks >= 3, blocks + " blocks");
            assertEquals(blocks, manager(first).getCounterSend_EVT_ALL_SESSION_DATA());
            assertEquals(1L, OneNode.jmx("One" + BEAN, "counterReceive_EVT_GET_ALL_SESSIONS"));
            assertEquals(3040, OneNode.jmx("Two" + BEAN, "stateTransferExpected"));
            assertEquals(3040, OneNode.jmx("Two" + BEAN, "stateTransferReceived"));
            assertEquals(name, OneNode.jmx("Two" + BEAN, "stateTransferSource"));
            assertEquals(true, OneNode.jmx("Two" + BEAN, "stateTransferred"));
            assertTrue(second.log().contains("3040 of 3040 sessions arrived from " + name), second.log());
        }
    }

    /** What only the first node has the class of. */
    static final class Known implements Serializable {
        private static final long serialVersionUID = 1L;
    }

    /** @return one of a class that no class loader of a node finds: as Known, under another name */
    private static Object ofUnknownClass() throws Exception {
        byte[] known;
        try (InputStream in = Known.class.getResourceAsStream("StateTransferTest$Known.class")) {
            known = in.readAllBytes();
        }
        byte[] other = new String(known, StandardCharsets.ISO_8859_1).replace("Test$Known", "Test$Other")
                .getBytes(StandardCharsets.ISO_8859_1);
        Constructor<?> constructor = new ClassLoader(Known.class.getClassLoader()) {
            Class<?> define() {
                return defineClass(null, other, 0, other.length);
            }
        }.define().getDeclaredConstructor();
        constructor.setAccessible(true);
        return constructor.newInstance();
    }

    /** More: RINGTRIBE_SESSIONS=50000. */
    @Test
    void oneSessionOfAMissingClassCostsThatSessionOfAll() throws Exception {
        String given = System.getenv("RINGTRIBE_SESSIONS");
        int sessions = given == null ? 500 : Integer.parseInt(given);
        try (OneNode first = cluster.started("One", ""); OneNode second = cluster.node("Two", "")) {
            fill(manager(first), sessions, 4096);
            RingtribeDeltaSession odd = (RingtribeDeltaSession) manager(first).findSession("id-" + sessions / 2);
            odd.setAttribute("odd", ofUnknownClass());
            long begin = System.nanoTime();
            second.start();
            System.out.println(sessions + " sessions of 4 KiB: the second node started within "
                    + TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begin) + " ms, "
                    + ours(second).getStateTransferReceived() + " are there, in "
                    + manager(second).getCounterReceive_EVT_ALL_SESSION_DATA() + " blocks");
            assertEquals(sessions - 1, manager(second).findSessions().length);
            assertNull(manager(second).findSession(odd.getIdInternal()));
            assertEquals(sessions - 1, ours(second).getStateTransferReceived());
            assertEquals(sessions, ours(second).getStateTransferExpected());
            assertEquals(1, ours(second).getCounterUnreadableSessions());
            String log = second.log();
            assertTrue(log.contains("session " + odd.hash() + ": there is no class org.ringtribe.tomcat.StateTransferTest$Other"),
                    log);
            assertTrue(log.contains("SEVERE: Sessions of " + SHOP + ": " + (sessions - 1) + " of " + sessions
                    + " sessions arrived from "), log);
        }
    }

    @Test
    void aStockManagerIsSourceAndReceiver() throws Exception {
        try (OneNode stock = cluster.started("One", STOCK)) {
            fill(manager(stock), 300, 1000);
            try (OneNode own = cluster.started("Two", "")) {
                isWhole(manager(own), 300);
                assertEquals(300, ours(own).getStateTransferReceived());
                manager(stock).setStateTransferTimeout(20);
            }
        }
        try (OneNode own = cluster.started("One", "")) {
            fill(manager(own), 300, 1000);
            try (OneNode stock = cluster.started("Two", STOCK)) {
                isWhole(manager(stock), 300);
                assertTrue(manager(stock).getStateTransferred());
                assertTrue(manager(stock).getCounterReceive_EVT_ALL_SESSION_DATA() > 1, "in blocks");
            }
        }
    }

    @Test
    void theNextMemberIsAskedWhenTheSourceDiesOrIsSilent() throws Exception {
        List<byte[]> blocks = blocks(3);
        try (ScriptedMember dying = new ScriptedMember(mcastPort); ScriptedMember silent = new ScriptedMember(mcastPort);
                ScriptedMember without = new ScriptedMember(mcastPort); ScriptedMember whole = new ScriptedMember(mcastPort);
                OneNode node = cluster.node("Catalina", "manager.stateTransferTimeout='20'")) {
            AtomicReference<LifecycleState> http = new AtomicReference<>();
            dying.does((message, sender) -> {
                if (asks(message)) {
                    dying.block(sender, blocks.get(0), 3);
                    dying.close();
                }
            });
            without.does((message, sender) -> {
                if (asks(message)) {
                    without.send(sender, SessionMessage.EVT_ALL_SESSION_NOCONTEXTMANAGER, null, "NO-CONTEXT-MANAGER", "no", 0);
                }
            });
            whole.does((message, sender) -> {
                if (asks(message)) {
                    whole.block(sender, blocks.get(2), 3);
                    whole.block(sender, blocks.get(0), 3);
                    whole.block(sender, blocks.get(1), 3);
                    http.set(node.connectorState());
                    whole.complete(sender);
                }
            });
            node.start();
            isWhole(manager(node), 3);
            assertFalse(http.get().isAvailable(), "HTTP waits for the sessions: " + http.get());
            assertEquals(LifecycleState.STARTED, node.connectorState());
            assertEquals(whole.name(), ours(node).getStateTransferSource());
            assertEquals(3, ours(node).getStateTransferReceived(), "each counts once");
            assertEquals(3, ours(node).getStateTransferExpected());
            // Who is asked first is who was there first, by a clock of ms.
            assertTrue(manager(node).getCounterSend_EVT_GET_ALL_SESSIONS() >= 1);
            assertFalse(node.log().contains("ERROR"), node.log());
        }
    }

    @Test
    void atTheTimeoutHttpOpensWithAnErrorAndTheRestComesInTheBackground() throws Exception {
        List<byte[]> blocks = blocks(5);
        try (ScriptedMember slow = new ScriptedMember(mcastPort);
                OneNode node = cluster.node("Catalina", "manager.stateTransferTimeout='2'")) {
            CountDownLatch open = new CountDownLatch(1);
            AtomicReference<Member> asking = new AtomicReference<>();
            slow.does((message, sender) -> {
                if (asks(message) && open.getCount() > 0 && asking.getAndSet(sender) == null) {
                    slow.block(sender, blocks.get(0), 5);
                    slow.block(sender, blocks.get(1), 5);
                } else if (asks(message)) {
                    open.await();
                    for (byte[] block : blocks) {
                        slow.block(sender, block, 5);
                    }
                    slow.complete(sender);
                }
            });
            long begin = System.nanoTime();
            node.start();
            long millis = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begin);
            assertTrue(millis >= 2000 && millis < 20_000, millis + " ms");
            assertEquals(LifecycleState.STARTED, node.connectorState());
            assertEquals(2, manager(node).findSessions().length);
            assertEquals(1, manager(node).getCounterNoStateTransferred());
            assertFalse(manager(node).getStateTransferred());
            assertTrue(node.log().contains("SEVERE: The sessions of " + SHOP + " are not all here: "), node.log());
            assertTrue(node.log().contains(" of 5 sessions arrived from " + slow.name() + " within stateTransferTimeout=\"2\""),
                    node.log());
            // A request changes what came; the transfer goes on with the older copy.
            RingtribeDeltaSession used = (RingtribeDeltaSession) manager(node).findSession("id-1");
            used.setAttribute("number", -1);
            manager(node).requestCompleted("id-1", false);
            open.countDown();
            await("the rest comes", manager(node)::getStateTransferred);
            assertEquals(5, manager(node).findSessions().length);
            assertEquals(-1, used.getAttribute("number"));
            assertEquals(used, manager(node).findSession("id-1"), "a request that runs keeps its session");
            assertEquals(5, ours(node).getStateTransferReceived());
        }
    }

    @Test
    void whatIsChangedWhileTheStateIsOnItsWayIsNotLost() throws Exception {
        try (ScriptedMember source = new ScriptedMember(mcastPort)) {
            long writer = SessionVersion.writer(source.local());
            SessionVersion firstChange = SessionVersion.NONE.changedBy(writer);
            SessionVersion secondChange = firstChange.changedBy(writer);
            byte[] older;
            byte[] newer;
            byte[] first;
            byte[] second;
            long madeAt;
            source.does((message, sender) -> {
                if (asks(message)) {
                    source.complete(sender);
                }
            });
            try (OneNode node = cluster.started("Catalina", "")) {
                RingtribeDeltaManager manager = ours(node);
                RingtribeDeltaSession session = (RingtribeDeltaSession) manager.createSession("x", false);
                madeAt = session.getCreationTimeInternal();
                session.noDifference();
                older = manager.serializeSessions(new Session[] { session });
                session.setAttribute("a", "1");
                session.setAttribute("b", "1");
                first = session.getDiff();
                session.noDifference();
                session.setAttribute("b", "2");
                second = session.getDiff();
                session.setChanges(secondChange, 2000);
                newer = manager.serializeSessions(new Session[] { session });
            }
            byte[][] states = { older, newer };
            for (byte[] state : states) {
                try (OneNode node = cluster.node("Catalina", "")) {
                    source.does((message, sender) -> {
                        if (!asks(message)) {
                            return;
                        }
                        // Of a session that is not here, of one that ends, and of one that is made now.
                        source.send(sender, SessionMessage.EVT_SESSION_DELTA, first, "x", firstChange.mark("x", 1000), 1);
                        source.send(sender, SessionMessage.EVT_SESSION_DELTA, second, "x", secondChange.mark("x", 2000), 2);
                        source.send(sender, SessionMessage.EVT_SESSION_CREATED, null, "id-2", "id-2", madeAt);
                        source.block(sender, state, 1);
                        source.complete(sender);
                    });
                    node.start();
                    RingtribeDeltaSession x = (RingtribeDeltaSession) manager(node).findSession("x");
                    assertEquals("1", x.getAttribute("a"));
                    assertEquals("2", x.getAttribute("b"));
                    assertEquals(secondChange, x.changes());
                    assertNotNull(manager(node).findSession("id-2"));
                    assertEquals(0, manager(node).getReceivedQueueSize());
                    // An older copy of one that is newer here changes nothing, and brings back none that ended.
                    ours(node).deserializeSessions(older);
                    assertEquals("2", x.getAttribute("b"));
                    x.expire();
                    ours(node).deserializeSessions(newer);
                    assertNull(manager(node).findSession("x"), "it is not revived");
                }
            }
            // It ends elsewhere before its copy comes.
            try (OneNode node = cluster.node("Catalina", "")) {
                source.does((message, sender) -> {
                    if (asks(message)) {
                        source.send(sender, SessionMessage.EVT_SESSION_EXPIRED, null, "x", "x", madeAt + 100_000);
                        source.block(sender, newer, 1);
                        source.complete(sender);
                    }
                });
                node.start();
                assertNull(manager(node).findSession("x"), "it is not revived");
            }
        }
    }

    @Test
    void twoThatStartAtTheSameTimeDoNotWaitForEachOther() throws Exception {
        List<byte[]> blocks = blocks(1);
        try (ScriptedMember other = new ScriptedMember(mcastPort); OneNode node = cluster.node("Catalina", "")) {
            other.does((message, sender) -> {
                if (asks(message)) {
                    other.send(sender, SessionMessage.EVT_GET_ALL_SESSIONS, null, "GET-ALL", "GET-ALL", 0);
                } else if (message.getEventType() == SessionMessage.EVT_ALL_SESSION_TRANSFERCOMPLETE) {
                    // Only now its own is over.
                    other.block(sender, blocks.get(0), 1);
                    other.complete(sender);
                }
            });
            long begin = System.nanoTime();
            node.start();
            assertTrue(System.nanoTime() - begin < TimeUnit.SECONDS.toNanos(14), "it did not wait for the next try");
            isWhole(manager(node), 1);
        }
    }

    @Test
    void whoAsksMeanwhileGetsTheWholeState() throws Exception {
        List<byte[]> blocks = blocks(2);
        try (ScriptedMember source = new ScriptedMember(mcastPort); OneNode node = cluster.node("Catalina", "")) {
            try (ScriptedMember late = new ScriptedMember(mcastPort)) {
                // Whichever is asked: the other one asks before anything is here.
                ScriptedMember.Script answer = (message, sender) -> {
                    if (asks(message)) {
                        late.send(sender, SessionMessage.EVT_GET_ALL_SESSIONS, null, "GET-ALL", "GET-ALL", 0);
                        source.block(sender, blocks.get(0), 2);
                        source.block(sender, blocks.get(1), 2);
                        source.complete(sender);
                    }
                };
                source.does(answer);
                node.start();
                assertEquals(2, manager(node).findSessions().length);
                SessionMessage block = late.awaitEvent(SessionMessage.EVT_ALL_SESSION_DATA);
                assertTrue(block.getUniqueId().endsWith("~of:2"), block.getUniqueId());
            }
        }
    }
}
