package org.ringtribe.tomcat;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.ObjectInputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;

import org.apache.catalina.Manager;
import org.apache.catalina.Session;
import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.tcp.SimpleTcpCluster;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.Member;

/**
 * Which living members have the last change of each session of this node. A member has it
 *
 * <ul>
 * <li>where it was awaited: if that member acknowledged it and has been a member ever since;
 * <li>where it was not: if it was handed over for that member, the engine had nothing unacknowledged at
 * some time since, and no Gap in between says that the member missed something;
 * <li>in any case, if that member got all sessions as they were after the change.
 * </ul>
 *
 * <p>A member that failed when it was told of the session, or of another id of it, or to which it could not be
 * written, acknowledges what comes later and has nothing to apply it to: it has the session again when it has
 * got all of them. In doubt a member has it not. Changes are numbered in one order for all sessions. Thread-safe.
 */
final class Copies {

    private static final Member[] NOBODY = {};

    private final AtomicLong numbers = new AtomicLong();
    /** Members of now; one that left and came back is another entry, which has nothing yet. */
    private final Map<Member,Peer> living = new ConcurrentHashMap<>();
    /** Up to this number what was not awaited has been acknowledged by the engines, or is named by a Gap. */
    private final AtomicLong settled = new AtomicLong();

    /** What is known of a member beside single sessions. */
    private static final class Peer {
        /** What was changed up to here was sent before it was a member. */
        final long since;
        /** Of each context of which it got all sessions: up to which number. */
        final Map<String,Long> whole = new ConcurrentHashMap<>();
        /** Of what was not awaited in (missedFrom, missedTo] some is missing there. */
        private long missedFrom;
        private long missedTo;

        Peer(long since) {
            this.since = since;
        }

        synchronized void missed(long from, long to) {
            missedFrom = missedTo == 0 ? from : Math.min(missedFrom, from);
            missedTo = to;
        }

        synchronized boolean mayMiss(long number) {
            return number > missedFrom && number <= missedTo;
        }
    }

    /** Of one session. */
    static final class Copy {
        private int pending;
        /** Number of the last change. */
        private long changed;
        /** Number that a change that was not awaited got when the engine had it; else 0. */
        private long handedOver;
        private Member[] holders = NOBODY;
        /** Who does not know the session under its id, and the number of the message that failed there. */
        private Member[] strangers = NOBODY;
        private long strangersSince;

        private synchronized void begin(long number) {
            pending++;
            changed = number;
        }

        private synchronized void unknownTo(long number, Member... members) {
            List<Member> all = new ArrayList<>(Arrays.asList(strangers));
            all.removeAll(Arrays.asList(members));
            all.addAll(Arrays.asList(members));
            strangers = all.toArray(NOBODY);
            strangersSince = Math.max(strangersSince, number);
        }

        private synchronized void end(long number, long handedOverAt, Member[] have, Member[] strange) {
            pending--;
            if (strange.length > 0) {
                unknownTo(number, strange);
            }
            if (changed == number) {
                handedOver = handedOverAt;
                holders = have;
            }
        }
    }

    /** A message about a session on its way. */
    final class Change {
        private final Copy copy;
        private final Member[] destination;
        private final boolean isNews;
        private final long number;

        private Change(Copy copy, Member[] destination, boolean isNews) {
            this.copy = copy;
            this.destination = destination;
            this.isNews = isNews;
            number = numbers.incrementAndGet();
            copy.begin(number);
        }

        /**
         * Every member did what was awaited, or failed.
         *
         * @param failure null if none did
         */
        void acknowledged(ChannelException failure) {
            end(0, failure);
        }

        /** The engine has it, and nobody waits. */
        void handedOver(ChannelException failure) {
            end(numbers.incrementAndGet(), failure);
        }

        private void end(long handedOverAt, ChannelException failure) {
            if (failure == null) {
                copy.end(number, handedOverAt, destination, NOBODY);
                return;
            }
            List<Member> have = new ArrayList<>();
            List<Member> failed = new ArrayList<>();
            for (Member member : destination) {
                (hasFailed(member, failure) ? failed : have).add(member);
            }
            copy.end(number, handedOverAt, have.toArray(NOBODY), isNews ? failed.toArray(NOBODY) : NOBODY);
        }

