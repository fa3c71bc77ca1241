package org.ringtribe.tomcat;

import java.io.Serializable;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelListener;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.membership.MemberImpl;

/**
 * A member in this JVM that does with the messages of the manager of /shop what a test says. Other applications, which
 * other tests may have left there, it does not have.
 */
final class ScriptedMember implements AutoCloseable, ChannelListener {

    private static final long LONGEST_WAIT_S = 30;

    private final RingtribeChannel channel = new RingtribeChannel();
    private final BlockingQueue<SessionMessage> received = new LinkedBlockingQueue<>();
    private volatile Script script = (message, sender) -> { };
    private boolean closed;

    /** What it does with a message. */
    interface Script {
        void received(SessionMessage message, Member sender) throws Exception;
    }

    ScriptedMember(int mcastPort) throws Exception {
        give((ChannelEngine.Part) channel.getMembershipService(), "mcastPort", String.valueOf(mcastPort));
        give((ChannelEngine.Part) channel.getMembershipService(), "mcastBindAddr", "127.0.0.1");
        give((ChannelEngine.Part) channel.getMembershipService(), "mcastFrequency", "50");
        give((ChannelEngine.Part) channel.getMembershipService(), "mcastDropTime", "500");
        give((ChannelEngine.Part) channel.getChannelReceiver(), "tcpListenAddress", "127.0.0.1");
        give((ChannelEngine.Part) channel.getChannelReceiver(), "tcpListenPort", String.valueOf(OneNode.freePort()));
        channel.addChannelListener(this);
        channel.start(Channel.DEFAULT);
    }

    private static void give(ChannelEngine.Part part, String name, String value) {
        part.settings().give(name, value, "a test");
    }

    /** From now on. */
    void does(Script script) {
        this.script = script;
    }

    /** @return as the others know it */
    String name() {
        return name(local());
    }

    /** @return how the others call a member that calls itself by its host's text */
    static String name(Member local) {
        return member(local).getName();
    }

    /** @return a member as the others know it */
    static Member member(Member local) {
        return MemberImpl.getMember(((MemberImpl) local).getData(false, false));
    }

    Member local() {
        return channel.getLocalMember(false);
    }

    /** @return the next message of an event, others are passed over */
    SessionMessage awaitEvent(int event) throws InterruptedException {
        while (true) {
            SessionMessage message = received.poll(LONGEST_WAIT_S, TimeUnit.SECONDS);
            if (message == null) {
                throw new AssertionError("no message of event " + event + " came");
            }
            if (message.getEventType() == event) {
                return message;
            }
        }
    }

    void send(Member to, int event, byte[] data, String session, String uniqueId, long timestamp) throws ChannelException {
        send(to, TwoNodes.SHOP, event, data, session, uniqueId, timestamp);
    }

    private void send(Member to, String context, int event, byte[] data, String session, String uniqueId, long timestamp)
            throws ChannelException {
        SessionMessageImpl message = new SessionMessageImpl(context, event, data, session, uniqueId);
        message.setTimestamp(timestamp);
        message.setAddress(local());
        channel.send(new Member[] { to }, message, SendMode.APPLIED);
    }

    /** All of the sessions, or not, in one block. */
    void block(Member to, byte[] data, int total) throws ChannelException {
        send(to, SessionMessage.EVT_ALL_SESSION_DATA, data, "SESSION-STATE",
                StateTransfer.uniqueId(TwoNodes.SHOP, total), System.currentTimeMillis());
    }

    void complete(Member to) throws ChannelException {
        send(to, SessionMessage.EVT_ALL_SESSION_TRANSFERCOMPLETE, null, "SESSION-STATE-TRANSFERRED",
                "SESSION-STATE-TRANSFERRED" + TwoNodes.SHOP, System.currentTimeMillis());
    }

    @Override
    public boolean accept(Serializable message, Member sender) {
        return message instanceof SessionMessage;
    }

    @Override
    public void messageReceived(Serializable message, Member sender) {
        SessionMessage session = (SessionMessage) message;
        boolean isMine = TwoNodes.SHOP.equals(session.getContextName());
        if (isMine) {
            received.add(session);
        } else if (session.getEventType() != SessionMessage.EVT_GET_ALL_SESSIONS) {
            return;
        }
        Script script = isMine ? this.script : (asked, from) -> send(from, asked.getContextName(),
                SessionMessage.EVT_ALL_SESSION_NOCONTEXTMANAGER, null, "NO-CONTEXT-MANAGER", "no", 0);
        // As a manager's executor: an answer may take long.
        Thread thread = new Thread(() -> {
            try {
                script.received(session, sender);
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
        }, "script");
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    public void close() throws Exception {
        if (!closed) {
            closed = true;
            channel.stop(Channel.DEFAULT);
        }
    }
}
