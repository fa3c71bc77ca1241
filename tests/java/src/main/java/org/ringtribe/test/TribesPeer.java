package org.ringtribe.test;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.Serializable;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

import org.apache.catalina.tribes.ByteMessage;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelListener;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipListener;
import org.apache.catalina.tribes.RemoteProcessException;
import org.apache.catalina.tribes.group.GroupChannel;
import org.apache.catalina.tribes.group.Response;
import org.apache.catalina.tribes.group.RpcCallback;
import org.apache.catalina.tribes.group.RpcChannel;
import org.apache.catalina.tribes.transport.ReplicationTransmitter;

/**
 * A member of a Tribes cluster that a test drives line by line: a stock GroupChannel, or the same
 * program on Ringtribe. Each command answers one line.
 */
public final class TribesPeer implements ChannelListener, MembershipListener, RpcCallback {

    private static final long WITHIN_SECONDS = 40;
    /** Number, behaviour, then a pattern that the number decides. */
    private static final int HEAD_BYTES = 5;
    private static final byte PLAIN = 0;
    private static final byte FAIL = 1;
    private static final byte SLOW = 2;
    private static final byte SLOW_FAIL = 3;

    private final GroupChannel channel;
    private final RpcChannel rpc;
    private final Object lock = new Object();
    private final List<String> events = new ArrayList<>();
    private int received;
    private int damaged;
    private int rpcInside;

    private TribesPeer(GroupChannel channel) {
        this.channel = channel;
        this.rpc = new RpcChannel("rpc".getBytes(StandardCharsets.ISO_8859_1), channel, this);
        channel.addChannelListener(this);
        channel.addMembershipListener(this);
    }