        private boolean hasFailed(Member member, ChannelException failure) {
            boolean isNamed = failure.getFaultyMembers().length == 0;
            for (ChannelException.FaultyMember faulty : failure.getFaultyMembers()) {
                isNamed |= faulty.getMember().equals(member);
            }
            return isNamed;
        }
    }

    /** A member is there; called before anybody is told. */
    void joined(Member member) {
        living.put(member, new Peer(numbers.incrementAndGet()));
    }

    void left(Member member) {
        living.remove(member);
    }

    /** The channel stops: whoever is there when it starts again joins then. */
    void clear() {
        living.clear();
    }

    /** It missed messages of this node. */
    void missed(Member member) {
        Peer peer = living.get(member);
        if (peer != null) {
            peer.missed(settled.get(), numbers.incrementAndGet());
        }
    }

    /**
     * It has every session of a context as they were here at that time, but for those of which {@link #notWritten}
     * was told since.
     *
     * @param number from {@link #number} before the first of them was read
     */
    void hasAll(Member member, String context, long number) {
        Peer peer = living.get(member);
        if (peer != null) {
            peer.whole.merge(context, number, Math::max);
        }
    }

    /** A session is left out of those that are sent to a member, since it cannot be written. */
    void notWritten(Copy copy, Member member) {
        copy.unknownTo(numbers.incrementAndGet(), member);
    }

    /** @return the number of now, for {@link #settle} and {@link #hasAll}: what was changed before is not above */
    long number() {
        return numbers.get();
    }

    /** The engine had nothing unacknowledged after that number was asked for. */
    void settle(long number) {
        settled.accumulateAndGet(number, Math::max);
    }

    /** @return null if the message changes no session that this node keeps a record of */
    Change begin(SimpleTcpCluster cluster, Object message, Member[] destination) {
        if (cluster == null || !Replication.isOfSession(message)) {
            return null;
        }
        SessionMessage about = (SessionMessage) message;
        Manager manager = about.getContextName() == null ? null : cluster.getManager(about.getContextName());
        if (!(manager instanceof RingtribeDeltaManager)) {
            return null;
        }
        try {
            Session session = manager.findSession(idAfter(about));
            return session instanceof RingtribeDeltaSession
                    ? begin(((RingtribeDeltaSession) session).copy(), destination, isNews(about)) : null;
        } catch (IOException e) {
            return null;
        }
    }

    private static boolean isNews(SessionMessage message) {
        return message.getEventType() == SessionMessage.EVT_SESSION_CREATED
                || message.getEventType() == SessionMessage.EVT_CHANGE_SESSION_ID;
    }

    /**
     * A change of a session goes to these members; it must be ended.
     *
     * @param isNews it tells of the session, or of its id: without it later changes are of nothing
     */
    Change begin(Copy copy, Member[] destination, boolean isNews) {
        return new Change(copy, destination, isNews);
    }

    /** The id under which the session is known here already: of a change of id, the new one. */
    private static String idAfter(SessionMessage message) throws IOException {
        if (message.getEventType() != SessionMessage.EVT_CHANGE_SESSION_ID) {
            return message.getSessionID();
        }
        try (ObjectInputStream in = new ObjectInputStream(new ByteArrayInputStream(message.getSession()))) {
            return in.readUTF();
        }
    }

    /** @return whether a living member has its last change */
    boolean isCopied(String context, Copy copy) {
        long changed;
        long handedOver;
        Member[] holders;
        List<Member> strangers;
        long strangersSince;
        synchronized (copy) {
            strangers = Arrays.asList(copy.strangers);
            strangersSince = copy.strangersSince;
            changed = copy.changed;
            handedOver = copy.handedOver;
            holders = copy.pending > 0 ? NOBODY : copy.holders;
        }
        for (Map.Entry<Member,Peer> entry : living.entrySet()) {
            Long whole = entry.getValue().whole.get(context);
            if (whole != null && whole >= changed && (!strangers.contains(entry.getKey()) || whole >= strangersSince)) {
                return true;
            }
        }
        for (Member member : holders) {
            Peer peer = living.get(member);
            if (peer == null || changed <= peer.since) {
                continue;
            }
            boolean isThere = handedOver == 0 || handedOver <= settled.get() && !peer.mayMiss(handedOver);
            Long whole = peer.whole.get(context);
            if (isThere && (!strangers.contains(member) || whole != null && whole >= strangersSince)) {
                return true;
            }
        }
        return false;
    }
}
