package org.ringtribe.test;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.Serializable;
import java.lang.management.BufferPoolMXBean;
import java.lang.management.ManagementFactory;
import java.lang.management.MemoryPoolMXBean;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;

import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.tribes.ByteMessage;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelListener;
import org.apache.catalina.tribes.ErrorHandler;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipListener;
import org.apache.catalina.tribes.UniqueId;
import org.apache.catalina.tribes.group.GroupChannel;
import org.apache.catalina.tribes.group.RpcCallback;
import org.apache.catalina.tribes.group.RpcChannel;
import org.apache.catalina.tribes.transport.ReplicationTransmitter;

/**
 * A member under mixed load, driven line by line: session messages and bytes, waited for or not, and
 * questions with answers. Says what its JVM holds.
 */
public final class SoakPeer implements ChannelListener, MembershipListener, RpcCallback {

    private static final int APPLIED = Channel.SEND_OPTIONS_USE_ACK | Channel.SEND_OPTIONS_SYNCHRONIZED_ACK;
    private static final long WITHIN_SECONDS = 40;
    /** Sessions of each sending thread; key 0 is a message that is bytes and has no key. */
    private static final int SESSIONS = 12;
    private static final String CONTEXT = "localhost#/app";

    private final GroupChannel channel;
    private final RpcChannel rpc;
    private final Object lock = new Object();
    private final Map<String,Long> counts = new TreeMap<>();
    private SoakLedger ledger;
    private boolean running;
    private int busy;
    private long pending;

    private SoakPeer(GroupChannel channel) {
        this.channel = channel;
        this.rpc = new RpcChannel("rpc".getBytes(StandardCharsets.ISO_8859_1), channel, this);
        channel.addChannelListener(this);
        channel.addMembershipListener(this);
    }

