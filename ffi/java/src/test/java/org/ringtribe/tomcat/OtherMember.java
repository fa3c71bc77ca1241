package org.ringtribe.tomcat;

import java.io.Serializable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.IntPredicate;

import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelListener;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipListener;

/** A second member in this JVM whose application fails when it is told to. */
final class OtherMember implements AutoCloseable, ChannelListener {

    private static final long LONGEST_WAIT_S = 30;

    private final RingtribeChannel channel = new RingtribeChannel();
    private volatile IntPredicate failing = event -> false;
    private volatile String name;

    /** Joins, and returns when the node has it as a member. */
    OtherMember(OneNode node, int mcastPort) throws Exception {
        this(node.channel(), mcastPort, null);
    }

    /** @param also takes what comes too, null if nobody does */
    OtherMember(RingtribeChannel node, int mcastPort, ChannelListener also) throws Exception {
        give((ChannelEngine.Part) channel.getMembershipService(), "mcastPort", String.valueOf(mcastPort));
        give((ChannelEngine.Part) channel.getMembershipService(), "mcastBindAddr", "127.0.0.1");
        give((ChannelEngine.Part) channel.getMembershipService(), "mcastFrequency", "50");
        give((ChannelEngine.Part) channel.getMembershipService(), "mcastDropTime", "500");
        give((ChannelEngine.Part) channel.getChannelReceiver(), "tcpListenAddress", "127.0.0.1");
        give((ChannelEngine.Part) channel.getChannelReceiver(), "tcpListenPort", String.valueOf(OneNode.freePort()));
        channel.addChannelListener(this);
        CountDownLatch joined = new CountDownLatch(1);
        if (also != null) {
            channel.addChannelListener(also);
        }
        node.addMembershipListener(new MembershipListener() {
            @Override
            public void memberAdded(Member member) {
                name = member.getName();
                joined.countDown();
            }

            @Override
            public void memberDisappeared(Member member) {
                // Only the beginning is awaited.
            }
        });
        channel.start(Channel.DEFAULT);
        if (!joined.await(LONGEST_WAIT_S, TimeUnit.SECONDS)) {
            throw new AssertionError("the other member is not seen");
        }
    }

    private static void give(ChannelEngine.Part part, String name, String value) {
        part.settings().give(name, value, "a test");
    }

    /** Sends to the node, and waits until it has dealt with it. */
    void send(Serializable message) throws ChannelException {
        channel.send(channel.getMembers(), message, SendMode.APPLIED);
    }

    /** @param events which SessionMessage.EVT_ fail from now on */
    void failFor(IntPredicate events) {
        failing = events;
    }

    /** Asks the node for all sessions of a context, and returns when the node has sent them or failed to. */
    void fetch(String context) throws ChannelException {
        SessionMessage asked = new SessionMessageImpl(context, SessionMessage.EVT_GET_ALL_SESSIONS, null, "fetch", "fetch");
        send(asked);
    }

    /** @return as the node knows it */
    String name() {
        return name;
    }

    @Override
    public boolean accept(Serializable message, Member sender) {
        return message instanceof SessionMessage;
    }

    @Override
    public void messageReceived(Serializable message, Member sender) {
        if (failing.test(((SessionMessage) message).getEventType())) {
            throw new IllegalStateException("told to fail");
        }
    }

    @Override
    public void close() throws Exception {
        channel.stop(Channel.DEFAULT);
    }
}
