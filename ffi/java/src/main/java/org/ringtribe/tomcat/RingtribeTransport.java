package org.ringtribe.tomcat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelException.FaultyMember;
import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.RemoteProcessException;
import org.apache.catalina.tribes.transport.SenderState;
import org.apache.catalina.tribes.transport.nio.PooledParallelSender;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;
import org.ringtribe.Engine;
import org.ringtribe.Status;

/**
 * Sends through the engine: the Transport element and the Sender's JMX bean. Its sockets, pooled per
 * member, are the engine's; of the stock attributes poolSize and timeout mean what they meant.
 */
public class RingtribeTransport extends PooledParallelSender implements ChannelEngine.Part {

    /** Test switch: every message is dropped, as if the network were silent. */
    static final String DROP_PROPERTY = "org.ringtribe.test.dropReplication";

    private static final Log log = LogFactory.getLog(RingtribeTransport.class);
    private static final long DEFAULT_ACK_TIMEOUT = 15000;

    private final boolean drop = Boolean.getBoolean(DROP_PROPERTY);
    private Channel channel;
    private volatile ChannelEngine shared;
    private String replicationMode;
    private Boolean waitForAck;
    private Long maxQueueSize;

    public RingtribeTransport() {
        super.setTimeout(DEFAULT_ACK_TIMEOUT);
    }

    void setChannel(Channel channel) {
        this.channel = channel;
    }

    @Override
    public void configure(Map<String,String> config) {
        config.put("ackTimeout", String.valueOf(getTimeout()));
        config.put("poolSize", String.valueOf(getPoolSize()));
        if (replicationMode != null) {
            config.put("replicationMode", replicationMode);
        }
        if (maxQueueSize != null) {
            config.put("maxQueueSize", String.valueOf(maxQueueSize));
        }
    }

    public void setReplicationMode(String mode) {
        this.replicationMode = mode;
    }

    public String getReplicationMode() {
        return replicationMode;
    }

    public void setWaitForAck(boolean wait) {
        this.waitForAck = wait;
    }

    /** @return whether senders wait for the listener; stock's default of 5.5 is true */
    public boolean getWaitForAck() {
        return waitForAck == null || waitForAck;
    }

    /** @return whether the 2007 words that decide the mode were given */
    boolean statesMode() {
        return replicationMode != null || waitForAck != null;
    }

    /** @param bytes what may be queued for one member */
    public void setMaxQueueSize(long bytes) {
        this.maxQueueSize = bytes;
    }

    public void setAckTimeout(long millis) {
        setTimeout(millis);
    }

    /** @return what the engine counts, as lines name=value */
    public String getEngineStatistics() {
        ChannelEngine engine = shared;
        return engine == null ? "" : engine.engine().describe();
    }

    @Override
    public synchronized void connect() throws IOException {
        if (shared == null) {
            if (channel == null) {
                throw new IOException("the transport belongs to no channel: put it into a RingtribeSender");
            }
            if (drop) {
                log.warn("Test switch " + DROP_PROPERTY + " is on: no message leaves this node");
            }
            shared = ChannelEngine.acquire(channel);
            setConnected(true);
        }
    }

    @Override
    public synchronized void disconnect() {
        setConnected(false);
        ChannelEngine engine = shared;
        if (engine != null) {
            shared = null;
            engine.release();
        }
    }

    /** The engine keeps its own connections. */
    @Override
    public boolean keepalive() {
        return false;
    }

    @Override
    public void sendMessage(Member[] destination, ChannelMessage msg) throws ChannelException {
        ChannelEngine engine = shared;
        if (engine == null) {
            throw new ChannelException("the sender is not started");
        }
        if (drop) {
            return;
        }
        Sending sending = Sending.current();
        boolean asynchronous = sending != null && sending.asynchronous;
        Engine.Completion completion = null;
        if (asynchronous && sending.hasHandler()) {
            sending.oneMore();
            completion = (failed, statuses) -> completed(engine, sending, failed, statuses);
        }
        Long key = sending == null ? null : sending.key;
        ChannelException failure = send(engine, destination, msg, key, asynchronous, completion);
        if (failure != null) {
            if (completion != null) {
                // The caller is told by the exception, not by the handler.
                sending.becomeAsynchronous(null, null);
            }
            throw failure;
        }
    }

