package org.ringtribe.tomcat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

import org.apache.catalina.Session;
import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipListener;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * Brings the sessions of two nodes together that did not get everything of each other: after a cut, a pause,
 * or a refused message. Of each session the copy that holds all changes of the other one stays; where each
 * side changed it, the copy that was changed last. Of two nodes the one with the smaller id begins. Thread-safe.
 */
final class Reconciler implements ChannelEngine.GapListener, MembershipListener {

    private static final Log log = LogFactory.getLog(Reconciler.class);

    /** Digests in a message: some 100 bytes each. */
    static final int BLOCK_DIGESTS = 2000;
    /** Changes may come in another order than they were made, from several nodes. */
    private static final long MISSING_MILLIS = 100;
    /** Sessions of which changes are missing; where there are more, all are compared. */
    private static final int MOST_MISSING = 1000;
    /** The other one begins at once; if it does not, it was not told. */
    private static final long ASK_MILLIS = 1000;
    private static final long MEETING_MILLIS = 5000;
    private static final int MOST_TRIES = 3;
    private static final int MOST_NAMED = 8;

    private final RingtribeDeltaManager manager;
    private final AtomicLong reconciliations = new AtomicLong();
    private final AtomicLong conflicts = new AtomicLong();
    private long silenceMillis = 15_000;

    private ScheduledExecutorService executor;
    private boolean stopped = true;
    private boolean running;
    private final Map<Member,Work> pending = new LinkedHashMap<>();
    private final Map<Long,Exchange> exchanges = new HashMap<>();
    /** Who compares all sessions with those here, and what was changed here before that began. */
    private final Map<Member,Long> compared = new HashMap<>();
    /** Who was cut off and begins itself. */
    private final Map<Member,Awaited> awaited = new HashMap<>();
    /** Who has shown that it can. */
    private final Set<Member> able = new HashSet<>();
    /** Who did not answer and was named. */
    private final Set<Member> silent = new HashSet<>();

    /** What is to be compared with a member. */
    private static final class Work {
        boolean isWhole;
        int tries;
        final Set<String> ids = new TreeSet<>();
        final List<Runnable> repaired = new ArrayList<>();
    }

    /** A member that is to begin. */
    private static final class Awaited {
        final List<Runnable> repaired = new ArrayList<>();
        boolean begun;
    }

    /** With a member, begun here. */
    private static final class Exchange {
        final Member with;
        ReconcileMessage answer;
        boolean isOver;
        long heardAt = System.nanoTime();
        int sent;
        int ended;
        int conflicts;

        Exchange(Member with) {
            this.with = with;
        }
    }

    Reconciler(RingtribeDeltaManager manager) {
        this.manager = manager;
    }

    synchronized void start(ScheduledExecutorService on) {
        executor = on;
        stopped = false;
        running = false;
    }

    synchronized void stop() {
        stopped = true;
        pending.values().forEach(work -> work.repaired.forEach(Runnable::run));
        pending.clear();
        awaited.values().forEach(one -> one.repaired.forEach(Runnable::run));
        awaited.clear();
        able.clear();
        silent.clear();
        compared.clear();
        notifyAll();
    }

    long reconciliations() {
        return reconciliations.get();
    }

    long conflicts() {
        return conflicts.get();
    }

    void resetStatistics() {
        reconciliations.set(0);
        conflicts.set(0);
    }

    /** @param millis after which one that sends nothing is taken for one that cannot */
    synchronized void setSilenceMillis(long millis) {
        silenceMillis = millis;
    }

    @Override
    public void gap(Member member, Runnable repaired) {
        synchronized (this) {
            if (!stopped && !silent.contains(member)) {
                if (begins(member)) {
                    whole(member, repaired);
                } else {
                    await(member, repaired);
                }
                return;
            }
        }
        repaired.run();
    }

    private boolean begins(Member member) {
        Member local = manager.getCluster().getLocalMember();
        return Long.compareUnsigned(SessionVersion.writer(local), SessionVersion.writer(member)) < 0;
    }

    /** Compares all sessions with those of a member. */
    synchronized void whole(Member member, Runnable repaired) {
        Work work = pending.computeIfAbsent(member, one -> new Work());
        work.isWhole = true;
        if (repaired != null) {
            work.repaired.add(repaired);
        }
        schedule(this::run, 0);
    }

