package org.ringtribe.tomcat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Locale;

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
public class RingtribeTransport extends PooledParallelSender
        implements ChannelEngine.Part, RingtribeTransportMBean {

    /** Test switch: every message is dropped, as if the network were silent. */
    static final String DROP_PROPERTY = "org.ringtribe.test.dropReplication";

    private static final Log log = LogFactory.getLog(RingtribeTransport.class);
    private static final long DEFAULT_ACK_TIMEOUT = 15000;

    private final Settings settings = new Settings(Words.SENDER, this, this::mirror);
    private final boolean drop = Boolean.getBoolean(DROP_PROPERTY);
    private Channel channel;
    private volatile ChannelEngine shared;

    public RingtribeTransport() {
        super.setTimeout(DEFAULT_ACK_TIMEOUT);
    }

    void setChannel(Channel channel) {
        this.channel = channel;
    }

    @Override
    public Settings settings() {
        return settings;
    }

    @Override
    public void configure(Configuration config) {
        config.put("ackTimeout", getTimeout(), DEFAULT_ACK_TIMEOUT, settings);
        config.put("poolSize", getPoolSize(), new PooledParallelSender().getPoolSize(), settings);
        for (String attribute : new String[] { "replicationMode", "waitForAck", "maxQueueSize", "maxMessageBytes",
                "connectTimeout" }) {
            config.put(attribute, null, null, settings);
        }
    }

    /** @param millis longest wait for an acknowledgement; text, so that the engine refuses what is none */
    public void setTimeout(String millis) {
        settings.give("timeout", millis);
    }

    /** @param count connections to one member */
    public void setPoolSize(String count) {
        settings.give("poolSize", count);
    }

    /**
     * The words of Tomcat 5.5, those of the engine, and what has no setter.
     *
     * @return true: what is wrong is told at the start
     */
    public boolean setProperty(String attribute, String value) {
        settings.give(attribute, value);
        return true;
    }

    private void mirror(String attribute, String value) {
        Integer number = Settings.integer(value);
        if (attribute.equals("ackTimeout") && number != null) {
            setTimeout(number.longValue());
        } else if (attribute.equals("poolSize") && number != null && number > 0) {
            setPoolSize(number.intValue());
        }
    }

    /** @return whether the 2007 words that decide the mode were given */
    boolean statesMode() {
        return settings.get("replicationMode") != null || settings.get("waitForAck") != null;
    }

    /** @return pooled, synchronous, asynchronous or fastasyncqueue, or what was given instead */
    String replicationMode() {
        Settings.Given mode = settings.get("replicationMode");
        return mode == null ? "pooled" : mode.value.toLowerCase(Locale.ROOT);
    }

    /** @return whether senders wait for the listener; the default of 5.5 is true */
    boolean waitsForAck() {
        Settings.Given wait = settings.get("waitForAck");
        return wait == null || wait.value.equals("true");
    }

    @Override
    public String getEffectiveConfiguration() {
        return shared == null ? "" : shared.effective();
    }

    @Override
    public String getEngineStatistics() {
        ChannelEngine engine = shared;
        if (engine == null) {
            return "";
        }
        String text = engine.engine().describe();
        return channel instanceof RingtribeChannel
                ? text + "refused_pairings_count=" + ((RingtribeChannel) channel).refusedPairings() + "\n" : text;
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
        if ((msg.getOptions() & Channel.SEND_OPTIONS_UDP) != 0) {
            throw new ChannelException("the send option udp (0x20) is not supported: datagrams are lost under load; "
                    + "leave it out of channelSendOptions");
        }
        engine.announce(msg.getAddress());
        Sending sending = Sending.current(channel);
        List<FaultyMember> faulty;
        if (sending != null && sending.isAsynchronous()) {
            faulty = submit(engine, destination, msg, sending);
        } else {
            faulty = sendAndWait(engine, destination, msg, sending == null ? null : sending.key());
        }
        if (!faulty.isEmpty()) {
            ChannelException failure = new ChannelException("not delivered to " + faulty.size() + " of "
                    + destination.length + " members");
            failure.addFaultyMember(faulty.toArray(new FaultyMember[0]));
            throw failure;
        }
    }

    /** Destinations that have an id in the engine, and those that cannot be addressed. */
    private static final class Resolved {
        final Member[] members;
        final long[] ids;
        final int[] statuses;
        final List<FaultyMember> faulty = new ArrayList<>();

        Resolved(ChannelEngine engine, Member[] destination) {
            Member[] found = new Member[destination.length];
            long[] foundIds = new long[destination.length];
            int count = 0;
            for (Member member : destination) {
                long id = engine.id(member);
                if (id < 0) {
                    faulty.add(faulty(member, (int) -id));
                } else {
                    found[count] = member;
                    foundIds[count++] = id;
                }
            }
            members = Arrays.copyOf(found, count);
            ids = Arrays.copyOf(foundIds, count);
            statuses = new int[count];
        }

        /** Why each failed, when the whole call was refused or some members were. */
        void addFailures(int result) {
            for (int n = 0; n < members.length; n++) {
                int status = result < 0 ? -result : statuses[n];
                if (status != Status.OK) {
                    faulty.add(faulty(members[n], status));
                }
            }
        }
    }

    private List<FaultyMember> sendAndWait(ChannelEngine engine, Member[] destination, ChannelMessage msg, Long key) {
        Resolved to = new Resolved(engine, destination);
        int result = 0;
        if (to.ids.length > 0) {
            result = call(engine, msg, to.ids, key, to.statuses);
            for (int n = 0; result > 0 && n < to.ids.length; n++) {
                if (to.statuses[n] == Status.STALE_MEMBER) {
                    to.statuses[n] = sendAgain(engine, to.members[n], to.ids[n], msg, key);
                } else if (to.statuses[n] == Status.REMOTE_FAILED && !getThrowOnFailedAck()) {
                    to.statuses[n] = Status.OK;
                }
            }
        }
        to.addFailures(result);
        for (int n = 0; result >= 0 && n < to.ids.length; n++) {
            if (to.statuses[n] == Status.OK) {
                SenderState.getSenderState(to.members[n]).setReady();
            }
        }
        return to.faulty;
    }

    /** The member has a new id since this one was looked up: it left and came back, or is static. */
    private static int sendAgain(ChannelEngine engine, Member member, long staleId, ChannelMessage msg, Long key) {
        long id = engine.enter(member);
        if (id < 0 || id == staleId) {
            return id < 0 ? (int) -id : Status.STALE_MEMBER;
        }
        int[] status = new int[1];
        int result = call(engine, msg, new long[] { id }, key, status);
        return result < 0 ? -result : status[0];
    }

    private static int call(ChannelEngine engine, ChannelMessage msg, long[] ids, Long key, int[] statuses) {
        return engine.engine().send(msg.getMessage().getBytesDirect(), msg.getMessage().getLength(), msg.getOptions(),
                msg.getTimestamp(), uniqueId(msg), ids, key, false, statuses);
    }

    private static byte[] uniqueId(ChannelMessage msg) {
        return msg.getUniqueId().length == 16 ? msg.getUniqueId() : Arrays.copyOf(msg.getUniqueId(), 16);
    }

    /** Queues; failures known now are the caller's, unless a handler waits: then it learns of all. */
    private List<FaultyMember> submit(ChannelEngine engine, Member[] destination, ChannelMessage msg, Sending sending) {
        Resolved to = new Resolved(engine, destination);
        if (to.ids.length == 0) {
            return to.faulty;
        }
        Engine.Completion completion = null;
        if (sending.hasHandler()) {
            sending.oneMore();
            completion = (failed, statuses) -> completed(engine, sending, to, failed, statuses);
        }
        int result = engine.engine().submit(msg.getMessage().getBytesDirect(), msg.getMessage().getLength(),
                msg.getOptions(), msg.getTimestamp(), uniqueId(msg), to.ids, sending.key(), false, completion,
                to.statuses);
        if (completion != null && result == 0) {
            return Collections.emptyList();
        }
        if (completion != null) {
            sending.oneLess();
        }
        to.addFailures(result);
        return to.faulty;
    }

    private static void completed(ChannelEngine engine, Sending sending, Resolved to, long[] failed, int[] statuses) {
        for (int n = 0; n < to.ids.length; n++) {
            int status = failed == null ? Status.CLOSED : Status.OK;
            for (int f = 0; failed != null && f < failed.length; f++) {
                if (failed[f] == to.ids[n]) {
                    status = statuses[f];
                }
            }
            if (status == Status.OK) {
                SenderState.getSenderState(to.members[n]).setReady();
            } else {
                to.faulty.add(faulty(to.members[n], status));
            }
        }
        if (sending.isAwaited()) {
            // A thread waits for it, and nothing else happens here.
            sending.oneDone(to.faulty);
            return;
        }
        // Handlers are the application's and may block; the thread that brings completions must not.
        RingtribeMembership.execute(engine.channel(), () -> {
            try {
                sending.oneDone(to.faulty);
            } catch (RuntimeException e) {
                log.error("An ErrorHandler failed", e);
            }
        });
    }

    private static FaultyMember faulty(Member member, int status) {
        // None of who took nothing yet, or has gone.
        SenderState state = SenderState.getSenderState(member, false);
        Exception cause;
        if (status == Status.REMOTE_FAILED) {
            // Alive, but the application failed: not to be suspected.
            cause = new RemoteProcessException(Status.text(status));
        } else {
            cause = new NotDelivered(member.getName() + ": " + Status.text(status));
            if (state != null && state.isSuspect()) {
                state.setFailing();
            } else if (state != null) {
                state.setSuspect();
            }
        }
        return new FaultyMember(member, cause);
    }
}