    private ChannelException send(ChannelEngine engine, Member[] destination, ChannelMessage msg, Long key,
            boolean asynchronous, Engine.Completion completion) {
        List<FaultyMember> faulty = new ArrayList<>();
        Member[] members = new Member[destination.length];
        long[] ids = new long[destination.length];
        int count = 0;
        for (Member member : destination) {
            long id = engine.id(member);
            if (id < 0) {
                faulty.add(faulty(member, (int) -id));
            } else {
                members[count] = member;
                ids[count++] = id;
            }
        }
        int[] statuses = new int[count];
        if (count > 0) {
            int result = call(engine, msg, Arrays.copyOf(ids, count), key, asynchronous, completion, statuses);
            if (result > 0 && retryStale(engine, members, ids, statuses)) {
                // Members that were entered again under a new id get the message now.
                result = resendStale(engine, msg, members, ids, key, asynchronous, statuses);
            }
            for (int n = 0; n < count; n++) {
                int status = result < 0 ? -result : statuses[n];
                if (status != Status.OK) {
                    faulty.add(faulty(members[n], status));
                } else if (!asynchronous) {
                    SenderState.getSenderState(members[n]).setReady();
                }
            }
        }
        if (faulty.isEmpty()) {
            return null;
        }
        ChannelException failure = new ChannelException("not delivered to " + faulty.size() + " of "
                + destination.length + " members");
        failure.addFaultyMember(faulty.toArray(new FaultyMember[0]));
        return failure;
    }

    private static int call(ChannelEngine engine, ChannelMessage msg, long[] ids, Long key, boolean asynchronous,
            Engine.Completion completion, int[] statuses) {
        byte[] bytes = msg.getMessage().getBytesDirect();
        int length = msg.getMessage().getLength();
        byte[] id = msg.getUniqueId().length == 16 ? msg.getUniqueId() : Arrays.copyOf(msg.getUniqueId(), 16);
        if (asynchronous) {
            return engine.engine().submit(bytes, length, msg.getOptions(), msg.getTimestamp(), id, ids, key, false,
                    completion, statuses);
        }
        return engine.engine().send(bytes, length, msg.getOptions(), msg.getTimestamp(), id, ids, key, false, statuses);
    }

    /** Enters members again whose id was stale; false if there was none. */
    private static boolean retryStale(ChannelEngine engine, Member[] members, long[] ids, int[] statuses) {
        boolean any = false;
        for (int n = 0; n < statuses.length; n++) {
            if (statuses[n] == Status.STALE_MEMBER) {
                long id = engine.enter(members[n]);
                if (id >= 0 && id != ids[n]) {
                    ids[n] = id;
                    any = true;
                }
            }
        }
        return any;
    }

    private static int resendStale(ChannelEngine engine, ChannelMessage msg, Member[] members, long[] ids, Long key,
            boolean asynchronous, int[] statuses) {
        int failed = 0;
        for (int n = 0; n < statuses.length; n++) {
            if (statuses[n] == Status.STALE_MEMBER) {
                int[] one = new int[1];
                int result = call(engine, msg, new long[] { ids[n] }, key, asynchronous, null, one);
                statuses[n] = result < 0 ? -result : one[0];
            }
            failed += statuses[n] == Status.OK ? 0 : 1;
        }
        return failed;
    }

    private static FaultyMember faulty(Member member, int status) {
        SenderState state = SenderState.getSenderState(member);
        Exception cause;
        if (status == Status.REMOTE_FAILED) {
            // Alive, but the application failed: not to be suspected.
            cause = new RemoteProcessException(Status.text(status));
        } else {
            cause = new ChannelException(member.getName() + ": " + Status.text(status));
            if (state.isSuspect()) {
                state.setFailing();
            } else {
                state.setSuspect();
            }
        }
        return new FaultyMember(member, cause);
    }

    private static void completed(ChannelEngine engine, Sending sending, long[] failed, int[] statuses) {
        List<FaultyMember> faulty = new ArrayList<>();
        for (int n = 0; n < failed.length; n++) {
            Member member = engine.member(failed[n]);
            if (member != null) {
                faulty.add(faulty(member, statuses[n]));
            }
        }
        // Handlers are the application's and may block; the thread that brings completions must not.
        Runnable tell = () -> {
            try {
                sending.oneDone(faulty);
            } catch (RuntimeException e) {
                log.error("An ErrorHandler failed", e);
            }
        };
        RingtribeMembership.execute(engine.channel(), tell);
    }
}