    private void await(Member member, Runnable repaired) {
        Awaited one = awaited.get(member);
        if (one == null) {
            one = new Awaited();
            awaited.put(member, one);
            Awaited asked = one;
            schedule(() -> askIfNotBegun(member, asked), ASK_MILLIS);
        }
        one.repaired.add(repaired);
    }

    private void askIfNotBegun(Member member, Awaited one) {
        synchronized (this) {
            if (awaited.get(member) != one) {
                return;
            }
            schedule(() -> giveUp(member, one), silenceMillis);
            if (one.begun) {
                return;
            }
        }
        try {
            send(member, new ReconcileMessage(ReconcileMessage.Kind.ASK, 0), SendMode.APPLIED);
        } catch (ChannelException | IOException e) {
            log.debug("A member is not asked to reconcile", e);
        }
    }

    private void giveUp(Member member, Awaited one) {
        synchronized (this) {
            if (awaited.get(member) != one) {
                return;
            }
            if (one.begun) {
                // It goes on, or is cut off again, and then there is another gap.
                one.begun = false;
                schedule(() -> giveUp(member, one), silenceMillis);
                return;
            }
            awaited.remove(member);
            nameSilent(member);
        }
        one.repaired.forEach(Runnable::run);
    }

    private void nameSilent(Member member) {
        if (!able.contains(member) && silent.add(member)) {
            log.warn(manager.getName() + ": " + member.getName() + " missed changes of sessions, or this node missed some "
                    + "of it, and it does not answer when they are to be reconciled: it has no "
                    + RingtribeDeltaManager.class.getSimpleName() + " for this application. It is left alone; give it one");
        }
    }

    /** A change of a session came and an earlier one did not. */
    synchronized void missing(Member from, String id) {
        Work work = pending.computeIfAbsent(from, one -> new Work());
        if (work.ids.size() < MOST_MISSING) {
            work.ids.add(id);
        } else {
            work.isWhole = true;
        }
        able.add(from);
        schedule(this::run, MISSING_MILLIS);
    }

    private void schedule(Runnable task, long millis) {
        if (stopped) {
            return;
        }
        try {
            executor.schedule(() -> manager.withLoader(task), millis, TimeUnit.MILLISECONDS);
        } catch (RejectedExecutionException e) {
            log.debug("The manager stops", e);
        }
    }

    private void run() {
        while (true) {
            Member member;
            Work work;
            synchronized (this) {
                if (running || stopped || pending.isEmpty()) {
                    return;
                }
                member = pending.keySet().iterator().next();
                work = pending.remove(member);
                running = true;
            }
            boolean isDone = false;
            try {
                isDone = reconcile(member, work);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                return;
            } catch (ChannelException | IOException e) {
                log.warn(manager.getName() + " is not reconciled with " + member.getName() + ": " + Replication.why(e));
            } finally {
                synchronized (this) {
                    running = false;
                }
            }
            if (isDone || !again(member, work)) {
                work.repaired.forEach(Runnable::run);
            }
        }
    }

    /** @return whether it is tried again */
    private synchronized boolean again(Member member, Work work) {
        if (!isThere(member) || stopped) {
            // When it comes back there is another gap.
            return false;
        }
        if (!able.contains(member)) {
            nameSilent(member);
            return false;
        }
        if (++work.tries >= MOST_TRIES) {
            log.error(manager.getName() + " could not be reconciled with " + member.getName() + " in " + MOST_TRIES
                    + " tries: sessions may differ there until they are changed");
            return false;
        }
        Work newer = pending.get(member);
        if (newer != null) {
            work.isWhole |= newer.isWhole;
            work.ids.addAll(newer.ids);
            work.repaired.addAll(newer.repaired);
        }
        pending.put(member, work);
        schedule(this::run, ASK_MILLIS);
        return true;
    }

