package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.io.ObjectOutputStream;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.locks.ReentrantLock;

import org.apache.catalina.Session;
import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.session.SessionMessageImpl;
import org.junit.jupiter.api.Test;

/** Two nodes change one session without knowing of each other, or one changes it while the other gives it another id. */
class ConcurrentChangesTest {

    private static final long A = 1;
    private static final long B = 2;

    private static OneNode node() throws Exception {
        OneNode.write("../webapps/shop/WEB-INF/web.xml", "<web-app metadata-complete='true'><distributable/></web-app>");
        OneNode node = new OneNode("<Cluster className='org.ringtribe.tomcat.RingtribeCluster' " + OneNode.HERE
                + "mcastPort='@MCAST@' tcpListenAddress='127.0.0.1' tcpListenPort='@TCP@'/>");
        node.start();
        return node;
    }

    private static RingtribeDeltaManager manager(OneNode node) {
        return (RingtribeDeltaManager) node.context("localhost", "/shop").getManager();
    }

    private static RingtribeDeltaSession session(RingtribeDeltaManager manager, String id) {
        RingtribeDeltaSession session = (RingtribeDeltaSession) manager.createSession(id);
        session.resetDeltaRequest();
        return session;
    }

    private static String text(RingtribeDeltaSession session) {
        return "x=" + session.getAttribute("x") + " y=" + session.getAttribute("y") + " z=" + session.getAttribute("z");
    }

    private static boolean apply(RingtribeDeltaSession to, byte[] difference, SessionVersion sent, long writer, long at)
            throws Exception {
        to.lock();
        try {
            return to.apply(difference, sent, writer, at);
        } finally {
            to.unlock();
        }
    }

    @Test
    void whoeverIsHeardFirstTheLaterChangeOfAnAttributeStays() throws Exception {
        try (OneNode node = node()) {
            RingtribeDeltaManager manager = manager(node);
            RingtribeDeltaSession source = session(manager, "source");
            source.setAttribute("x", "a");
            source.setAttribute("y", "a");
            byte[] ofA = source.getDiff();
            source.setAttribute("x", "b");
            source.setAttribute("z", "b");
            byte[] ofB = source.getDiff();
            source.removeAttribute("x");
            byte[] afterBoth = source.getDiff();
            SessionVersion a1 = SessionVersion.NONE.changedBy(A);
            SessionVersion b1 = SessionVersion.NONE.changedBy(B);
            for (long atB : new long[] { 100, 101, 99 }) {
                RingtribeDeltaSession first = session(manager, "first-" + atB);
                RingtribeDeltaSession second = session(manager, "second-" + atB);
                assertTrue(apply(first, ofA, a1, A, 100));
                assertTrue(apply(first, ofB, b1, B, atB));
                assertTrue(apply(second, ofB, b1, B, atB));
                assertTrue(apply(second, ofA, a1, A, 100));
                assertEquals(atB < 100 ? "x=a y=a z=b" : "x=b y=a z=b", text(first), "nothing that only one changed is lost");
                assertEquals(text(first), text(second));
                // Who knew both is later, though its clock is not.
                SessionVersion after = first.changes().changedBy(A);
                assertEquals(first.changes(), second.changes());
                assertTrue(apply(second, afterBoth, after, A, 50));
                assertNull(second.getAttribute("x"));
            }
        }
    }

    @Test
    void aRunningRequestIsLaterThanWhatComesMeanwhile() throws Exception {
        try (OneNode node = node()) {
            RingtribeDeltaManager manager = manager(node);
            RingtribeDeltaSession source = session(manager, "source");
            source.setAttribute("x", "there");
            source.setAttribute("y", "there");
            byte[] came = source.getDiff();
            RingtribeDeltaSession session = session(manager, "both");
            session.setAttribute("x", "here");
            long farAhead = AttributeOrder.now() + 1_000_000_000;
            assertTrue(apply(session, came, SessionVersion.NONE.changedBy(A), A, farAhead));
            assertEquals("x=here y=there z=null", text(session), "what is sent later is here too");
            synchronized (session.order()) {
                session.takenBy(B);
                session.getDiff();
                assertTrue(session.sentAt() > farAhead, "and says that it is later");
                assertEquals(session.changes(), session.sentChanges());
            }
        }
    }