    public static void main(String[] words) throws Exception {
        Map<String,String> arguments = Peers.arguments(words);
        SoakPeer peer = new SoakPeer(Peers.channel(arguments));
        peer.channel.start(Channel.DEFAULT);
        Member local = peer.channel.getLocalMember(false);
        peer.begin(new SoakLedger(SoakLedger.life(local.getUniqueId())));
        double rate = Double.parseDouble(arguments.getOrDefault("rate", "20"));
        for (int n = 0; n < 2; n++) {
            int first = 1 + n * SESSIONS;
            boolean waits = n == 0;
            Thread thread = new Thread(() -> peer.load(first, waits, (long) (2e9 / rate)), "load-" + n);
            thread.setDaemon(true);
            thread.start();
        }
        say("started port=" + local.getPort());
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] command = line.trim().split(" +");
            try {
                say(peer.carryOut(command[0], Peers.arguments(command)));
            } catch (Exception e) {
                say("error " + e);
            }
            if (command[0].equals("leave")) {
                break;
            }
        }
        System.exit(0);
    }

    private static void say(String line) {
        System.out.println("> " + line.replace('\n', ' '));
        System.out.flush();
    }

    private void begin(SoakLedger own) {
        synchronized (lock) {
            ledger = own;
            lock.notifyAll();
        }
    }

    /** Messages may come before this member knows who it is. */
    private SoakLedger ledger() {
        synchronized (lock) {
            while (ledger == null) {
                try {
                    lock.wait();
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                    throw new IllegalStateException(e);
                }
            }
            return ledger;
        }
    }

    private String carryOut(String command, Map<String,String> arguments) throws Exception {
        switch (command) {
            case "members":
                await("members", () -> channel.getMembers().length == Integer.parseInt(arguments.get("count")));
                return "done";
            case "resume":
                run(true);
                return "done";
            case "pause":
                run(false);
                await("the end of what was sent", () -> busy == 0 && pending == 0);
                return "done";
            case "stats":
                return figures();
            case "leave":
                run(false);
                channel.stop(Channel.DEFAULT);
                return "left";
            default:
                return "error unknown command " + command;
        }
    }

    private void run(boolean on) {
        synchronized (lock) {
            running = on;
            lock.notifyAll();
        }
    }

    private interface Condition {
        boolean holds();
    }

    private void await(String what, Condition condition) throws InterruptedException {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(WITHIN_SECONDS);
        synchronized (lock) {
            while (!condition.holds()) {
                if (System.nanoTime() > until) {
                    throw new IllegalStateException(what + ": not in time");
                }
                lock.wait(50);
            }
        }
    }

    private void count(String name, long by) {
        synchronized (lock) {
            counts.merge(name, by, Long::sum);
        }
    }

    private void load(int firstSession, boolean waits, long pauseNanos) {
        Random random = new Random();
        long due = System.nanoTime();
        while (true) {
            synchronized (lock) {
                try {
                    for (long left = 1; left > 0;) {
                        left = running ? due - System.nanoTime() : TimeUnit.SECONDS.toNanos(60);
                        if (left > 0) {
                            TimeUnit.NANOSECONDS.timedWait(lock, left);
                        }
                    }
                } catch (InterruptedException e) {
                    return;
                }
                busy++;
            }
            due = Math.max(due, System.nanoTime() - pauseNanos) + pauseNanos;
            try {
                sendOne(firstSession, waits, random);
            } catch (ChannelException | RuntimeException e) {
                count("refused", 1);
            } finally {
                synchronized (lock) {
                    busy--;
                    lock.notifyAll();
                }
            }
        }
    }

    private void sendOne(int firstSession, boolean waits, Random random) throws ChannelException {
        Member[] members = channel.getMembers();
        if (members.length == 0) {
            return;
        }
        if (random.nextInt(3) == 0) {
            members = new Member[] { members[random.nextInt(members.length)] };
        }
        if (waits && random.nextInt(20) == 0) {
            count("asked", members.length);
            int answers = rpc.send(members, "question", RpcChannel.ALL_REPLY, Channel.SEND_OPTIONS_DEFAULT, 5000).length;
            count("answered", answers);
            return;
        }
        int key = random.nextInt(4) == 0 ? 0 : firstSession + random.nextInt(SESSIONS);
        long[] receivers = new long[members.length];
        long[] numbers = new long[members.length];
        for (int n = 0; n < members.length; n++) {
            receivers[n] = SoakLedger.life(members[n].getUniqueId());
        }
        byte[] bytes = ledger().write(key, size(random), receivers, numbers);
        Serializable message = key == 0 ? new ByteMessage(bytes)
                : new SessionMessageImpl(CONTEXT, SessionMessage.EVT_SESSION_DELTA, bytes, "session-" + key,
                        "session-" + key + "-" + numbers[0]);
        if (waits) {
            int options = random.nextInt(3) == 0 ? Channel.SEND_OPTIONS_USE_ACK : APPLIED;
            count("sent_waiting", members.length);
            ChannelException failure = null;
            try {
                channel.send(members, message, options);
            } catch (ChannelException e) {
                failure = e;
            }
            // What is acknowledged on receipt comes in order only if it has a key.
            ended(key, members, receivers, numbers, failure, options == APPLIED || key != 0);
            return;
        }
        boolean watched = random.nextInt(3) > 0;
        int options = Channel.SEND_OPTIONS_ASYNCHRONOUS | (watched ? APPLIED : 0);
        count(watched ? "sent_queued" : "sent_unwatched", members.length);
        if (!watched) {
            channel.send(members, message, options);
            return;
        }
        Member[] to = members;
        pending(1);
        try {
            channel.send(members, message, options, new ErrorHandler() {
                @Override
                public void handleError(ChannelException failure, UniqueId id) {
                    ended(key, to, receivers, numbers, failure, true);
                    pending(-1);
                }

                @Override
                public void handleCompletion(UniqueId id) {
                    ended(key, to, receivers, numbers, null, true);
                    pending(-1);
                }
            });
        } catch (ChannelException | RuntimeException e) {
            pending(-1);
            throw e;
        }
    }

    private void pending(int by) {
        synchronized (lock) {
            pending += by;
            lock.notifyAll();
        }
    }

    private void ended(int key, Member[] members, long[] receivers, long[] numbers, ChannelException failure,
            boolean proof) {
        for (int n = 0; n < members.length; n++) {
            boolean failed = failure != null && failure.getFaultyMembers().length == 0;
            if (failure != null) {
                for (ChannelException.FaultyMember faulty : failure.getFaultyMembers()) {
                    failed |= faulty.getMember().equals(members[n]);
                }
            }
            count(failed ? "failed" : "acknowledged", 1);
            if (!failed && proof) {
                ledger().acknowledged(key, receivers[n], numbers[n]);
            }
        }
    }

    /** Most are small; some go in pieces. */
    private static int size(Random random) {
        int choice = random.nextInt(100);
        int most = choice < 60 ? 1 << 10 : choice < 85 ? 8 << 10 : choice < 97 ? 64 << 10 : 300 << 10;
        return random.nextInt(most);
    }

    private String figures() {
        boolean quiet;
        StringBuilder line = new StringBuilder();
        synchronized (lock) {
            quiet = !running;
            counts.forEach((name, count) -> line.append(" app_").append(name).append('=').append(count));
            line.append(" app_pending=").append(pending);
        }
        line.append(' ').append(ledger().figures());
        Runtime runtime = Runtime.getRuntime();
        if (quiet) {
            // Twice: what is freed by a reference handler goes with the second.
            System.gc();
            System.runFinalization();
            System.gc();
            line.append(" heap_kib=").append((runtime.totalMemory() - runtime.freeMemory()) >> 10);
        }
        line.append(" heap_now_kib=").append((runtime.totalMemory() - runtime.freeMemory()) >> 10);
        line.append(" classes=").append(ManagementFactory.getClassLoadingMXBean().getLoadedClassCount());
        line.append(" java_threads=").append(ManagementFactory.getThreadMXBean().getThreadCount());
        long code = 0;
        for (MemoryPoolMXBean pool : ManagementFactory.getMemoryPoolMXBeans()) {
            long kib = pool.getUsage().getUsed() >> 10;
            if (pool.getName().equals("Metaspace")) {
                line.append(" metaspace_kib=").append(kib);
            } else if (pool.getName().startsWith("Code")) {
                code += kib;
            }
        }
        line.append(" code_kib=").append(code);
        for (BufferPoolMXBean pool : ManagementFactory.getPlatformMXBeans(BufferPoolMXBean.class)) {
            if (pool.getName().equals("direct")) {
                line.append(" direct_kib=").append(pool.getMemoryUsed() >> 10);
                line.append(" direct_buffers=").append(pool.getCount());
            }
        }
        try {
            Object transport = ((ReplicationTransmitter) channel.getChannelSender()).getTransport();
            String all = (String) transport.getClass().getMethod("getEngineStatistics").invoke(transport);
            all.lines().filter(one -> !one.contains(" ")).forEach(one -> line.append(' ').append(one));
        } catch (ReflectiveOperationException e) {
            line.append(" no_engine=1");
        }
        return line.toString().trim();
    }

    @Override
    public boolean accept(Serializable message, Member sender) {
        return message instanceof ByteMessage || message instanceof SessionMessage;
    }

    @Override
    public void messageReceived(Serializable message, Member sender) {
        boolean session = message instanceof SessionMessage;
        ledger().read(session ? ((SessionMessage) message).getSession() : ((ByteMessage) message).getMessage(),
                session);
    }

    @Override
    public Serializable replyRequest(Serializable message, Member sender) {
        return "answer";
    }

    @Override
    public void leftOver(Serializable message, Member sender) {
        count("late_answers", 1);
    }

    @Override
    public void memberAdded(Member member) {
        count("members_added", 1);
    }

    @Override
    public void memberDisappeared(Member member) {
        count("members_gone", 1);
        ledger().gone(SoakLedger.life(member.getUniqueId()));
    }
}
