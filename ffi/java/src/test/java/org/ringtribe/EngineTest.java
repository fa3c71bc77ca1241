package org.ringtribe;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.membership.MemberImpl;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** Two engines in one JVM exchange messages through the bridge; run with -Xcheck:jni. */
@Timeout(120)
class EngineTest {

    private static final int APPLIED = Channel.SEND_OPTIONS_USE_ACK | Channel.SEND_OPTIONS_SYNCHRONIZED_ACK;
    private static final byte[] ID = new byte[16];

    /** An engine that listens, with the package that names it. */
    private static final class Node implements AutoCloseable, Engine.Events {
        final Engine engine;
        final byte[] member;
        final List<String> logs = Collections.synchronizedList(new ArrayList<>());

        Node(Map<String,String> more) throws Exception {
            Map<String,String> config = new java.util.HashMap<>(more);
            config.put("tcpListenAddress", "127.0.0.1");
            config.put("tcpListenPort", String.valueOf(20000 + new Random().nextInt(20000)));
            config.put("autoBind", "1000");
            engine = Engine.open(config, "test", this);
            String bound = engine.listen();
            MemberImpl local = new MemberImpl("127.0.0.1", Integer.parseInt(bound.substring(bound.indexOf(':') + 1)), 1);
            byte[] id = new byte[16];
            new Random().nextBytes(id);
            local.setUniqueId(id);
            member = local.getData(false, false);
            engine.setLocalMember(member);
        }

        @Override
        public void close() {
            engine.close();
        }

        @Override
        public void memberAdded(long id, byte[] memberPackage) {
        }

        @Override
        public void memberChanged(long id, byte[] memberPackage) {
        }

        @Override
        public void memberGone(long id, byte[] memberPackage, int cause) {
        }

        @Override
        public void gap(long id, long messages) {
        }

        @Override
        public void log(int level, String text) {
            logs.add(level + " " + text);
        }
    }

    private Node a;
    private Node b;
    private long[] toB;

    @BeforeEach
    void open() throws Exception {
        // One listener that waits holds one connection.
        a = new Node(Map.of("poolSize", "64"));
        b = new Node(Map.of());
        toB = new long[] { a.engine.enter(b.member) };
        assertTrue(toB[0] >= 0);
    }

    @AfterEach
    void close() {
        a.close();
        b.close();
    }

    private static byte[] payload(Records record) {
        byte[] bytes = new byte[record.payloadLength()];
        record.payload(bytes, 0);
        return bytes;
    }

    private int send(byte[] bytes, int[] statuses) {
        return a.engine.send(bytes, bytes.length, APPLIED, 5, ID, toB, null, false, statuses);
    }

    private static byte[] number(int n) {
        return ByteBuffer.allocate(4).putInt(n).array();
    }

    @Test
    void sendReturnsAfterTheListenerAndLearnsThatItFailed() {
        List<String> order = Collections.synchronizedList(new ArrayList<>());
        List<byte[]> senders = Collections.synchronizedList(new ArrayList<>());
        b.engine.startPollers(1, 4, 1000, record -> {
            senders.add(record.sender());
            order.add("listener " + record.options() + " " + record.timestamp() + " " + payload(record).length);
            if (record.payloadLength() == 2) {
                throw new Exception("as asked");
            }
        });
        int[] statuses = new int[1];
        assertEquals(0, send(new byte[3], statuses));
        order.add("returned");
        assertEquals(1, send(new byte[2], statuses));
        assertEquals(Status.REMOTE_FAILED, statuses[0]);
        // A stock sender may resend what failed; this one must not.
        assertEquals(List.of("listener 6 5 3", "returned", "listener 6 5 2"), order);
        MemberImpl sender = (MemberImpl) MemberImpl.getMember(senders.get(0));
        assertEquals(MemberImpl.getMember(a.member), sender);
    }

