package org.ringtribe.tomcat;

import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

import org.apache.catalina.ha.CatalinaCluster;
import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ErrorHandler;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipListener;
import org.apache.catalina.tribes.UniqueId;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * How a manager that starts gets the sessions of the others: it asks one member, and the next one when that
 * one dies, is silent, or does not have the application. Thread-safe.
 */
final class StateTransfer implements MembershipListener {

    private static final Log log = LogFactory.getLog(StateTransfer.class);

    /** Before the number of all sessions, in the unique id of a block: stock does not read it. */
    private static final String TOTAL = "~of:";
    /** After so long without a word the next member is asked; sooner where stateTransferTimeout is short. */
    private static final long SILENCE_MILLIS = 15_000;
    private static final int ASKED_WITHIN_TIMEOUT = 4;
    private static final int MOST_DOUBLINGS = 3;
    private static final long MILLIS = 1000;

    private final RingtribeDeltaManager manager;

    /** Between the start and the end of a transfer. */
    private boolean active;
    /** A member said that it has sent all. */
    private boolean complete;
    private boolean stopped;
    /** Who is asked now. */
    private Member source;
    private boolean sourceFailed;
    private long heardAt;
    private final Set<Member> asked = new HashSet<>();
    private final Set<Member> withoutContext = new HashSet<>();
    /** How often all were asked. */
    private int rounds;
    /** Sessions that came, from whomever. */
    private final Set<String> arrived = new HashSet<>();
    private int received;
    /** What the one that is shown has; negative if it does not say it. */
    private int expected = -1;
    /** Who asks for our state while it is not here. */
    private final Map<Member,SessionMessage> postponed = new LinkedHashMap<>();
    /** What the attributes show. */
    private Member shown;

    StateTransfer(RingtribeDeltaManager manager) {
        this.manager = manager;
    }

    /** @return what a block's unique id is, so that its receiver learns how many sessions there are in all */
    static String uniqueId(String context, int total) {
        return "SESSION-STATE-" + context + TOTAL + total;
    }

    private static int total(String uniqueId) {
        int at = uniqueId == null ? -1 : uniqueId.lastIndexOf(TOTAL);
        Integer total = at < 0 ? null : Settings.integer(uniqueId.substring(at + TOTAL.length()));
        return total == null || total < 0 ? -1 : total;
    }

    /** From here on the state is expected, so nobody gets an unfinished one from us. */
    synchronized void prepare() {
        manager.copies().expect();
        active = true;
        complete = false;
        stopped = false;
        source = null;
        shown = null;
        asked.clear();
        withoutContext.clear();
        rounds = 0;
        arrived.clear();
        received = 0;
        expected = -1;
    }

