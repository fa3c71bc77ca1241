package org.ringtribe.tomcat;

import java.io.Serializable;
import java.util.concurrent.atomic.AtomicLong;

import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.tcp.SimpleTcpCluster;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelInterceptor;
import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.ErrorHandler;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipListener;
import org.apache.catalina.tribes.MembershipService;
import org.apache.catalina.tribes.UniqueId;
import org.apache.catalina.tribes.group.GroupChannel;
import org.apache.catalina.tribes.group.interceptors.EncryptInterceptor;
import org.apache.catalina.tribes.group.interceptors.MessageDispatchInterceptor;
import org.apache.catalina.tribes.group.interceptors.TcpFailureDetector;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;
import org.ringtribe.NativeLoader;

/**
 * A {@link GroupChannel} on the Ringtribe engine. It reads the key of each message before Tribes
 * serializes it, so that messages of one session keep the order in which {@link #send} was entered,
 * and it replaces the interceptor that hands asynchronous messages to several threads.
 */
public class RingtribeChannel extends GroupChannel {

    private static final Log log = LogFactory.getLog(RingtribeChannel.class);
    private static final int APPLIED = SEND_OPTIONS_USE_ACK | SEND_OPTIONS_SYNCHRONIZED_ACK;

    private final Settings settings = new Settings(Words.CHANNEL, this, (attribute, value) -> { });
    private boolean nativeRequired;
    private volatile boolean stock;
    private final Copies copies = new Copies();
    private final RefusedPairing pairing = new RefusedPairing();
    private final AtomicLong refusedPairings = new AtomicLong();
    private SimpleTcpCluster cluster;

    public RingtribeChannel() {
        setChannelSender(new RingtribeSender());
        setChannelReceiver(new RingtribeReceiver());
        setMembershipService(new RingtribeMembership());
    }

    /** @param required whether the channel refuses to start where the native library cannot load */
    public void setNativeRequired(boolean required) {
        nativeRequired = required;
    }

    public boolean isNativeRequired() {
        return nativeRequired;
    }

    /**
     * What has no setter.
     *
     * @return true: what is wrong is told at the start
     */
    public boolean setProperty(String attribute, String value) {
        settings.give(attribute, value);
        return true;
    }

    /** @return whether stock's parts run in the place of Ringtribe's */
    boolean isStock() {
        return stock;
    }

    /** @return which members have which sessions */
    Copies copies() {
        return copies;
    }

    @Override
    public void memberAdded(Member member) {
        copies.joined(member);
        super.memberAdded(member);
    }

    @Override
    public void memberDisappeared(Member member) {
        copies.left(member);
        pairing.left(member);
        super.memberDisappeared(member);
    }

    @Override
    public void messageReceived(ChannelMessage message) {
        if (message != null) {
            if (pairing.look(message) != null) {
                refusedPairings.incrementAndGet();
            }
        }
        super.messageReceived(message);
    }

    /** The cluster shows itself when it starts, as a listener: an element does not know its parent. */
    @Override
    public void addMembershipListener(MembershipListener listener) {
        if (listener instanceof SimpleTcpCluster) {
            cluster = (SimpleTcpCluster) listener;
        }
        super.addMembershipListener(listener);
    }

    @Override
    public void start(int level) throws ChannelException {
        begin(level);
        MembershipService membership = getMembershipService();
        if (membership instanceof RingtribeMembership) {
            // With no lock held: what comes meanwhile may need those of the channel and its parts to
            // answer, and its sender does not answer this node before.
            ((RingtribeMembership) membership).awaitBarrier(level);
        }
    }

    private synchronized void begin(int level) throws ChannelException {
        if (!settings.errors().isEmpty()) {
            throw new ChannelException(String.join("; ", settings.errors()));
        }
        if (cluster != null && getChannelSender() instanceof RingtribeSender) {
            RingtribeTransport transport = (RingtribeTransport) ((RingtribeSender) getChannelSender()).getTransport();
            SendMode.decide(cluster, transport);
        }
        String why = stock ? null : NativeLoader.whyNot();
        if (why != null) {
            if (nativeRequired) {
                throw new ChannelException("nativeRequired=\"true\" and the native library cannot be loaded: " + why);
            }
            StockParts.install(this);
            stock = true;
            log.warn("Stock's Sender, Receiver and Membership take the place of Ringtribe's, since the native library "
                    + "cannot be loaded: " + why);
        }
        super.start(level);
    }

    @Override
    public synchronized void stop(int level) throws ChannelException {
        try {
            super.stop(level);
        } finally {
            copies.clear();
        }
    }