    @Test
    void aMessageLargerThanThePollersBuffer() {
        byte[] large = new byte[6_000_000];
        new Random(7).nextBytes(large);
        CompletableFuture<byte[]> arrived = new CompletableFuture<>();
        b.engine.startPollers(1, 1, 1000, record -> {
            if (record.payloadLength() > 10) {
                arrived.complete(payload(record));
            }
        });
        assertEquals(0, send(large, new int[1]));
        assertArrayEquals(large, arrived.join());
        assertEquals(0, send(new byte[1], new int[1]), "the poller goes on with a small buffer");
    }

    @Test
    void messagesOfOneKeyArriveInTheOrderOfTheCalls() throws Exception {
        int count = 3000;
        List<Integer> arrived = Collections.synchronizedList(new ArrayList<>());
        b.engine.startPollers(4, 8, 1000, record -> arrived.add(ByteBuffer.wrap(payload(record)).getInt()));
        CountDownLatch completed = new CountDownLatch(count);
        List<Integer> expected = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            expected.add(n);
            int result = a.engine.submit(number(n), 4, APPLIED, 0, ID, toB, 42L, false, (members, statuses) -> {
                if (members.length == 0) {
                    completed.countDown();
                }
            }, new int[1]);
            assertEquals(0, result);
        }
        assertTrue(completed.await(60, TimeUnit.SECONDS), completed.getCount() + " are missing");
        assertEquals(expected, arrived);
    }

    @Test
    void pollersGrowWhileListenersWaitAndShrinkAgain() throws Exception {
        int together = 40;
        CyclicBarrier barrier = new CyclicBarrier(together);
        b.engine.startPollers(2, together, 0, record -> barrier.await(30, TimeUnit.SECONDS));
        ExecutorService callers = Executors.newFixedThreadPool(together);
        List<Future<Integer>> results = new ArrayList<>();
        for (int n = 0; n < together; n++) {
            results.add(callers.submit(() -> send(new byte[1], new int[1])));
        }
        for (Future<Integer> result : results) {
            assertEquals(0, result.get(60, TimeUnit.SECONDS));
        }
        callers.shutdown();
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        while (b.engine.pollersCount() > 2 && System.nanoTime() < until) {
            Thread.onSpinWait();
        }
        assertEquals(2, b.engine.pollersCount());
        b.engine.stopPollers();
        b.engine.startPollers(1, 1, 1000, record -> { });
        assertEquals(0, send(new byte[1], new int[1]), "pollers can be started again");
    }

    @Test
    void closeFailsWhatWaitsAndCallsEveryCompletion() throws Exception {
        CountDownLatch inside = new CountDownLatch(1);
        CountDownLatch release = new CountDownLatch(1);
        b.engine.startPollers(1, 4, 1000, record -> {
            inside.countDown();
            release.await(60, TimeUnit.SECONDS);
        });
        ExecutorService caller = Executors.newSingleThreadExecutor();
        int[] statuses = new int[1];
        Future<Integer> waiting = caller.submit(() -> send(new byte[1], statuses));
        assertTrue(inside.await(30, TimeUnit.SECONDS));
        int queued = 100;
        List<Integer> outcomes = Collections.synchronizedList(new ArrayList<>());
        for (int n = 0; n < queued; n++) {
            int result = a.engine.submit(number(n), 4, APPLIED, 0, ID, toB, 1L, false,
                    (members, why) -> outcomes.add(members == null ? -1 : why[0]), new int[1]);
            assertEquals(0, result);
        }
        a.engine.close(0);
        assertEquals(Collections.nCopies(queued, Status.CLOSED), outcomes);
        assertEquals(1, waiting.get(30, TimeUnit.SECONDS));
        assertEquals(Status.CLOSED, statuses[0]);
        assertTrue(send(new byte[1], new int[1]) != 0, "closed");
        assertEquals("", a.engine.describe());
        a.engine.close(0);
        caller.shutdown();
        release.countDown();
    }

    @Test
    void aPollerBelongsToOneThreadAndForgedHandlesAreRefused() throws Exception {
        ByteBuffer buffer = ByteBuffer.allocateDirect(1 << 16);
        long address = Bridge.address(buffer);
        assertTrue(address != 0);
        assertEquals(0, Bridge.address(ByteBuffer.allocate(8)), "not a direct buffer");
        long handle = Bridge.open(new byte[0], new byte[100]);
        assertTrue(handle > 0);
        CountDownLatch begun = new CountDownLatch(1);
        Thread other = new Thread(() -> {
            ByteBuffer own = ByteBuffer.allocateDirect(1 << 16);
            begun.countDown();
            while (Bridge.poll(handle, 3, false, Bridge.address(own), own.capacity(), 1000) != -1) {
                Thread.onSpinWait();
            }
        });
        other.start();
        begun.await();
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
        int answer = 0;
        while (answer == 0 && System.nanoTime() < until) {
            answer = Bridge.poll(handle, 3, false, address, buffer.capacity(), 0);
        }
        assertEquals(-2, answer, "in use by the other thread");
        assertTrue(Bridge.poll(handle, 4, false, address, 100, 0) < -1024, "too small a buffer");
        for (long forged : new long[] { 0, -1, handle + 1, handle + (1L << 32), Long.MAX_VALUE }) {
            assertEquals(-1, Bridge.poll(forged, 4, false, address, buffer.capacity(), 0));
            assertEquals(-Status.CLOSED, Bridge.close(forged, 0));
            assertEquals(-Status.CLOSED, Bridge.send(forged, new byte[1], 0, 1, 0, 0, ID, new long[0], 0, 0, 0, 0, 0,
                    new int[0]));
        }
        int badArgument = -103;
        assertEquals(badArgument, Bridge.send(handle, new byte[1], 0, 2, 0, 0, ID, toB, 1, 0, 0, 0, 0, new int[1]));
        assertEquals(badArgument, Bridge.send(handle, new byte[1], -1, 1, 0, 0, ID, toB, 1, 0, 0, 0, 0, new int[1]));
        assertEquals(badArgument, Bridge.send(handle, null, 0, 1, 0, 0, ID, toB, 1, 0, 0, 0, 0, new int[1]));
        assertEquals(badArgument, Bridge.send(handle, new byte[1], 0, 1, 0, 0, null, toB, 1, 0, 0, 0, 0, new int[1]));
        assertEquals(badArgument, Bridge.send(handle, new byte[1], 0, 1, 0, 0, ID, toB, 2, 0, 0, 0, 0, new int[1]));
        assertEquals(badArgument, Bridge.send(handle, new byte[1], 0, 1, 0, 0, ID, null, 1, 0, 0, 0, 0, new int[1]));
        assertEquals(badArgument, Bridge.enter(handle, new byte[] { 1, 2, 3 }));
        Bridge.outcome(handle, 4, 0, 0);
        Bridge.outcome(handle, -1, -1, -1);
        assertEquals(0, Bridge.close(handle, 0));
        other.join(TimeUnit.SECONDS.toMillis(30));
        assertFalse(other.isAlive(), "close wakes pollers");
        assertEquals(-1, Bridge.poll(handle, 0, true, address, buffer.capacity(), 1000));
    }

    @Test
    void whatIsRefusedSaysWhy() {
        EngineException e = assertThrows(EngineException.class,
                () -> Engine.open(Map.of("mcastFreqency", "500"), "test", a));
        assertTrue(e.getMessage().contains("did you mean mcastFrequency"), e.getMessage());
        e = assertThrows(EngineException.class, () -> Engine.open(Map.of("ackTimeout", "0"), "test", a));
        assertTrue(e.getMessage().contains("ackTimeout=\"0\""), e.getMessage());
        EngineException inUse = assertThrows(EngineException.class, () -> {
            try (ServerSocket taken = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"));
                    Engine third = Engine.open(Map.of("tcpListenAddress", "127.0.0.1", "tcpListenPort",
                            String.valueOf(taken.getLocalPort()), "autoBind", "1"), "test", a)) {
                third.listen();
            }
        });
        assertTrue(inUse.getMessage().contains("in use"), inUse.getMessage());
    }
}
