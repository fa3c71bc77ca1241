package org.ringtribe;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.net.DatagramSocket;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

import org.apache.catalina.tribes.membership.MemberImpl;
import org.apache.catalina.tribes.util.UUIDGenerator;
import org.junit.jupiter.api.Test;

/** Two engines in this JVM, under -Xcheck:jni. */
class EngineTest {

    private static final int WITHIN_SECONDS = 20;

    /** An engine with a queue of what it received and of the members it saw. */
    private static final class Running implements Engine.Events {
        final BlockingQueue<byte[]> messages = new LinkedBlockingQueue<>();
        final BlockingQueue<Long> members = new LinkedBlockingQueue<>();
        final BlockingQueue<Integer> gone = new LinkedBlockingQueue<>();
        /** Listeners of messages that begin with 14 wait for it. */
        final CountDownLatch gate = new CountDownLatch(1);
        final Engine engine;

        Running(int mcastPort, byte id) throws Exception {
            engine = Engine.open(config(mcastPort), "test" + id, this);
            String bound = engine.listen();
            MemberImpl local = new MemberImpl("127.0.0.1", Integer.parseInt(bound.split(":")[1]), 0);
            byte[] uniqueId = new byte[16];
            uniqueId[0] = id;
            local.setUniqueId(uniqueId);
            engine.setLocalMember(local.getData(true, true));
            engine.startPollers(1, 8, 1000, message -> {
                byte[] bytes = new byte[message.payloadLength()];
                message.payload(bytes, 0);
                messages.add(bytes);
                if (bytes.length > 0 && bytes[0] == 13) {
                    throw new IllegalStateException("asked to fail");
                }
                if (bytes.length > 0 && bytes[0] == 14) {
                    gate.await();
                }
            });
            engine.membership(Engine.RECEIVE);
            engine.membership(Engine.SEND);
        }

        @Override
        public void memberAdded(long id, byte[] memberPackage) {
            members.add(id);
        }

        @Override
        public void memberChanged(long id, byte[] memberPackage) {
            // Not looked at.
        }

        @Override
        public void memberGone(long id, byte[] memberPackage, int cause) {
            gone.add(cause);
        }

        @Override
        public void gap(long id, boolean here, long count) {
            // Not looked at.
        }

        @Override
        public void log(int level, String text) {
            // Not looked at.
        }
    }

    private static Map<String,String> config(int mcastPort) {
        Map<String,String> config = new HashMap<>();
        config.put("mcastAddr", "228.0.0.4");
        config.put("mcastPort", String.valueOf(mcastPort));
        config.put("mcastBindAddr", "127.0.0.1");
        config.put("mcastFrequency", "100");
        config.put("mcastDropTime", "1000");
        config.put("tcpListenAddress", "127.0.0.1");
        config.put("tcpListenPort", "24100");
        config.put("autoBind", "20000");
        config.put("ackTimeout", "5000");
        return config;
    }

    private static <T> T take(BlockingQueue<T> queue) throws InterruptedException {
        T taken = queue.poll(WITHIN_SECONDS, TimeUnit.SECONDS);
        assertNotNull(taken, "nothing came");
        return taken;
    }

    private static int send(Running from, long to, byte[] bytes, int options, int[] statuses) {
        return from.engine.send(bytes, bytes.length, options, 1, new byte[16], new long[] { to }, 5L, false, statuses);
    }

    @Test
    void messagesOutcomesAndEndsCrossTheBridge() throws Exception {
        int mcastPort;
        try (DatagramSocket socket = new DatagramSocket()) {
            mcastPort = socket.getLocalPort();
        }
        Running a = new Running(mcastPort, (byte) 1);
        Running b = new Running(mcastPort, (byte) 2);
        long toB = take(a.members);
        take(b.members);
        for (int size : new int[] { 0, 1, 1000, 300_000, 3_000_000 }) {
            byte[] bytes = new byte[size];
            for (int n = 0; n < size; n++) {
                bytes[n] = (byte) (n % 11);
            }
            assertEquals(0, send(a, toB, bytes, 7, new int[1]));
            // From 256 KiB on the poller has to grow its buffer.
            assertArrayEquals(bytes, take(b.messages));
        }
        int[] statuses = new int[1];
        assertEquals(1, send(a, toB, new byte[] { 13 }, 7, statuses));
        assertEquals(Status.REMOTE_FAILED, statuses[0]);

        CountDownLatch completed = new CountDownLatch(1);
        AtomicReference<long[]> failed = new AtomicReference<>();
        int queued = a.engine.submit(new byte[] { 13 }, 1, 15, 1, new byte[16], new long[] { toB }, 5L, false,
                (members, why) -> {
                    failed.set(members);
                    completed.countDown();
                }, statuses);
        assertEquals(0, queued);
        assertTrue(completed.await(WITHIN_SECONDS, TimeUnit.SECONDS));
        assertArrayEquals(new long[] { toB }, failed.get(), "the completion names the member");

        b.engine.close(1000);
        assertEquals(Status.GOODBYE, take(a.gone));
        assertEquals(1, send(a, toB, new byte[1], 7, statuses));
        assertEquals(Status.STALE_MEMBER, statuses[0]);
        a.engine.close(1000);
        assertEquals(-Status.CLOSED, send(a, toB, new byte[1], 7, statuses));
    }

