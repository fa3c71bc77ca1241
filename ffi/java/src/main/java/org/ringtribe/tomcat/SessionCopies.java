package org.ringtribe.tomcat;

import java.io.IOException;
import java.util.Map;
import java.util.Queue;

import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.tribes.Member;

/**
 * What comes of the sessions of other nodes, in whatever order: copies, changes that wait for their copy, and
 * the ends of sessions, which no older copy undoes. Thread-safe.
 */
final class SessionCopies {

    private final RingtribeDeltaManager manager;
    /** Its lock is held from where a session is not here until it is, with all that waited for it. */
    private final HeldMessages held = new HeldMessages();
    private final ExpiredSessions expired = new ExpiredSessions();

    SessionCopies(RingtribeDeltaManager manager) {
        this.manager = manager;
    }

    ExpiredSessions expired() {
        return expired;
    }

    /** The manager starts. */
    void clear() {
        held.clear();
        expired.clear();
    }

    int waitingCount() {
        return held.count();
    }

    /** From here on copies are on their way, as far as anybody can tell. */
    void expect() {
        held.open();
    }

    /**
     * No more copies are on their way.
     *
     * @return whether nothing was lost meanwhile
     */
    boolean expectNoMore() {
        Map<String,Queue<SessionMessage>> left = held.close();
        left.values().forEach(messages -> messages.forEach(manager::apply));
        return held.dropped() == 0;
    }

    /** @return whether a message is for a session that is not here, and may come */
    boolean waits(SessionMessage message) {
        synchronized (held) {
            return manager.find(message.getSessionID()) == null && held.hold(message);
        }
    }

    /** Applies what waited for a session that is here now. */
    void release(String id) {
        synchronized (held) {
            for (SessionMessage message : held.take(id)) {
                manager.apply(message);
            }
        }
    }

    /** A session was changed elsewhere: what is here already is passed over, where an earlier change is missing it is fetched. */
    void change(SessionMessage message, Member sender) throws IOException, ClassNotFoundException {
        SessionVersion sent = SessionVersion.ofMarked(message.getUniqueId());
        String id = message.getSessionID();
        RingtribeDeltaSession session = manager.find(id);
        if (session == null) {
            id = expired.idNow(id);
            session = manager.find(id);
        }
        boolean isWhole;
        if (session == null) {
            // While it gets another id it has none; else it has ended.
            isWhole = sent == null || expired.of(id) != null;
        } else {
            session.lock();
            try {
                isWhole = sent != null && session.changes().holds(sent)
                        || session.apply(message.getSession(), sent, SessionVersion.writer(sender),
                                SessionVersion.at(message.getUniqueId(), message.getTimestamp()));
            } finally {
                session.unlock();
            }
        }
        if (!isWhole) {
            manager.reconciler().missing(sender, id);
        }
    }

    /** A session was made, elsewhere. */
    void create(SessionMessage message, Runnable create) {
        String id = message.getSessionID();
        ExpiredSessions.End end = expired.of(id);
        if (end != null && end.ends(message.getTimestamp(), message.getTimestamp(), SessionVersion.NONE)) {
            return;
        }
        if (!held.isOpen()) {
            createIfUnknown(message, create);
            return;
        }
        synchronized (held) {
            createIfUnknown(message, create);
            release(id);
        }
    }

    private void createIfUnknown(SessionMessage message, Runnable create) {
        RingtribeDeltaSession here = manager.find(message.getSessionID());
        if (here == null || here.getCreationTimeInternal() != message.getTimestamp()) {
            create.run();
        }
    }

    /** A session ended, elsewhere; if it is not here its copy may be on the way. */
    void ended(SessionMessage message) {
        RingtribeDeltaSession session = manager.find(message.getSessionID());
        long at = message.getTimestamp();
        expired.add(message.getSessionID(),
                session == null ? new ExpiredSessions.End(at, at, false, null) : session.end());
        held.take(message.getSessionID());
    }

    /** A session ends here, and everywhere. */
    void ended(RingtribeDeltaSession session) {
        expired.add(session.getIdInternal(), session.end());
    }

    /**
     * A session has ended at another node, which could not say so.
     *
     * @return whether it has ended here now: one that was used since then goes on where it was idle there
     */
    boolean endedElsewhere(RingtribeDeltaSession session, ExpiredSessions.End end) {
        if (!end.ends(session)) {
            return false;
        }
        expired.add(session.getIdInternal(), end);
        session.expire(manager.isNotifySessionListenersOnReplication(), false);
        return true;
    }

    /** A session gets another id. */
    void renamed(RingtribeDeltaSession session, String newId, long writer) {
        session.lock();
        try {
            session.changed(null, writer, session.changedAt());
            expired.add(session.getIdInternal(), new ExpiredSessions.End(session.getCreationTimeInternal(),
                    session.getThisAccessedTimeInternal(), false, session.changes(), newId));
        } finally {
            session.unlock();
        }
        expired.remove(newId);
    }

    /** A copy came from another node: it is taken if it is newer than what is here. */
    void take(RingtribeDeltaSession came) {
        String id = came.getIdInternal();
        ExpiredSessions.End end = expired.of(id);
        if (end != null && end.ends(came)) {
            return;
        }
        RingtribeDeltaSession here;
        synchronized (held) {
            here = manager.find(id);
            if (here == null) {
                manager.addNew(came);
                release(id);
                return;
            }
        }
        here.lock();
        try {
            boolean hasAll = here.changes().holds(came.changes());
            boolean bringsAll = came.changes().holds(here.changes());
            boolean prevails = bringsAll || came.changes().prevailsOver(here.changes(), came.changedAt(), here.changedAt());
            if (!hasAll && prevails) {
                SessionVersion both = here.changes().and(came.changes());
                here.become(came, manager.isNotifyListenersOnReplication());
                here.setChanges(both, came.changedAt());
            } else if (hasAll && bringsAll) {
                here.usedElsewhere(came.getThisAccessedTimeInternal());
            }
        } finally {
            here.unlock();
        }
    }
}
