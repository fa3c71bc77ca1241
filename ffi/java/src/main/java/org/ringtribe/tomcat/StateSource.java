package org.ringtribe.tomcat;

import java.io.IOException;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

import org.apache.catalina.Session;
import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.Member;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/** Sends all sessions of a manager to a member that asks for them, in messages that stock reads too. */
final class StateSource {

    private static final Log log = LogFactory.getLog(StateSource.class);

    private final RingtribeDeltaManager manager;
    private final StateBlocks blocks;
    private final AtomicLong blocksSent = new AtomicLong();
    private final AtomicInteger completed = new AtomicInteger();
    private final Set<Member> served = ConcurrentHashMap.newKeySet();
    private volatile CountDownLatch ended = new CountDownLatch(1);

    StateSource(RingtribeDeltaManager manager, StateBlocks blocks) {
        this.manager = manager;
        this.blocks = blocks;
    }

    void start() {
        ended = new CountDownLatch(1);
    }

    /** What is being sent ends after its block. */
    void stop() {
        ended.countDown();
    }

    long blocksSent() {
        return blocksSent.get();
    }

    int completed() {
        return completed.get();
    }

    void resetStatistics() {
        blocksSent.set(0);
        completed.set(0);
    }

    /** Sends all, and that it is all. Each block is acknowledged when it is taken. */
    void send(Member to) throws IOException {
        if (!served.add(to)) {
            // It is impatient, and gets them already.
            return;
        }
        try {
            sendAll(to);
        } finally {
            served.remove(to);
        }
    }

    private void sendAll(Member to) throws IOException {
        CountDownLatch end = ended;
        // Before they are read: what is changed from here on may be missing in what is sent.
        long changed = manager.changesNumber();
        Session[] all = manager.live();
        long now = System.currentTimeMillis();
        int[] sent = new int[1];
        StateBlocks.Sink sink = (data, count) -> {
            send(to, SessionMessage.EVT_ALL_SESSION_DATA, data, "SESSION-STATE",
                    StateTransfer.uniqueId(manager.getName(), all.length), now);
            blocksSent.incrementAndGet();
            sent[0] += count;
            return sent[0] == all.length || !isOver(end);
        };
        try {
            if (manager.isSendAllSessions()) {
                sink.block(blocks.write(all, to), all.length);
            } else {
                blocks.write(all, to, sink);
            }
            if (sent[0] == all.length) {
                send(to, SessionMessage.EVT_ALL_SESSION_TRANSFERCOMPLETE, null, "SESSION-STATE-TRANSFERRED",
                        "SESSION-STATE-TRANSFERRED" + manager.getName(), now);
                completed.incrementAndGet();
                manager.hasAll(to, changed);
            }
        } catch (ChannelException e) {
            log.warn(manager.getName() + ": " + to.getName() + " has got " + sent[0] + " of " + all.length
                    + " sessions, the next ones are not " + Replication.why(e));
        }
    }

    /** Waits as long as sendAllSessionsWaitTime says, and tells whether the manager stops meanwhile. */
    private boolean isOver(CountDownLatch end) throws IOException {
        try {
            return end.await(Math.max(0, manager.getSendAllSessionsWaitTime()), TimeUnit.MILLISECONDS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IOException("interrupted between two blocks", e);
        }
    }

    private void send(Member to, int event, byte[] data, String id, String uniqueId, long timestamp)
            throws ChannelException {
        SessionMessage message = new SessionMessageImpl(manager.getName(), event, data, id, uniqueId);
        message.setTimestamp(timestamp);
        manager.sendTo(to, message, SendMode.APPLIED);
    }
}