    /** Its writeObject wants a lock that the application has while it sets an attribute. */
    private static final class Guarded implements Serializable {
        private static final long serialVersionUID = 1L;
        private final transient ReentrantLock lock = new ReentrantLock();
        private final transient CountDownLatch begun = new CountDownLatch(1);
        private final transient AtomicBoolean isInVain = new AtomicBoolean();

        private void writeObject(ObjectOutputStream out) throws IOException {
            begun.countDown();
            try {
                if (!lock.tryLock(5, TimeUnit.SECONDS)) {
                    isInVain.set(true);
                    throw new IOException("who has the lock waits for who wants it");
                }
            } catch (InterruptedException e) {
                throw new IOException(e);
            }
            lock.unlock();
            out.defaultWriteObject();
        }
    }

    @Test
    void noAttributeIsWrittenWhileTheSessionIsLocked() throws Exception {
        try (OneNode node = node()) {
            RingtribeDeltaManager manager = manager(node);
            RingtribeDeltaSession session = session(manager, "guarded");
            for (Callable<byte[]> write : Arrays.<Callable<byte[]>>asList(session::getDiff,
                    () -> manager.serializeSessions(new Session[] { session }))) {
                Guarded guarded = new Guarded();
                session.setAttribute("guarded", guarded);
                FutureTask<byte[]> written = new FutureTask<>(write);
                guarded.lock.lock();
                try {
                    new Thread(written).start();
                    guarded.begun.await();
                    session.setAttribute("other", "x");
                } finally {
                    guarded.lock.unlock();
                }
                assertTrue(written.get(20, TimeUnit.SECONDS).length > 0);
                assertFalse(guarded.isInVain.get());
            }
        }
    }

    /** Stock's lock does nothing. */
    @Test
    void aSessionIsLockedByOneThreadOnly() throws Exception {
        try (OneNode node = node()) {
            RingtribeDeltaSession session = session(manager(node), "one");
            long before = session.changes().total();
            Runnable changes = () -> {
                for (int n = 0; n < 20_000; n++) {
                    session.lock();
                    try {
                        session.changed(null, A, n);
                    } finally {
                        session.unlock();
                    }
                }
            };
            List<Thread> threads = new ArrayList<>();
            for (int n = 0; n < 4; n++) {
                threads.add(new Thread(changes));
            }
            threads.forEach(Thread::start);
            for (Thread thread : threads) {
                thread.join();
            }
            assertEquals(before + 80_000, session.changes().total());
        }
    }

    @Test
    void aChangeUnderTheFormerIdIsNotLost() throws Exception {
        try (OneNode node = node()) {
            RingtribeDeltaManager manager = manager(node);
            RingtribeDeltaSession session = session(manager, "4711.node-a");
            session.setAttribute("x", "1");
            byte[] difference = session.getDiff();
            session.removeAttribute("x");
            session.resetDeltaRequest();
            SessionVersion sent = session.changes().changedBy(B);
            manager.changeSessionId(session, "4711.node-b");
            SessionMessage message = new SessionMessageImpl(manager.getName(), SessionMessage.EVT_SESSION_DELTA, difference,
                    "4711.node-a", sent.mark("4711.node-a", AttributeOrder.now()));
            message.setAddress(manager.getCluster().getLocalMember());
            message.setTimestamp(System.currentTimeMillis());
            manager.messageDataReceived(message);
            assertEquals("4711.node-b", session.getIdInternal());
            assertEquals("1", session.getAttribute("x"));
            assertNull(manager.findSession("4711.node-a"));
            assertEquals(1, manager.getCounterReceive_EVT_SESSION_DELTA());
            // It goes back, and is nobody's former id any more.
            manager.changeSessionId(session, "4711.node-a");
            assertEquals("4711.node-a", manager.copies().expired().idNow("4711.node-b"));
            assertFalse(manager.copies().expired().byId().containsKey("4711.node-a"));
        }
    }
}
