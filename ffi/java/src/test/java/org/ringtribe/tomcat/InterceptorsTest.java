package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelInterceptor;
import org.apache.catalina.tribes.ChannelListener;
import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.ErrorHandler;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipListener;
import org.apache.catalina.tribes.UniqueId;
import org.apache.catalina.tribes.group.ChannelInterceptorBase;
import org.apache.catalina.tribes.group.InterceptorPayload;
import org.apache.catalina.tribes.group.RpcCallback;
import org.apache.catalina.tribes.group.RpcChannel;
import org.apache.catalina.tribes.group.interceptors.DomainFilterInterceptor;
import org.apache.catalina.tribes.group.interceptors.EncryptInterceptor;
import org.apache.catalina.tribes.group.interceptors.GzipInterceptor;
import org.apache.catalina.tribes.group.interceptors.MessageDispatchInterceptor;
import org.apache.catalina.tribes.group.interceptors.OrderInterceptor;
import org.apache.catalina.tribes.group.interceptors.StaticMembershipInterceptor;
import org.apache.catalina.tribes.group.interceptors.TcpFailureDetector;
import org.apache.catalina.tribes.group.interceptors.ThroughputInterceptor;
import org.apache.catalina.tribes.membership.StaticMember;
import org.apache.catalina.tribes.transport.SenderState;
import org.junit.jupiter.api.Test;

/** The stock interceptors above our transport: the effect of each, which is gone without it. */
class InterceptorsTest {

    private static final int ASYNCHRONOUS = SendMode.APPLIED | Channel.SEND_OPTIONS_ASYNCHRONOUS;
    private static final String KEY = "000102030405060708090a0b0c0d0e0f";
    private static final String OTHER_KEY = "f00102030405060708090a0b0c0d0e0f";

    /** What goes down to the transport. */
    private static final class Tap extends ChannelInterceptorBase {
        private final List<byte[]> sent = new CopyOnWriteArrayList<>();

        @Override
        public void sendMessage(Member[] destination, ChannelMessage message, InterceptorPayload payload)
                throws ChannelException {
            sent.add(message.getMessage().getBytes());
            super.sendMessage(destination, message, payload);
        }
    }

    /** A channel with interceptors, which keeps what it hears. */
    private static final class Node implements AutoCloseable, ChannelListener, MembershipListener {
        final RingtribeChannel channel = new RingtribeChannel();
        final Tap tap = new Tap();
        final int port = OneNode.freePort();
        final BlockingQueue<Serializable> received = new LinkedBlockingQueue<>();
        final Set<Member> members = Collections.synchronizedSet(new TreeSet<>(
                (one, other) -> Integer.compare(one.getPort(), other.getPort())));
        volatile Consumer<Serializable> listener = message -> { };

        Node(int mcastPort, String domain, ChannelInterceptor... interceptors) throws Exception {
            ChannelEngine.Part membership = (ChannelEngine.Part) channel.getMembershipService();
            give(membership, "mcastPort", String.valueOf(mcastPort));
            give(membership, "mcastBindAddr", "127.0.0.1");
            give(membership, "mcastFrequency", "50");
            give(membership, "mcastDropTime", "500");
            if (domain != null) {
                give(membership, "mcastClusterDomain", domain);
            }
            give((ChannelEngine.Part) channel.getChannelReceiver(), "tcpListenAddress", "127.0.0.1");
            give((ChannelEngine.Part) channel.getChannelReceiver(), "tcpListenPort", String.valueOf(port));
            for (ChannelInterceptor interceptor : interceptors) {
                channel.addInterceptor(interceptor);
            }
            channel.addInterceptor(tap);
            channel.addChannelListener(this);
            channel.addMembershipListener(this);
            channel.start(Channel.DEFAULT);
        }

        private static void give(ChannelEngine.Part part, String name, String value) {
            part.settings().give(name, value, "a test");
        }