    /** @return false if the other one did not answer */
    private boolean reconcile(Member member, Work work) throws ChannelException, IOException, InterruptedException {
        long round = ThreadLocalRandom.current().nextLong();
        long begin = System.nanoTime();
        long changed = manager.changesNumber();
        Exchange exchange = new Exchange(member);
        synchronized (this) {
            exchanges.put(round, exchange);
        }
        try {
            NavigableMap<String,ExpiredSessions.End> ended = manager.copies().expired().byId();
            TreeSet<String> all = new TreeSet<>(work.ids);
            if (work.isWhole) {
                for (Session session : manager.live()) {
                    all.add(session.getIdInternal());
                }
                all.addAll(ended.keySet());
            }
            List<String> ids = new ArrayList<>(all);
            int block = 0;
            String from = "";
            do {
                ReconcileMessage digests = new ReconcileMessage(ReconcileMessage.Kind.DIGEST, round);
                int end = Math.min(ids.size(), (block + 1) * BLOCK_DIGESTS);
                digests.isWhole = work.isWhole;
                digests.block = block;
                digests.from = from;
                digests.to = end == ids.size() ? "" : ids.get(end - 1);
                for (String id : ids.subList(block * BLOCK_DIGESTS, end)) {
                    digests.entries.add(known(id));
                }
                if (!exchange(exchange, digests)) {
                    return false;
                }
                from = digests.to;
                block++;
            } while (block * BLOCK_DIGESTS < ids.size());
            ReconcileMessage over = new ReconcileMessage(ReconcileMessage.Kind.END, round);
            over.isWhole = work.isWhole;
            send(member, over, SendMode.APPLIED);
        } finally {
            synchronized (this) {
                exchanges.remove(round);
            }
        }
        if (work.isWhole) {
            reconciliations.incrementAndGet();
            manager.hasAll(member, changed);
            log.info(manager.getName() + " is reconciled with " + member.getName() + " within "
                    + TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begin) + " ms: " + exchange.sent + " sessions sent, "
                    + exchange.ended + " ended, " + exchange.conflicts + " changed on both sides");
        }
        return true;
    }

    private ReconcileMessage.Entry known(String id) {
        RingtribeDeltaSession session = manager.find(id);
        if (session != null && session.isLive()) {
            return ReconcileMessage.Entry.held(session, false);
        }
        ExpiredSessions.End end = manager.copies().expired().of(id);
        return end == null ? ReconcileMessage.Entry.unknown(id) : ReconcileMessage.Entry.ended(id, end);
    }

    /** Sends digests, and does what the answer asks for. */
    private boolean exchange(Exchange exchange, ReconcileMessage digests)
            throws ChannelException, IOException, InterruptedException {
        // What is done with it may take longer than an acknowledgement may.
        send(exchange.with, digests, Channel.SEND_OPTIONS_USE_ACK);
        ReconcileMessage answer;
        synchronized (this) {
            exchange.heardAt = System.nanoTime();
            while (exchange.answer == null || exchange.answer.block != digests.block) {
                long left = silenceMillis - TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - exchange.heardAt);
                if (left <= 0 || stopped || exchange.isOver) {
                    return false;
                }
                wait(left);
            }
            answer = exchange.answer;
        }
        List<Session> wanted = new ArrayList<>();
        List<String> both = new ArrayList<>();
        for (ReconcileMessage.Entry entry : answer.entries) {
            RingtribeDeltaSession session = manager.find(entry.id);
            boolean isLive = session != null && session.isLive();
            switch (entry.knowledge) {
                case ENDED:
                    exchange.ended += isLive && manager.copies().endedElsewhere(session, entry.end()) ? 1 : 0;
                    break;
                case USED:
                    if (isLive) {
                        session.usedElsewhere(entry.accessedAt);
                    }
                    break;
                case OVERRULED:
                    both.add(RingtribeDeltaSession.hash(entry.id) + " (that of the other node stays)");
                    break;
                default:
                    if (isLive && entry.flag) {
                        both.add(session.hash() + " (that of this node stays)");
                        session.absorb(entry.changes);
                    }
                    if (isLive) {
                        wanted.add(session);
                    }
            }
        }
        nameConflicts(exchange.with, both);
        exchange.conflicts += both.size();
        exchange.sent += wanted.size();
        sendSessions(exchange.with, digests.round, wanted);
        return true;
    }

    private void nameConflicts(Member with, List<String> sessions) {
        if (sessions.isEmpty()) {
            return;
        }
        conflicts.addAndGet(sessions.size());
        int named = Math.min(MOST_NAMED, sessions.size());
        log.warn(manager.getName() + ": " + sessions.size() + " sessions were changed here and at " + with.getName()
                + " while they did not hear each other, the copy that was changed last stays: "
                + String.join(", ", sessions.subList(0, named))
                + (named < sessions.size() ? " and " + (sessions.size() - named) + " more" : ""));
    }

    private void sendSessions(Member to, long round, List<Session> sessions) throws ChannelException, IOException {
        manager.blocks().write(sessions.toArray(new Session[0]), to, (data, count) -> {
            ReconcileMessage state = new ReconcileMessage(ReconcileMessage.Kind.STATE, round);
            state.sessions = data;
            send(to, state, SendMode.APPLIED);
            return true;
        });
    }

    private void send(Member to, ReconcileMessage message, int options) throws ChannelException, IOException {
        SessionMessage carrier = new SessionMessageImpl(manager.getName(), ReconcileMessage.EVENT, message.encode(),
                "RECONCILE", "RECONCILE-" + manager.getName());
        carrier.setTimestamp(System.currentTimeMillis());
        manager.sendTo(to, carrier, options);
    }

    /** A message of another reconciler. */
    void received(SessionMessage carrier, Member from) {
        try {
            ReconcileMessage message = ReconcileMessage.decode(carrier.getSession());
            synchronized (this) {
                able.add(from);
                silent.remove(from);
                Exchange exchange = exchanges.get(message.round);
                if (exchange != null) {
                    exchange.heardAt = System.nanoTime();
                }
            }
            switch (message.kind) {
                case ASK:
                    whole(from, null);
                    break;
                case DIGEST:
                    answer(message, from);
                    break;
                case STATE:
                    manager.blocks().read(message.sessions);
                    break;
                case ANSWER:
                    answered(message);
                    break;
                default:
                    ended(message, from);
            }
        } catch (IOException | ClassNotFoundException | ChannelException e) {
            log.warn(manager.getName() + ": a message of " + from.getName() + " that reconciles sessions is without effect: " + e);
        }
    }

    private synchronized void answered(ReconcileMessage message) {
        Exchange exchange = exchanges.get(message.round);
        if (exchange != null) {
            exchange.answer = message;
            notifyAll();
        }
    }

    private void ended(ReconcileMessage message, Member from) {
        if (!message.isWhole) {
            return;
        }
        reconciliations.incrementAndGet();
        Awaited one;
        Long changed;
        synchronized (this) {
            changed = compared.remove(from);
        }
        if (changed != null) {
            manager.hasAll(from, changed);
        }
        synchronized (this) {
            one = awaited.get(from);
            if (one == null || !one.begun) {
                return;
            }
            awaited.remove(from);
        }
        one.repaired.forEach(Runnable::run);
    }

    /** Compares what another node has of some sessions with what is here. */
    private void answer(ReconcileMessage digests, Member from) throws ChannelException, IOException {
        synchronized (this) {
            if (digests.isWhole && digests.block == 0) {
                compared.put(from, manager.changesNumber());
            }
            Awaited one = awaited.get(from);
            if (one != null && digests.isWhole && digests.block == 0) {
                // One that began before the gap was told does not count.
                one.begun = true;
            }
        }
        if (!awaitMember(from)) {
            // It hears this node, which does not hear it: it will try again.
            return;
        }
        Comparison comparison = new Comparison(manager, digests);
        nameConflicts(from, comparison.kept());
        sendSessions(from, digests.round, comparison.ahead());
        send(from, comparison.answer(), SendMode.APPLIED);
        // Had it not heard so, these would be found again.
        nameConflicts(from, comparison.yielded());
    }

    /** Of two nodes that meet again one is the first to know it. */
    private synchronized boolean awaitMember(Member member) {
        long until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(MEETING_MILLIS);
        try {
            while (!stopped && !isThere(member)) {
                long left = TimeUnit.NANOSECONDS.toMillis(until - System.nanoTime());
                if (left <= 0) {
                    return false;
                }
                wait(left);
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        return !stopped;
    }

    private boolean isThere(Member member) {
        for (Member one : manager.getCluster().getMembers()) {
            if (one.equals(member)) {
                return true;
            }
        }
        return false;
    }

    @Override
    public synchronized void memberAdded(Member member) {
        // What is missing of each other is told by a gap; but it may have begun.
        notifyAll();
    }

    @Override
    public void memberDisappeared(Member member) {
        List<Runnable> repaired = new ArrayList<>();
        synchronized (this) {
            Work work = pending.remove(member);
            Awaited one = awaited.remove(member);
            compared.remove(member);
            silent.remove(member);
            able.remove(member);
            for (Exchange exchange : exchanges.values()) {
                exchange.isOver |= exchange.with.equals(member);
            }
            if (work != null) {
                repaired.addAll(work.repaired);
            }
            if (one != null) {
                repaired.addAll(one.repaired);
            }
            notifyAll();
        }
        repaired.forEach(Runnable::run);
    }
}
