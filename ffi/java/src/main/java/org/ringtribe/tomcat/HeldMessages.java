package org.ringtribe.tomcat;

import java.util.ArrayDeque;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import java.util.Queue;

import org.apache.catalina.ha.session.SessionMessage;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * Changes of sessions that are not here yet, while the state of another node is on its way: they wait
 * for their session, in the order they came. (Stock holds all messages until the end, and then drops those
 * whose time, by the clock of their sender, is before that of the state.) Guarded by itself; whoever adds
 * a session holds it until what waited for that session is applied.
 */
final class HeldMessages {

    private static final Log log = LogFactory.getLog(HeldMessages.class);

    /** For the payloads and what surrounds them, in bytes. */
    static final long MOST_BYTES = 16L << 20;
    private static final int SURROUNDING_BYTES = 512;

    private final Map<String,Queue<SessionMessage>> bySession = new HashMap<>();
    private boolean open;
    private long bytes;
    private int count;
    private long dropped;

    synchronized void open() {
        open = true;
        dropped = 0;
    }

    synchronized boolean isOpen() {
        return open;
    }

    /** @return false if nothing is held now; the caller knows whether the session is here, under this lock */
    synchronized boolean hold(SessionMessage message) {
        if (!open) {
            return false;
        }
        long size = SURROUNDING_BYTES + (message.getSession() == null ? 0 : message.getSession().length);
        if (bytes + size > MOST_BYTES) {
            if (dropped++ == 0) {
                log.warn("More than " + MOST_BYTES + " bytes of changes wait for sessions of " + message.getContextName()
                        + " that are not here yet: further ones are dropped");
            }
            return true;
        }
        bytes += size;
        count++;
        bySession.computeIfAbsent(message.getSessionID(), id -> new ArrayDeque<>()).add(message);
        return true;
    }

    /** @return what waited for a session, which waits no longer */
    synchronized Queue<SessionMessage> take(String id) {
        Queue<SessionMessage> waited = bySession.remove(id);
        if (waited == null) {
            return new ArrayDeque<>(Collections.<SessionMessage>emptyList());
        }
        for (SessionMessage message : waited) {
            bytes -= SURROUNDING_BYTES + (message.getSession() == null ? 0 : message.getSession().length);
            count--;
        }
        return waited;
    }

    /**
     * Nothing is held from now on.
     *
     * @return what waited in vain
     */
    synchronized Map<String,Queue<SessionMessage>> close() {
        open = false;
        Map<String,Queue<SessionMessage>> left = new HashMap<>(bySession);
        bySession.clear();
        bytes = 0;
        count = 0;
        return left;
    }

    /** What waited is no longer known. */
    synchronized void clear() {
        bySession.clear();
        bytes = 0;
        count = 0;
    }

    synchronized int count() {
        return count;
    }

    synchronized long dropped() {
        return dropped;
    }
}
