package org.ringtribe.test;

import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

import org.apache.catalina.ha.ClusterListener;
import org.apache.catalina.ha.ClusterMessage;
import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.ha.tcp.SimpleTcpCluster;
import org.apache.catalina.startup.Tomcat;
import org.apache.catalina.tribes.group.GroupChannel;

/**
 * Counts inversions: threads update the same sessions through SimpleTcpCluster, asynchronously, and a
 * listener on the other node compares the numbers. The number is given and the message sent under
 * one lock per session, so the order of entry is the order of the numbers.
 */
public final class ClusterPeer extends ClusterListener {

    private static final int SESSIONS = 64;
    private static final int ASYNCHRONOUS = 8;
    private static final String CONTEXT = "localhost#/app";

    private final SimpleTcpCluster cluster = new SimpleTcpCluster();
    private final Object lock = new Object();
    private final int[] last = new int[SESSIONS];
    private long received;
    private long inversions;

    public static void main(String[] words) throws Exception {
        new ClusterPeer().run(Peers.arguments(words));
    }

    private void run(Map<String,String> arguments) throws Exception {
        GroupChannel channel = Peers.channel(arguments);
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(new File(arguments.get("base")).getPath());
        cluster.setChannel(channel);
        cluster.setChannelSendOptions(ASYNCHRONOUS);
        cluster.addClusterListener(this);
        tomcat.getEngine().setCluster(cluster);
        tomcat.start();
        say("started pid=" + ProcessHandle.current().pid());
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] command = line.trim().split(" +");
            Map<String,String> given = Peers.arguments(command);
            switch (command[0]) {
                case "members":
                    say(members());
                    break;
                case "update":
                    say(update(Integer.parseInt(given.get("count")), Integer.parseInt(given.get("threads"))));
                    break;
                case "received":
                    say(received(Long.parseLong(given.get("count"))));
                    break;
                default:
                    System.exit(0);
            }
        }
        System.exit(0);
    }

    private static void say(String line) {
        System.out.println("> " + line);
        System.out.flush();
    }

    private String members() throws InterruptedException {
        for (int n = 0; n < 400 && !cluster.hasMembers(); n++) {
            synchronized (lock) {
                lock.wait(50);
            }
        }
        return "members=" + cluster.getMembers().length;
    }

    private String update(int count, int threadCount) throws InterruptedException {
        Object[] locks = new Object[SESSIONS];
        int[] numbers = new int[SESSIONS];
        for (int n = 0; n < SESSIONS; n++) {
            locks[n] = new Object();
        }
        List<Thread> threads = new ArrayList<>();
        long start = System.nanoTime();
        for (int t = 0; t < threadCount; t++) {
            int first = t;
            Thread thread = new Thread(() -> {
                for (int n = 0; n < count / threadCount; n++) {
                    int session = (first * 17 + n) % SESSIONS;
                    synchronized (locks[session]) {
                        byte[] delta = ByteBuffer.allocate(200).putInt(++numbers[session]).array();
                        cluster.send(new SessionMessageImpl(CONTEXT, SessionMessage.EVT_SESSION_DELTA, delta,
                                "session-" + session, "session-" + session + "-" + numbers[session]));
                    }
                }
            });
            threads.add(thread);
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        return "sent=" + count / threadCount * threadCount + " rate="
                + (long) (count * 1e9 / (System.nanoTime() - start));
    }

    private String received(long count) throws InterruptedException {
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(300);
        long quietSince = System.nanoTime();
        long before = -1;
        synchronized (lock) {
            while (received < count && System.nanoTime() < until) {
                lock.wait(200);
                if (received != before) {
                    before = received;
                    quietSince = System.nanoTime();
                } else if (System.nanoTime() - quietSince > TimeUnit.SECONDS.toNanos(10)) {
                    break;
                }
            }
            return "received=" + received + " inversions=" + inversions;
        }
    }

    @Override
    public boolean accept(ClusterMessage message) {
        return message instanceof SessionMessage;
    }

    @Override
    public void messageReceived(ClusterMessage message) {
        SessionMessage update = (SessionMessage) message;
        int number = ByteBuffer.wrap(update.getSession()).getInt();
        int session = Integer.parseInt(update.getSessionID().substring("session-".length()));
        synchronized (lock) {
            received++;
            if (number <= last[session]) {
                inversions++;
            }
            last[session] = Math.max(last[session], number);
            if (received % 10000 == 0) {
                lock.notifyAll();
            }
        }
    }
}