    public static void main(String[] words) throws Exception {
        TribesPeer peer = new TribesPeer(Peers.channel(Peers.arguments(words)));
        peer.channel.start(Channel.DEFAULT);
        say("started port=" + peer.channel.getLocalMember(false).getPort() + " pid=" + ProcessHandle.current().pid());
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] command = line.trim().split(" +");
            try {
                say(peer.carryOut(command[0], Peers.arguments(command)));
            } catch (Exception e) {
                say("error " + e);
            }
            if (command[0].equals("stop")) {
                System.exit(0);
            }
        }
        System.exit(0);
    }

    private static synchronized void say(String line) {
        System.out.println("> " + line.replace('\n', ' '));
        System.out.flush();
    }

    private static int number(Map<String,String> arguments, String name, int otherwise) {
        return Integer.parseInt(arguments.getOrDefault(name, String.valueOf(otherwise)));
    }

    private String carryOut(String command, Map<String,String> arguments) throws Exception {
        switch (command) {
            case "members":
                return members(number(arguments, "count", 1));
            case "send":
                return send(arguments);
            case "received":
                return received(number(arguments, "count", 1));
            case "mixed":
                return mixed(number(arguments, "count", 40));
            case "rpc":
                return rpc(number(arguments, "threads", 64));
            case "gone":
                return event("gone");
            case "added":
                return event("added");
            case "engine":
                return engine(arguments.get("name"));
            case "bench":
                return bench(arguments);
            case "stop":
                channel.stop(Channel.DEFAULT);
                return "stopped";
            default:
                return "error unknown command " + command;
        }
    }

    private String members(int count) throws InterruptedException {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(WITHIN_SECONDS);
        synchronized (lock) {
            while (channel.getMembers().length != count) {
                long left = TimeUnit.NANOSECONDS.toMillis(until - System.nanoTime());
                if (left <= 0) {
                    return "error members=" + channel.getMembers().length;
                }
                lock.wait(Math.min(left, 100));
            }
        }
        return "members=" + count;
    }

    private static byte[] payload(int number, byte behaviour, int size) {
        byte[] bytes = new byte[size];
        if (size >= HEAD_BYTES) {
            ByteBuffer.wrap(bytes).putInt(number).put(behaviour);
        }
        for (int n = HEAD_BYTES; n < size; n++) {
            bytes[n] = (byte) (n * 31 + number);
        }
        return bytes;
    }

    private String send(Map<String,String> arguments) throws Exception {
        int size = number(arguments, "size", 1000);
        int options = number(arguments, "options", 6);
        int count = number(arguments, "count", 1);
        int ok = 0;
        int failed = 0;
        for (int n = 0; n < count; n++) {
            ByteMessage message = new ByteMessage(payload(n, PLAIN, size));
            try {
                channel.send(channel.getMembers(), message, options);
                ok++;
            } catch (ChannelException e) {
                failed++;
            }
        }
        return "sent=" + ok + " failed=" + failed;
    }

    private String received(int count) throws InterruptedException {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(WITHIN_SECONDS);
        synchronized (lock) {
            while (received < count) {
                long left = TimeUnit.NANOSECONDS.toMillis(until - System.nanoTime());
                if (left <= 0) {
                    break;
                }
                lock.wait(left);
            }
            String answer = "received=" + received + " damaged=" + damaged;
            received = 0;
            damaged = 0;
            return answer;
        }
    }

    /** Many at once, each wants its own answer: slow ones, failing ones, slow failing ones, plain ones. */
    private String mixed(int count) throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(8);
        AtomicInteger wrong = new AtomicInteger();
        AtomicInteger failures = new AtomicInteger();
        for (int n = 0; n < count; n++) {
            byte behaviour = (byte) (n % 4);
            int number = n;
            threads.execute(() -> {
                boolean shouldFail = behaviour == FAIL || behaviour == SLOW_FAIL;
                boolean failed = false;
                try {
                    channel.send(channel.getMembers(), new ByteMessage(payload(number, behaviour, 200)), 6);
                } catch (ChannelException e) {
                    failed = e.getFaultyMembers().length > 0
                            && e.getFaultyMembers()[0].getCause() instanceof RemoteProcessException;
                    failures.incrementAndGet();
                }
                if (failed != shouldFail) {
                    wrong.incrementAndGet();
                }
            });
        }
        threads.shutdown();
        boolean ended = threads.awaitTermination(WITHIN_SECONDS, TimeUnit.SECONDS);
        return "ended=" + ended + " failures=" + failures + " wrong=" + wrong;
    }

    /** Every request's listener, on the other side, asks back and waits for the answer. */
    private String rpc(int threads) throws Exception {
        ExecutorService callers = Executors.newFixedThreadPool(threads);
        AtomicInteger answered = new AtomicInteger();
        long start = System.nanoTime();
        for (int n = 0; n < threads; n++) {
            callers.execute(() -> {
                try {
                    Response[] responses = rpc.send(channel.getMembers(), "ask back " + threads, RpcChannel.FIRST_REPLY,
                            Channel.SEND_OPTIONS_DEFAULT, 20000);
                    if (responses.length == 1 && "asked back".equals(responses[0].getMessage())) {
                        answered.incrementAndGet();
                    }
                } catch (ChannelException e) {
                    System.err.println("rpc failed: " + e);
                }
            });
        }
        callers.shutdown();
        callers.awaitTermination(WITHIN_SECONDS, TimeUnit.SECONDS);
        return "answered=" + answered + " millis=" + TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - start);
    }

    @Override
    public Serializable replyRequest(Serializable message, Member sender) {
        String text = String.valueOf(message);
        if (!text.startsWith("ask back ")) {
            return "plain answer";
        }
        int together = Integer.parseInt(text.substring("ask back ".length()));
        try {
            // All listeners are inside before any of them asks: this is what starves a small pool.
            synchronized (lock) {
                rpcInside++;
                lock.notifyAll();
                long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(15);
                while (rpcInside < together && System.nanoTime() < until) {
                    lock.wait(100);
                }
            }
            Response[] responses = rpc.send(new Member[] { sender }, "plain question", RpcChannel.FIRST_REPLY,
                    Channel.SEND_OPTIONS_DEFAULT, 15000);
            return responses.length == 1 ? "asked back" : "nobody answered";
        } catch (ChannelException | InterruptedException e) {
            return "failed " + e;
        }
    }

    @Override
    public void leftOver(Serializable message, Member sender) {
        // A late answer.
    }

    private String event(String kind) throws InterruptedException {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(WITHIN_SECONDS);
        synchronized (lock) {
            while (true) {
                for (String event : events) {
                    if (event.startsWith(kind)) {
                        events.remove(event);
                        return event;
                    }
                }
                long left = TimeUnit.NANOSECONDS.toMillis(until - System.nanoTime());
                if (left <= 0) {
                    return "error no event " + kind;
                }
                lock.wait(left);
            }
        }
    }

    /** A counter of the native engine, by its name. */
    private String engine(String name) throws ReflectiveOperationException {
        Object transport = ((ReplicationTransmitter) channel.getChannelSender()).getTransport();
        String all = (String) transport.getClass().getMethod("getEngineStatistics").invoke(transport);
        return all.lines().filter(line -> line.startsWith(name + "=")).findFirst().orElse("error no " + name);
    }

    private String bench(Map<String,String> arguments) throws Exception {
        int size = number(arguments, "size", 1024);
        int callers = number(arguments, "callers", 1);
        int options = number(arguments, "options", 6);
        int count = number(arguments, "count", 10000);
        Member[] members = channel.getMembers();
        long[][] nanos = new long[callers][count / callers];
        CountDownLatch ready = new CountDownLatch(callers);
        CountDownLatch go = new CountDownLatch(1);
        AtomicInteger failed = new AtomicInteger();
        List<Thread> threads = new ArrayList<>();
        for (int caller = 0; caller < callers; caller++) {
            long[] mine = nanos[caller];
            Thread thread = new Thread(() -> {
                byte[] payload = payload(1, PLAIN, size);
                ready.countDown();
                try {
                    go.await();
                } catch (InterruptedException e) {
                    return;
                }
                for (int n = 0; n < mine.length; n++) {
                    long start = System.nanoTime();
                    try {
                        channel.send(members, new ByteMessage(payload), options);
                    } catch (ChannelException e) {
                        failed.incrementAndGet();
                    }
                    mine[n] = System.nanoTime() - start;
                }
            });
            threads.add(thread);
            thread.start();
        }
        ready.await();
        long start = System.nanoTime();
        go.countDown();
        for (Thread thread : threads) {
            thread.join();
        }
        long took = System.nanoTime() - start;
        long[] all = Arrays.stream(nanos).flatMapToLong(Arrays::stream).sorted().toArray();
        return "rate=" + (long) (all.length * 1e9 / took) + " p50_us=" + all[all.length / 2] / 1000 + " p99_us="
                + all[(int) (all.length * 0.99)] / 1000 + " failed=" + failed + " members=" + members.length;
    }

    @Override
    public boolean accept(Serializable message, Member sender) {
        return message instanceof ByteMessage;
    }

    @Override
    public void messageReceived(Serializable message, Member sender) {
        byte[] bytes = ((ByteMessage) message).getMessage();
        byte behaviour = PLAIN;
        boolean whole = true;
        if (bytes.length >= HEAD_BYTES) {
            int number = ByteBuffer.wrap(bytes).getInt();
            behaviour = bytes[4];
            whole = Arrays.equals(bytes, payload(number, behaviour, bytes.length));
        }
        if (behaviour == SLOW || behaviour == SLOW_FAIL) {
            try {
                // Slow is what is tested here.
                TimeUnit.MILLISECONDS.sleep(60);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }
        synchronized (lock) {
            received++;
            damaged += whole ? 0 : 1;
            lock.notifyAll();
        }
        if (behaviour == FAIL || behaviour == SLOW_FAIL) {
            throw new IllegalStateException("asked to fail");
        }
    }

    @Override
    public void memberAdded(Member member) {
        happened("added port=" + member.getPort());
    }

    @Override
    public void memberDisappeared(Member member) {
        boolean polite = Arrays.equals(member.getCommand(), Member.SHUTDOWN_PAYLOAD);
        happened("gone port=" + member.getPort() + " polite=" + polite);
    }

    private void happened(String event) {
        synchronized (lock) {
            events.add(event);
            lock.notifyAll();
        }
    }
}