    /** Fetches the state within stateTransferTimeout, and on in the background; returns when HTTP may open. */
    void fetchAll(Executor background) {
        String name = manager.getName();
        long begin = System.nanoTime();
        if (manager.getCluster().getMembers().length == 0) {
            log.info(name + ": there is no other member, so there are no sessions to fetch");
            end(begin);
            return;
        }
        prepare();
        manager.setStateTransferred(false);
        int seconds = manager.getStateTransferTimeout();
        try {
            if (seconds != 0 && fetch(seconds * MILLIS)) {
                end(begin);
                return;
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        if (seconds != 0) {
            manager.countLate();
            log.error("The sessions of " + name + " are not all here: " + described() + " within "
                    + "stateTransferTimeout=\"" + seconds + "\" seconds; requests are served from now on and may miss "
                    + "theirs, the rest is fetched in the background. Raise stateTransferTimeout of the Manager");
        }
        background.execute(() -> {
            try {
                fetch(-1);
                end(begin);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        });
    }

    /**
     * Fetches the state.
     *
     * @param millis how long, negative for ever
     * @return whether it is over: all is here, or nobody has it
     */
    boolean fetch(long millis) throws InterruptedException {
        long begin = System.nanoTime();
        long until = millis < 0 ? Long.MAX_VALUE : begin + TimeUnit.MILLISECONDS.toNanos(millis);
        while (true) {
            Member next;
            synchronized (this) {
                if (!await(until)) {
                    return false;
                }
                if (complete || stopped) {
                    return true;
                }
                next = next();
                if (next == null && !hasSource()) {
                    return true;
                }
                if (next == null) {
                    // All were asked: again, but not at once, and with more patience.
                    asked.clear();
                    rounds++;
                    wait(Math.max(1, Math.min(silenceMillis() / ASKED_WITHIN_TIMEOUT, left(until))));
                    continue;
                }
                source = next;
                shown = received == 0 ? next : shown;
                sourceFailed = false;
                asked.add(next);
                heardAt = System.nanoTime();
            }
            ask(next);
        }
    }

    /** Waits as long as the present source may still send; false at the end of the time. */
    private boolean await(long until) throws InterruptedException {
        while (source != null && !complete && !stopped && !sourceFailed) {
            long silence = silenceMillis() - TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - heardAt);
            if (silence <= 0) {
                log.warn(manager.getName() + ": " + source.getName() + " has sent nothing of its sessions for "
                        + silenceMillis() + " ms; the next member is asked");
                sourceFailed = true;
                break;
            }
            long left = left(until);
            if (left <= 0) {
                return false;
            }
            wait(Math.min(left, silence));
        }
        return complete || stopped || left(until) > 0;
    }

    private static long left(long until) {
        return until == Long.MAX_VALUE ? Long.MAX_VALUE : TimeUnit.NANOSECONDS.toMillis(until - System.nanoTime() + 999_999);
    }

    private long silenceMillis() {
        long timeout = manager.getStateTransferTimeout() * MILLIS;
        long first = timeout <= 0 ? SILENCE_MILLIS : Math.min(SILENCE_MILLIS, timeout / ASKED_WITHIN_TIMEOUT);
        return first << Math.min(rounds, MOST_DOUBLINGS);
    }

    /** @return a member that was not asked, the oldest first */
    private Member next() {
        for (Member member : manager.getCluster().getMembers()) {
            if (!asked.contains(member) && !withoutContext.contains(member)) {
                return member;
            }
        }
        return null;
    }

    /** @return whether there is a member that may have the sessions */
    private boolean hasSource() {
        for (Member member : manager.getCluster().getMembers()) {
            if (!withoutContext.contains(member)) {
                return true;
            }
        }
        return false;
    }

    private void ask(Member member) {
        SessionMessage message = new SessionMessageImpl(manager.getName(), SessionMessage.EVT_GET_ALL_SESSIONS, null,
                "GET-ALL", "GET-ALL-" + manager.getName());
        message.setTimestamp(System.currentTimeMillis());
        manager.countAsking();
        if (log.isInfoEnabled()) {
            log.info(manager.getName() + ": the sessions of " + member.getName() + " are asked for");
        }
        CatalinaCluster cluster = manager.getCluster();
        message.setAddress(cluster.getLocalMember());
        try {
            cluster.getChannel().send(new Member[] { member }, message, Channel.SEND_OPTIONS_ASYNCHRONOUS,
                    new ErrorHandler() {
                        @Override
                        public void handleError(ChannelException e, UniqueId id) {
                            failed(member, e);
                        }

                        @Override
                        public void handleCompletion(UniqueId id) {
                            // The answer is what counts.
                        }
                    });
        } catch (ChannelException e) {
            failed(member, e);
        }
        SessionMessage both;
        synchronized (this) {
            both = postponed.remove(member);
        }
        if (both != null) {
            // Each would wait for the other.
            manager.answer(both);
        }
    }

    private synchronized void failed(Member member, Exception e) {
        if (member.equals(source) && !complete) {
            log.warn(manager.getName() + ": the sessions of " + member.getName() + " cannot be asked for: "
                    + Replication.why(e));
            sourceFailed = true;
            notifyAll();
        }
    }

    /** A block came, and was taken. */
    synchronized void arrived(Member from, String uniqueId, StateBlocks.Read read) {
        if (!active) {
            return;
        }
        arrived.addAll(read.ids);
        received = arrived.size();
        expected = total(uniqueId);
        shown = from;
        heardAt = System.nanoTime();
        notifyAll();
    }

    /** A member has sent all it has; its blocks came before, since they have the same key. */
    synchronized void completed(Member from) {
        if (!active || !asked.contains(from)) {
            return;
        }
        if (expected < 0 || !from.equals(shown)) {
            // It did not say it, or has none.
            expected = received;
        }
        shown = from;
        complete = true;
        notifyAll();
    }

    /** A member does not have the application. */
    synchronized void noContext(Member from) {
        withoutContext.add(from);
        if (from.equals(source)) {
            sourceFailed = true;
            notifyAll();
        }
    }

    /** @return whether an answer has to wait until the state is here */
    synchronized boolean postpones(SessionMessage request) {
        if (!active || request.getAddress().equals(source) && !complete) {
            return false;
        }
        postponed.put(request.getAddress(), request);
        return true;
    }

    /** The transfer is over. */
    private void end(long begin) {
        if (!manager.copies().expectNoMore()) {
            for (Member member : manager.getCluster().getMembers()) {
                manager.reconciler().whole(member, null);
            }
        }
        Map<Member,SessionMessage> waiting;
        synchronized (this) {
            if (complete) {
                manager.setStateTransferred(true);
                String text = "Sessions of " + manager.getName() + ": " + described() + " within "
                        + TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begin) + " ms";
                if (received < expected) {
                    log.error(text + "; the others could not be read or written");
                } else {
                    log.info(text);
                }
            }
            active = false;
            source = null;
            arrived.clear();
            waiting = new LinkedHashMap<>(postponed);
            postponed.clear();
        }
        for (SessionMessage request : waiting.values()) {
            manager.answer(request);
        }
    }

    /** The manager stops. */
    synchronized void stop() {
        stopped = true;
        active = false;
        postponed.clear();
        notifyAll();
    }

    /** @return who sends, or sent, the state; empty if nobody does */
    synchronized String source() {
        return shown == null ? "" : shown.getName();
    }

    /** @return how many sessions it has; negative if it does not say so, or is nobody */
    synchronized int expected() {
        return expected;
    }

    /** @return how many sessions are here, some of them perhaps from others */
    synchronized int received() {
        return received;
    }

    /** @return how many of how many arrived, and from whom */
    synchronized String described() {
        if (shown == null) {
            return "no session arrived, nobody was there to ask";
        }
        return received + " of " + (expected < 0 ? "an unknown number of" : String.valueOf(expected))
                + " sessions arrived from " + shown.getName();
    }

    @Override
    public synchronized void memberAdded(Member member) {
        notifyAll();
    }

    @Override
    public synchronized void memberDisappeared(Member member) {
        withoutContext.remove(member);
        asked.remove(member);
        if (member.equals(source) && !complete) {
            log.warn(manager.getName() + ": " + member.getName() + " is gone, " + described() + "; the next member is asked");
            sourceFailed = true;
        }
        notifyAll();
    }
}