        void send(Serializable message) throws ChannelException {
            channel.send(channel.getMembers(), message, SendMode.APPLIED);
        }

        Serializable next() throws InterruptedException {
            return received.poll(30, TimeUnit.SECONDS);
        }

        boolean has(Node other) {
            synchronized (members) {
                return members.stream().anyMatch(member -> member.getPort() == other.port);
            }
        }

        void awaits(Node other) throws InterruptedException {
            TwoNodes.await("it has the other one", () -> has(other));
        }

        /** @return what all went down as, in one text */
        String wire() {
            StringBuilder text = new StringBuilder();
            tap.sent.forEach(bytes -> text.append(new String(bytes, StandardCharsets.ISO_8859_1)));
            return text.toString();
        }

        @Override
        public boolean accept(Serializable message, Member sender) {
            return true;
        }

        @Override
        public void messageReceived(Serializable message, Member sender) {
            listener.accept(message);
            received.add(message);
        }

        @Override
        public void memberAdded(Member member) {
            members.add(member);
        }

        @Override
        public void memberDisappeared(Member member) {
            members.remove(member);
        }

        @Override
        public void close() throws ChannelException {
            channel.stop(Channel.DEFAULT);
        }
    }

    private static EncryptInterceptor encrypt(String key) {
        EncryptInterceptor interceptor = new EncryptInterceptor();
        interceptor.setEncryptionKey(key);
        return interceptor;
    }

    private static DomainFilterInterceptor domain(String domain) {
        DomainFilterInterceptor interceptor = new DomainFilterInterceptor();
        interceptor.setDomain(domain);
        return interceptor;
    }