    @Test
    void pollersThatABurstNeededGoThoughMessagesGoRoundAmongThem() throws Exception {
        int mcastPort;
        try (DatagramSocket socket = new DatagramSocket()) {
            mcastPort = socket.getLocalPort();
        }
        Running a = new Running(mcastPort, (byte) 3);
        Running b = new Running(mcastPort, (byte) 4);
        long toB = take(a.members);
        for (long key = 1; key <= 7; key++) {
            assertEquals(0, a.engine.submit(new byte[] { 14 }, 1, 9, 1, new byte[16], new long[] { toB }, key, false,
                    null, new int[1]));
        }
        for (int n = 0; n < 7; n++) {
            take(b.messages);
        }
        assertEquals(8, b.engine.pollersCount(), "each waits in a listener, and one for what comes");
        b.gate.countDown();
        long until = System.nanoTime() + TimeUnit.SECONDS.toNanos(WITHIN_SECONDS);
        while (b.engine.pollersCount() > 2) {
            assertTrue(System.nanoTime() < until, b.engine.pollersCount() + " pollers for one message at a time");
            assertEquals(0, send(a, toB, new byte[1], 7, new int[1]));
        }
        a.engine.close(1000);
        b.engine.close(1000);
    }

    @Test
    void badArgumentsAreNumbersNotCrashes() throws Exception {
        NativeLoader.ensureLoaded();
        for (long handle : new long[] { 0, -1, Long.MIN_VALUE, Long.MAX_VALUE, 1L << 32 }) {
            assertEquals(-1, Bridge.poll(handle, 0, true, 0, 1 << 20, 1));
            Bridge.outcome(handle, 0, 0, 0);
            assertEquals(-Status.CLOSED, Bridge.close(handle, 0));
            assertEquals(-Status.CLOSED, Bridge.setLocalMember(handle, null));
            assertEquals(-Status.CLOSED, Bridge.describe(handle, new byte[10]));
        }
        byte[] error = new byte[500];
        for (String config : new String[] { "ackTimeout=0", "noSuchThing=1", "no equals sign", "mcastAddr=10.0.0.1" }) {
            assertTrue(Bridge.open(config.getBytes("UTF-8"), error) < 0, config);
        }
        assertTrue(Bridge.open("ackTimeout=0".getBytes("UTF-8"), null) < 0, "no room for the text");
        EngineException refused = assertThrows(EngineException.class,
                () -> Engine.open(Map.of("replicationMode", "poled"), "x", null));
        assertTrue(refused.getMessage().contains("did you mean pooled"), refused.getMessage());

        long handle = Bridge.open("tcpThreadCount=1".getBytes("UTF-8"), error);
        assertTrue(handle > 0);
        byte[] bytes = new byte[10];
        byte[] id = new byte[16];
        long[] members = { 7 };
        assertEquals(-103, Bridge.send(handle, bytes, 5, 6, 7, 0, id, members, 1, 0, 0, 0, 0, null), "beyond the array");
        assertEquals(-103, Bridge.send(handle, bytes, -1, 6, 7, 0, id, members, 1, 0, 0, 0, 0, null));
        assertEquals(-103, Bridge.send(handle, null, 0, 6, 7, 0, id, members, 1, 0, 0, 0, 0, null));
        assertEquals(-103, Bridge.send(handle, bytes, 0, 10, 7, 0, new byte[3], members, 1, 0, 0, 0, 0, null));
        assertEquals(-103, Bridge.send(handle, bytes, 0, 10, 7, 0, id, members, 2, 0, 0, 0, 0, null));
        assertEquals(-Status.UNSUPPORTED, Bridge.send(handle, bytes, 0, 10, 0x20, 0, id, members, 1, 0, 0, 0, 0, null));
        assertEquals(1, Bridge.send(handle, bytes, 0, 10, 7, 0, id, members, 1, 0, 0, 0, 0, null), "nobody has the id 7");
        assertEquals(-103, Bridge.enter(handle, bytes));
        assertEquals(-2, Bridge.poll(handle, 5000, false, 0, 1 << 20, 1), "no such poller");
        assertTrue(Bridge.poll(handle, 1, false, 0, 10, 1) < -1024, "too little room");
        assertEquals(0, Bridge.close(handle, 0));
        assertEquals(-Status.CLOSED, Bridge.close(handle, 0));
    }
}
