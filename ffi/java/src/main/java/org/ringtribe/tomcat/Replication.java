package org.ringtribe.tomcat;

import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.tribes.ChannelException;

/**
 * What became of the copies of one request's sessions. It lives on the thread of the request from
 * before the application is called until after the last difference was sent, so that a session that
 * was made, expired or got another id in between counts too. What a manager sends from other threads
 * has none.
 */
final class Replication {

    private static final ThreadLocal<Replication> CURRENT = new ThreadLocal<>();
    /** A request may use many sessions across contexts; a log line may not become arbitrarily long. */
    private static final int MOST_TEXTS = 8;

    private final Replication outer;
    private final Set<String> failures = new LinkedHashSet<>();
    private boolean alone;
    private int sentCount;

    private Replication(Replication outer) {
        this.outer = outer;
    }

    /** Begins a request on this thread; {@link #end} must follow. */
    static Replication begin() {
        Replication request = new Replication(CURRENT.get());
        CURRENT.set(request);
        return request;
    }

    /** The request, which had ended on the thread that began it, goes on, on this one; {@link #end} must follow. */
    void resume() {
        CURRENT.set(this);
    }

    /** An earlier part of the same request. */
    void take(Replication earlier) {
        failures.addAll(earlier.failures);
        alone |= earlier.alone;
        sentCount += earlier.sentCount;
    }

    /** A manager hands a difference to the engine. */
    static void countSent() {
        Replication request = CURRENT.get();
        if (request != null) {
            request.sentCount++;
        }
    }

    /** @return differences that were handed to the engine */
    int sentCount() {
        return sentCount;
    }

    /** @return of the request that this thread serves, null if it serves none through our valve */
    static Replication current() {
        return CURRENT.get();
    }

    void end() {
        if (outer == null) {
            CURRENT.remove();
        } else {
            CURRENT.set(outer);
        }
    }

    /**
     * A message about a session could not be sent.
     *
     * @param session its hash
     */
    void failed(String session, Throwable e) {
        failures.add("session " + session + " is not " + why(e));
    }

    /** There is nobody who could have a copy. */
    void noMember() {
        alone = true;
    }

    boolean wasAlone() {
        return alone;
    }

    boolean hasFailed() {
        return !failures.isEmpty();
    }

    /** @return sessions, members and reasons, in one line */
    @Override
    public String toString() {
        List<String> texts = new ArrayList<>(failures);
        if (texts.size() <= MOST_TEXTS) {
            return String.join("; ", texts);
        }
        return String.join("; ", texts.subList(0, MOST_TEXTS)) + "; and " + (texts.size() - MOST_TEXTS) + " more";
    }

    /** @return whether a message changes a session, so that a request needs it to have arrived */
    static boolean isOfSession(Object message) {
        if (!(message instanceof SessionMessage)) {
            return false;
        }
        switch (((SessionMessage) message).getEventType()) {
            case SessionMessage.EVT_SESSION_CREATED:
            case SessionMessage.EVT_SESSION_DELTA:
            case SessionMessage.EVT_SESSION_ACCESSED:
            case SessionMessage.EVT_SESSION_EXPIRED:
            case SessionMessage.EVT_CHANGE_SESSION_ID:
                return true;
            default:
                return false;
        }
    }

    /** @return where it is not, each member by name and reason */
    static String why(Throwable e) {
        if (e instanceof ChannelException) {
            List<String> members = new ArrayList<>();
            for (ChannelException.FaultyMember faulty : ((ChannelException) e).getFaultyMembers()) {
                String name = faulty.getMember().getName();
                String reason = text(faulty.getCause());
                // Some reasons begin with the name already.
                String rest = reason.startsWith(name + ": ") ? reason.substring(name.length() + 2) : reason;
                members.add("on " + name + " (" + rest + ")");
            }
            if (!members.isEmpty()) {
                return String.join(", ", members);
            }
            if (e.getCause() instanceof Exception) {
                return why(e.getCause());
            }
        }
        return "on any member (" + text(e) + ")";
    }

    private static String text(Throwable e) {
        String message = e == null ? null : e.getMessage();
        // A line break would make two lines of one.
        return (message == null ? String.valueOf(e) : message).replace('\n', ' ').replace('\r', ' ');
    }
}