    /** What the channel and the cluster around it add to the engine's attributes. */
    void configure(Configuration config) {
        if (cluster == null) {
            return;
        }
        String name = cluster.getClusterName();
        // Without a name of its own a cluster has that of its container, which says nothing.
        boolean isNamed = name != null && (cluster.getContainer() == null
                || !name.equals(cluster.getContainer().getName()));
        if (isNamed) {
            config.put("clusterName", name, "attribute clusterName of Cluster");
        }
        if (cluster instanceof RingtribeCluster) {
            ((RingtribeCluster) cluster).report(config);
        } else {
            config.report("channelSendOptions", cluster.getChannelSendOptions(), SendMode.origin(cluster));
        }
    }

    /**
     * {@inheritDoc} A stock MessageDispatchInterceptor, which loses the order, and a stock TcpFailureDetector,
     * which takes who was started again for who was killed, are replaced. An EncryptInterceptor is watched.
     */
    @Override
    public void addInterceptor(ChannelInterceptor interceptor) {
        if (interceptor.getClass() == MessageDispatchInterceptor.class) {
            super.addInterceptor(new RingtribeDispatchInterceptor((MessageDispatchInterceptor) interceptor));
        } else if (interceptor.getClass() == TcpFailureDetector.class) {
            super.addInterceptor(new RingtribeFailureDetector((TcpFailureDetector) interceptor));
        } else {
            super.addInterceptor(interceptor);
        }
        if (interceptor instanceof EncryptInterceptor) {
            super.addInterceptor(new EncryptionWatch((EncryptInterceptor) interceptor, text -> {
                refusedPairings.incrementAndGet();
                log.error(text);
            }));
        }
    }

    /** @return how many members were named because they and this node cannot read each other */
    long refusedPairings() {
        return refusedPairings.get();
    }

    @Override
    protected synchronized void setupDefaultStack() throws ChannelException {
        if (!getInterceptors().hasNext()) {
            addInterceptor(new RingtribeDispatchInterceptor());
            addInterceptor(new RingtribeFailureDetector());
        }
        super.setupDefaultStack();
    }

    /**
     * Hands a message to the engine and returns, whatever its options say of waiting; the caller may
     * hold a lock that keeps the order of its messages.
     *
     * @param handler told when every member is done as the options ask, by a thread that must not be
     *        held up; null if nobody wants to know
     * @throws ChannelException it was not handed over; the handler is not called then
     */
    void submit(Member[] destination, Serializable msg, int options, Outcome handler) throws ChannelException {
        Copies.Change change = copies.begin(cluster, msg, destination);
        if (change != null && handler != null) {
            handler.tells(change);
        }
        Sending sending = Sending.begin(this, Keys.of(msg));
        ChannelException failure = null;
        try {
            sending.becomeAsynchronous(handler, null);
            super.send(destination, msg, options, handler);
        } catch (ChannelException e) {
            failure = e;
            throw e;
        } finally {
            sending.end();
            if (change != null && handler == null) {
                change.handedOver(failure);
            }
        }
        sending.returned();
    }

    @Override
    public UniqueId send(Member[] destination, Serializable msg, int options, ErrorHandler handler)
            throws ChannelException {
        int effective = options;
        if (msg instanceof SessionMessage
                && ((SessionMessage) msg).getEventType() == SessionMessage.EVT_CHANGE_SESSION_ID) {
            // It concerns two keys, the old id and the new one: what follows under the new id must
            // find it applied everywhere.
            effective = (options | APPLIED) & ~Channel.SEND_OPTIONS_ASYNCHRONOUS;
        }
        Copies.Change change = copies.begin(cluster, msg, destination);
        boolean isAwaited = (effective & Channel.SEND_OPTIONS_ASYNCHRONOUS) == 0;
        Sending sending = Sending.begin(this, Keys.of(msg));
        UniqueId id;
        ChannelException failure = new ChannelException("not sent");
        try {
            id = super.send(destination, msg, effective, handler);
            failure = null;
        } catch (ChannelException e) {
            failure = e;
            // The cluster logs it and goes on; the request that it belongs to must know.
            Replication request = Replication.current();
            if (request != null && isAwaited && Replication.isOfSession(msg)) {
                request.failed(RingtribeDeltaSession.hash(((SessionMessage) msg).getSessionID()), e);
            }
            throw e;
        } finally {
            sending.end();
            record(change, effective, failure);
        }
        sending.returned();
        return id;
    }

    /** Who has what was sent. */
    private static void record(Copies.Change change, int options, ChannelException failure) {
        if (change != null && (options & SEND_OPTIONS_USE_ACK) != 0 && (options & SEND_OPTIONS_ASYNCHRONOUS) == 0) {
            change.acknowledged(failure);
        } else if (change != null) {
            change.handedOver(failure);
        }
    }
}