    @Test
    void encryptHidesWhatIsSentAndWhoHasAnotherKeyGetsNothing() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (Node a = new Node(mcastPort, null, encrypt(KEY), new TcpFailureDetector());
                Node b = new Node(mcastPort, null, encrypt(KEY), new TcpFailureDetector());
                Node other = new Node(mcastPort, null, encrypt(OTHER_KEY), new TcpFailureDetector());
                Node none = new Node(mcastPort, null, new TcpFailureDetector())) {
            for (Node member : new Node[] { b, other, none }) {
                a.awaits(member);
            }
            a.send("the secret of the session");
            assertEquals("the secret of the session", b.next());
            assertFalse(a.wire().contains("secret"), "it can be read");
            // Each member has acknowledged: what those without the key heard is there by now.
            assertTrue(other.received.isEmpty(), String.valueOf(other.received));
            assertFalse(none.received.stream().anyMatch("the secret of the session"::equals));
            // One message in 256 looks right under any key.
            for (int i = 0; i < 5 && other.channel.refusedPairings() == 0; i++) {
                a.send("and again");
            }
            assertEquals(1, other.channel.refusedPairings(), "who cannot read it says so");
            assertEquals(0, b.channel.refusedPairings());
        }
    }

    @Test
    void gzipSendsFewerBytes() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        GzipInterceptor gzip = new GzipInterceptor();
        gzip.setStatsEnabled(true);
        try (Node a = new Node(mcastPort, null, gzip); Node b = new Node(mcastPort, null, new GzipInterceptor())) {
            a.awaits(b);
            byte[] large = new byte[100_000];
            Arrays.fill(large, (byte) 'x');
            a.send(large);
            assertArrayEquals(large, (byte[]) b.next());
            int bytes = a.tap.sent.stream().mapToInt(sent -> sent.length).sum();
            assertTrue(bytes < 5_000, bytes + " bytes");
            assertEquals(1, gzip.getCountCompressedTX());
        }
    }

    /** Sends the first message after the second one. */
    private static final class Swapping extends ChannelInterceptorBase {
        private ChannelMessage first;
        private boolean swapped;

        @Override
        public void sendMessage(Member[] destination, ChannelMessage message, InterceptorPayload payload)
                throws ChannelException {
            if (first == null) {
                first = (ChannelMessage) message.deepclone();
                return;
            }
            super.sendMessage(destination, message, payload);
            if (!swapped) {
                swapped = true;
                super.sendMessage(destination, first, payload);
            }
        }
    }

    @Test
    void orderRestoresWhatIsSwappedBelowIt() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (Node a = new Node(mcastPort, null, new OrderInterceptor(), new Swapping());
                Node b = new Node(mcastPort, null, new OrderInterceptor())) {
            a.awaits(b);
            for (String message : new String[] { "first", "second", "third" }) {
                a.send(message);
            }
            assertEquals(Arrays.asList("first", "second", "third"), Arrays.asList(b.next(), b.next(), b.next()));
        }
    }

    @Test
    void messageDispatchReturnsBeforeTheListenerAndTellsTheHandlerAfterIt() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (Node a = new Node(mcastPort, null, new MessageDispatchInterceptor());
                Node b = new Node(mcastPort, null, new MessageDispatchInterceptor())) {
            a.awaits(b);
            CountDownLatch returned = new CountDownLatch(1);
            b.listener = message -> {
                try {
                    // Where nobody dispatches, the caller waits for this one.
                    assertTrue(returned.await(5, TimeUnit.SECONDS), "the caller is held up");
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            };
            BlockingQueue<String> told = new LinkedBlockingQueue<>();
            a.channel.send(a.channel.getMembers(), "hello", ASYNCHRONOUS, new ErrorHandler() {
                @Override
                public void handleError(ChannelException e, UniqueId id) {
                    told.add("failed: " + e.getMessage());
                }

                @Override
                public void handleCompletion(UniqueId id) {
                    told.add("completed");
                }
            });
            assertTrue(b.received.isEmpty());
            assertNull(told.poll());
            returned.countDown();
            assertEquals("hello", b.next());
            assertEquals("completed", told.poll(30, TimeUnit.SECONDS));
        }
    }

    /** An RPC of which one side is held up. */
    private static RpcCallback held(CountDownLatch until, Semaphore arrived) {
        return new RpcCallback() {
            @Override
            public Serializable replyRequest(Serializable message, Member sender) {
                hold();
                return "late";
            }

            @Override
            public void leftOver(Serializable message, Member sender) {
                hold();
            }

            private void hold() {
                arrived.release();
                try {
                    until.await();
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            }
        };
    }

    private static long reservedThreads() {
        return Thread.getAllStackTraces().keySet().stream().filter(thread -> thread.getName().startsWith("Ringtribe-Reserved"))
                .count();
    }

    @Test
    void threadsThatLateRepliesNeededGoWhenNothingComes() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        byte[] id = { 'r', 'p', 'c' };
        int late = 4;
        try (Node a = new Node(mcastPort, null); Node b = new Node(mcastPort, null)) {
            a.awaits(b);
            long before = reservedThreads();
            CountDownLatch answers = new CountDownLatch(1);
            CountDownLatch goes = new CountDownLatch(1);
            Semaphore asked = new Semaphore(0);
            Semaphore answered = new Semaphore(0);
            RpcChannel answering = new RpcChannel(id, b.channel, held(answers, asked));
            RpcChannel asking = new RpcChannel(id, a.channel, held(goes, answered));
            for (int n = 0; n < late; n++) {
                assertEquals(0, asking.send(a.channel.getMembers(), "question", RpcChannel.FIRST_REPLY, 0, 10).length);
            }
            assertTrue(asked.tryAcquire(late, 30, TimeUnit.SECONDS));
            answers.countDown();
            assertTrue(answered.tryAcquire(late, 30, TimeUnit.SECONDS), "one that is held up holds up the others");
            assertTrue(reservedThreads() >= before + late);
            goes.countDown();
            TwoNodes.await("one waits beside the one whose turn it is", () -> reservedThreads() <= before + 1);
            asking.breakdown();
            answering.breakdown();
        }
    }

    @Test
    void theFailureDetectorKeepsWhomItReaches() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (Node a = new Node(mcastPort, null, new TcpFailureDetector())) {
            Member known;
            try (Node b = new Node(mcastPort, null, new TcpFailureDetector())) {
                a.awaits(b);
                known = a.channel.getMembers()[0];
                a.send("what makes stock remember how sending went");
                assertTrue(SenderState.getSenderState(known, false).isReady());
                // Membership loses it for a while.
                ChannelInterceptor lowest = a.channel.getFirstInterceptor();
                while (lowest.getNext() != null) {
                    lowest = lowest.getNext();
                }
                lowest.memberDisappeared(a.members.iterator().next());
                assertTrue(a.has(b), "it was reached");
                assertEquals(1, a.channel.getMembers().length);
            }
            TwoNodes.await("it is gone", () -> a.members.isEmpty());
            TwoNodes.await("it is forgotten", () -> SenderState.getSenderState(known, false) == null);
        }
    }

    @Test
    void staticMembershipNeedsNoMulticast() throws Exception {
        StaticMembershipInterceptor configured = new StaticMembershipInterceptor();
        StaticMembershipInterceptor empty = new StaticMembershipInterceptor();
        // Groups of their own: heartbeats of one are not heard by the other.
        try (Node b = new Node(OneNode.freeUdpPort(), null, new TcpFailureDetector(), empty)) {
            StaticMember member = new StaticMember("127.0.0.1", b.port, 0);
            member.setUniqueId(b.channel.getLocalMember(false).getUniqueId());
            configured.addStaticMember(member);
            try (Node a = new Node(OneNode.freeUdpPort(), null, new TcpFailureDetector(), configured)) {
                a.awaits(b);
                assertEquals(1, a.channel.getMembers().length);
                a.send("to the one that is written down");
                assertEquals("to the one that is written down", b.next());
            }
        }
    }

    @Test
    void domainFilterKnowsItsOwnDomainOnly() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        try (Node a = new Node(mcastPort, "one", domain("one"));
                Node other = new Node(mcastPort, "two", domain("two"));
                Node b = new Node(mcastPort, "one", domain("one"))) {
            a.awaits(b);
            b.awaits(a);
            // Below the filter both are there.
            TwoNodes.await("two members", () -> a.channel.getMembershipService().getMembers().length == 2);
            TwoNodes.await("two members", () -> other.channel.getMembershipService().getMembers().length == 2);
            assertEquals(1, a.channel.getMembers().length);
            assertFalse(a.has(other));
            assertEquals(0, other.channel.getMembers().length);
            // What comes from there all the same is refused.
            other.channel.send(other.channel.getMembershipService().getMembers(), "from abroad", SendMode.APPLIED);
            a.send("from here");
            assertEquals("from here", b.next());
            assertTrue(a.received.isEmpty() && other.received.isEmpty());
        }
    }

    @Test
    void throughputCounts() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        ThroughputInterceptor here = new ThroughputInterceptor();
        ThroughputInterceptor there = new ThroughputInterceptor();
        try (Node a = new Node(mcastPort, null, here); Node b = new Node(mcastPort, null, there)) {
            a.awaits(b);
            b.awaits(a);
            long before = here.getMsgTxCnt().get();
            for (int n = 0; n < 100; n++) {
                a.send(new byte[10_000]);
            }
            assertEquals(100, here.getMsgTxCnt().get() - before);
            assertEquals(100, there.getMsgRxCnt().get());
            assertEquals(0, here.getMsgTxErr().get());
            assertTrue(here.getMbTx() > 0.95 && here.getMbTx() < 1.1, here.getMbTx() + " MB");
            assertTrue(there.getMbRx() > 0.95 && there.getMbRx() < 1.1, there.getMbRx() + " MB");
            b.listener = message -> {
                throw new IllegalStateException("told to fail");
            };
            assertThrows(ChannelException.class, () -> a.send("no"));
            assertEquals(1, here.getMsgTxErr().get());
        }
    }
}
