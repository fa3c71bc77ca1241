package org.ringtribe.tomcat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

import org.apache.catalina.LifecycleException;
import org.apache.catalina.Session;
import org.apache.catalina.ha.CatalinaCluster;
import org.apache.catalina.ha.ClusterManager;
import org.apache.catalina.ha.ClusterMessage;
import org.apache.catalina.ha.session.DeltaManager;
import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.ha.tcp.SimpleTcpCluster;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.Member;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * A {@link DeltaManager} with the same messages and the same MBean that keeps the order of a session's
 * updates and does not lose many things over one:
 *
 * <ul>
 * <li>the difference is taken and handed to the engine under one lock for each session, and awaited
 * outside of it, so that two requests of a session cannot overtake each other on the way;
 * <li>with useDirtyFlag="false" an attribute that was changed without setAttribute is sent too;
 * <li>the sessions of the others come in blocks of bounded size before requests are served; from the next
 * member if one dies or is silent, and in the background after stateTransferTimeout;
 * <li>what a member and this node missed of each other is reconciled;
 * <li>an attribute that cannot be serialized costs that attribute, an unreadable session in a transfer
 * of state costs that session; both are named and counted.
 * </ul>
 */
public class RingtribeDeltaManager extends DeltaManager {

    private static final Log log = LogFactory.getLog(RingtribeDeltaManager.class);

    private static final int BACKGROUND_THREADS = 2;
    private static final long IDLE_SECONDS = 10;

    private final AtomicLong unserializable = new AtomicLong();
    private final AtomicLong unreadable = new AtomicLong();
    private final AtomicLong failedReplications = new AtomicLong();
    private final AtomicLong received = new AtomicLong();
    private final AtomicLong asked = new AtomicLong();
    private final AtomicLong asking = new AtomicLong();
    private final AtomicLong blocksReceived = new AtomicLong();
    private final AtomicInteger lateTransfers = new AtomicInteger();
    private final StateBlocks blocks = new StateBlocks(this);
    private final StateSource source = new StateSource(this, blocks);
    private final StateTransfer transfer = new StateTransfer(this);
    private final Reconciler reconciler = new Reconciler(this);
    private final SessionCopies copies = new SessionCopies(this);
    /** The node whose change of a session's id this thread applies. */
    private final ThreadLocal<Long> renamer = new ThreadLocal<>();
    private ScheduledThreadPoolExecutor background;
    private boolean useDirtyFlag = true;

    public RingtribeDeltaManager() {
        // Stock's defaults are one message with everything, and 2 s between blocks that wait for nothing.
        setSendAllSessions(false);
        setSendAllSessionsWaitTime(0);
        MoreAttributes.setDefaults(this);
    }

    /**
     * @param use true (the default): what was set with setAttribute is sent; false: what was changed
     *        otherwise too, which costs a serialization of each attribute at the end of each request
     */
    public void setUseDirtyFlag(boolean use) {
        useDirtyFlag = use;
    }

    public boolean getUseDirtyFlag() {
        return useDirtyFlag;
    }

    /** @return attributes that were not copied because they cannot be serialized */
    public long getCounterUnserializableAttributes() {
        return unserializable.get();
    }

    /** @return sessions that could not be read, or written, while state was transferred */
    public long getCounterUnreadableSessions() {
        return unreadable.get();
    }

    /** @return updates that are not on every member, or nobody knows */
    public long getCounterFailedReplications() {
        return failedReplications.get();
    }

    void countUnserializable() {
        unserializable.incrementAndGet();
    }

    void countUnreadable(int sessions) {
        unreadable.addAndGet(sessions);
    }

    void countLate() {
        lateTransfers.incrementAndGet();
    }

    void countAsking() {
        asking.incrementAndGet();
    }

    /** @return the member that sends, or sent, its sessions to this node when it started; empty if none does */
    public String getStateTransferSource() {
        return transfer.source();
    }

    /** @return how many sessions that member has; -1 if there is none, or it does not say it (stock) */
    public int getStateTransferExpected() {
        return transfer.expected();
    }

    /** @return how many of them are here */
    public int getStateTransferReceived() {
        return transfer.received();
    }

    /** @return how often all sessions were compared with those of a member that missed something */
    public long getReconciliations() {
        return reconciler.reconciliations();
    }

    /** @return sessions that were changed on both sides meanwhile; the copy that was changed last stayed */
    public long getReconcileConflicts() {
        return reconciler.conflicts();
    }

    @Override
    public int getReceivedQueueSize() {
        return copies.waitingCount();
    }

    @Override
    public long getCounterSend_EVT_GET_ALL_SESSIONS() {
        return asking.get();
    }

    @Override
    public long getCounterReceive_EVT_GET_ALL_SESSIONS() {
        return asked.get();
    }

    @Override
    public long getCounterReceive_EVT_SESSION_DELTA() {
        return received.get();
    }

    @Override
    public long getCounterSend_EVT_ALL_SESSION_DATA() {
        return source.blocksSent();
    }

    @Override
    public long getCounterReceive_EVT_ALL_SESSION_DATA() {
        return blocksReceived.get();
    }

    @Override
    public int getCounterSend_EVT_ALL_SESSION_TRANSFERCOMPLETE() {
        return source.completed();
    }

    @Override
    public int getCounterNoStateTransferred() {
        return lateTransfers.get();
    }

    @Override
    public synchronized void resetStatistics() {
        super.resetStatistics();
        received.set(0);
        asked.set(0);
        asking.set(0);
        blocksReceived.set(0);
        lateTransfers.set(0);
        source.resetStatistics();
        reconciler.resetStatistics();
    }

    @Override
    public Session createEmptySession() {
        return new RingtribeDeltaSession(this);
    }

    @Override
    public ClusterMessage requestCompleted(String sessionId, boolean expires) {
        RingtribeDeltaSession session;
        try {
            Session found = findSession(sessionId);
            if (!(found instanceof RingtribeDeltaSession)) {
                return null;
            }
            session = (RingtribeDeltaSession) found;
        } catch (IOException e) {
            log.error("The session of a request was not found: " + e.getMessage(), e);
            return null;
        }
        CatalinaCluster cluster = getCluster();
        if (!(cluster.getChannel() instanceof RingtribeChannel) || ((RingtribeChannel) cluster.getChannel()).isStock()) {
            // Whoever calls sends it: between here and there the order is lost.
            synchronized (session.order()) {
                return completed(session, sessionId, expires);
            }
        }
        int options = cluster instanceof SimpleTcpCluster ? ((SimpleTcpCluster) cluster).getChannelSendOptions()
                : SendMode.APPLIED;
        boolean isAwaited = (options & Channel.SEND_OPTIONS_USE_ACK) != 0
                && (options & Channel.SEND_OPTIONS_ASYNCHRONOUS) == 0;
        Outcome outcome = null;
        try {
            synchronized (session.order()) {
                ClusterMessage message = completed(session, sessionId, expires);
                Member[] members = cluster.getMembers();
                if (message != null && members.length > 0) {
                    message.setAddress(cluster.getLocalMember());
                    outcome = isAwaited ? new Outcome() : null;
                    session.setLast(outcome);
                    Replication.countSent();
                    submit(cluster, members, message, options, outcome);
                } else {
                    if (members.length == 0 && Replication.current() != null) {
                        // The last one went just now.
                        Replication.current().noMember();
                    }
                    // What this request changed may be on its way with the difference of another one.
                    outcome = session.pending();
                }
            }
            if (outcome != null) {
                outcome.await();
            }
        } catch (ChannelException e) {
            failed(session, e, options);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            failed(session, e, options);
        }
        return null;
    }

    /** Called under the session's order. */
    private ClusterMessage completed(RingtribeDeltaSession session, String sessionId, boolean expires) {
        if (!useDirtyFlag && !expires) {
            session.findChanged();
        }
        session.takenBy(SessionVersion.writer(getCluster().getLocalMember()));
        ClusterMessage message = super.requestCompleted(sessionId, expires);
        if (!(message instanceof SessionMessage)
                || ((SessionMessage) message).getEventType() != SessionMessage.EVT_SESSION_DELTA) {
            return message;
        }
        SessionMessage marked = new SessionMessageImpl(getName(), SessionMessage.EVT_SESSION_DELTA,
                ((SessionMessage) message).getSession(), sessionId,
                session.sentChanges().mark(message.getUniqueId(), session.sentAt()));
        marked.setTimestamp(message.getTimestamp());
        return marked;
    }

    private static void submit(CatalinaCluster cluster, Member[] members, ClusterMessage message, int options,
            Outcome outcome) throws ChannelException {
        try {
            ((RingtribeChannel) cluster.getChannel()).submit(members, message, options, outcome);
        } catch (ChannelException | RuntimeException e) {
            // Others may wait for it already.
            if (outcome != null) {
                outcome.handleError(new ChannelException(e), null);
            }
            throw e;
        }
    }

    private void failed(RingtribeDeltaSession session, Exception e, int options) {
        failedReplications.incrementAndGet();
        Replication request = Replication.current();
        if (request != null && (options & Channel.SEND_OPTIONS_ASYNCHRONOUS) == 0) {
            // The valve has one line for all that its request lost, and answers as it is told to.
            request.failed(session.hash(), e);
            return;
        }
        log.error("An update of session " + session.hash() + " of " + getName() + " is not " + Replication.why(e));
    }

    /** {@inheritDoc} One that cannot be written, or is changed just now, is left out; stock sends none then. */
    @Override
    protected byte[] serializeSessions(Session[] sessions) throws IOException {
        return blocks.write(sessions, null);
    }

    /** {@inheritDoc} One that cannot be read is passed over; stock ends the transfer at it. */
    @Override
    protected void deserializeSessions(byte[] data) throws ClassNotFoundException, IOException {
        blocks.read(data);
    }

    @Override
    protected void startInternal() throws LifecycleException {
        background = new ScheduledThreadPoolExecutor(BACKGROUND_THREADS, this::backgroundThread);
        background.setKeepAliveTime(IDLE_SECONDS, TimeUnit.SECONDS);
        background.allowCoreThreadTimeOut(true);
        copies.clear();
        transfer.prepare();
        source.start();
        reconciler.start(background);
        if (getCluster() != null) {
            Channel channel = getCluster().getChannel();
            channel.addMembershipListener(transfer);
            channel.addMembershipListener(reconciler);
            ChannelEngine.addGapListener(channel, reconciler);
        }
        super.startInternal();
    }

    private Thread backgroundThread(Runnable task) {
        Thread thread = new Thread(task, "Ringtribe-state[" + getName() + "]");
        thread.setDaemon(true);
        return thread;
    }

    @Override
    protected void stopInternal() throws LifecycleException {
        transfer.stop();
        source.stop();
        if (getCluster() != null) {
            Channel channel = getCluster().getChannel();
            ChannelEngine.removeGapListener(channel, reconciler);
            channel.removeMembershipListener(transfer);
            channel.removeMembershipListener(reconciler);
        }
        reconciler.stop();
        try {
            if (background != null) {
                background.shutdownNow();
                background.awaitTermination(IDLE_SECONDS, TimeUnit.SECONDS);
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
        super.stopInternal();
    }

    /**
     * {@inheritDoc} It returns when the sessions are here, nobody has any, or stateTransferTimeout is over; then they
     * are fetched on in the background.
     */
    @Override
    public synchronized void getAllClusterSessions() {
        transfer.fetchAll(background);
    }

    /** {@inheritDoc} What is for a session that is not here yet waits for it, stock's holds all until the end. */
    @Override
    public void messageDataReceived(ClusterMessage message) {
        if (!(message instanceof SessionMessage)) {
            return;
        }
        SessionMessage session = (SessionMessage) message;
        switch (session.getEventType()) {
            case SessionMessage.EVT_GET_ALL_SESSIONS:
                if (transfer.postpones(session)) {
                    return;
                }
                break;
            case SessionMessage.EVT_SESSION_DELTA:
            case SessionMessage.EVT_SESSION_ACCESSED:
            case SessionMessage.EVT_CHANGE_SESSION_ID:
                if (copies.waits(session)) {
                    return;
                }
                break;
            case ReconcileMessage.EVENT:
                withLoader(() -> reconciler.received(session, session.getAddress()));
                return;
            default:
                break;
        }
        messageReceived(session, session.getAddress());
    }

    /** Runs something that may read or write sessions, with the classes of the application. */
    void withLoader(Runnable task) {
        Thread thread = Thread.currentThread();
        ClassLoader before = thread.getContextClassLoader();
        try {
            thread.setContextClassLoader(getClassLoaders()[0]);
            task.run();
        } finally {
            thread.setContextClassLoader(before);
        }
    }

    /** @return the sessions that have not ended */
    Session[] live() {
        List<Session> live = new ArrayList<>();
        for (Session session : findSessions()) {
            if (session instanceof RingtribeDeltaSession && ((RingtribeDeltaSession) session).isLive()) {
                live.add(session);
            }
        }
        return live.toArray(new Session[0]);
    }

    SessionCopies copies() {
        return copies;
    }

    /** @return for {@link #hasAll}: the number of changes until now */
    long changesNumber() {
        Channel channel = getCluster().getChannel();
        return channel instanceof RingtribeChannel ? ((RingtribeChannel) channel).copies().number() : 0;
    }

    /** It is missing in what is sent to a member, null if that is not known. */
    void notWritten(RingtribeDeltaSession session, Member member) {
        Channel channel = getCluster().getChannel();
        if (member != null && channel instanceof RingtribeChannel) {
            ((RingtribeChannel) channel).copies().notWritten(session.copy(), member);
        }
    }

    /** A member has what was here when that many changes had been made, but for what was not written since. */
    void hasAll(Member member, long changed) {
        Channel channel = getCluster().getChannel();
        if (channel instanceof RingtribeChannel) {
            ((RingtribeChannel) channel).copies().hasAll(member, getName(), changed);
        }
    }

    StateBlocks blocks() {
        return blocks;
    }

    Reconciler reconciler() {
        return reconciler;
    }

    /** @return the session of an id, null if there is none */
    RingtribeDeltaSession find(String id) {
        Session found = id == null ? null : sessions.get(id);
        return found instanceof RingtribeDeltaSession ? (RingtribeDeltaSession) found : null;
    }

    /** Answers who asked for all sessions, on a thread that may be held up. */
    void answer(SessionMessage request) {
        RingtribeMembership.execute(getCluster().getChannel(), () -> apply(request));
    }

    @Override
    protected void handleGET_ALL_SESSIONS(SessionMessage msg, Member sender) throws IOException {
        asked.incrementAndGet();
        source.send(sender);
    }

    @Override
    protected void handleALL_SESSION_DATA(SessionMessage msg, Member sender) throws ClassNotFoundException, IOException {
        blocksReceived.incrementAndGet();
        transfer.arrived(sender, msg.getUniqueId(), blocks.read(msg.getSession()));
    }

    @Override
    protected void handleALL_SESSION_TRANSFERCOMPLETE(SessionMessage msg, Member sender) {
        super.handleALL_SESSION_TRANSFERCOMPLETE(msg, sender);
        transfer.completed(sender);
    }

    @Override
    protected void handleALL_SESSION_NOCONTEXTMANAGER(SessionMessage msg, Member sender) {
        super.handleALL_SESSION_NOCONTEXTMANAGER(msg, sender);
        transfer.noContext(sender);
    }

    /** {@inheritDoc} One that came already, with the state of another node, is not made anew. */
    @Override
    protected void handleSESSION_CREATED(SessionMessage msg, Member sender) {
        copies.create(msg, () -> super.handleSESSION_CREATED(msg, sender));
    }

    @Override
    protected void handleSESSION_EXPIRED(SessionMessage msg, Member sender) throws IOException {
        copies.ended(msg);
        super.handleSESSION_EXPIRED(msg, sender);
    }

    /** {@inheritDoc} Also one that was sent before the session got another id. */
    @Override
    protected void handleSESSION_DELTA(SessionMessage msg, Member sender) throws IOException, ClassNotFoundException {
        received.incrementAndGet();
        copies.change(msg, sender);
    }

    @Override
    protected void handleCHANGE_SESSION_ID(SessionMessage msg, Member sender) throws IOException {
        renamer.set(SessionVersion.writer(sender));
        try {
            super.handleCHANGE_SESSION_ID(msg, sender);
        } finally {
            renamer.remove();
        }
        copies.release(deserializeSessionId(msg.getSession()));
    }

    /** {@inheritDoc} It is a change too: a copy under the old id is an older one. */
    @Override
    protected void changeSessionId(Session session, String newId, boolean notifySessionListeners,
            boolean notifyContainerListeners) {
        if (session instanceof RingtribeDeltaSession) {
            Long writer = renamer.get();
            copies.renamed((RingtribeDeltaSession) session, newId,
                    writer == null ? SessionVersion.writer(getCluster().getLocalMember()) : writer);
        }
        super.changeSessionId(session, newId, notifySessionListeners, notifyContainerListeners);
    }

    /** What a request changed is sent to nobody: there is no other member. */
    void keptToItself(RingtribeDeltaSession session) {
        synchronized (session.order()) {
            if (!useDirtyFlag) {
                session.findChanged();
            }
            session.lock();
            try {
                if (session.isDirty()) {
                    session.changed(null, SessionVersion.writer(getCluster().getLocalMember()), AttributeOrder.now());
                }
            } finally {
                session.unlock();
            }
        }
    }

    /** As stock does with each session that came; it counts them too, with a field that not every line has. */
    void addNew(RingtribeDeltaSession session) {
        session.setManager(this);
        session.setValid(true);
        session.setPrimarySession(false);
        session.access();
        session.idle();
        session.noDifference();
        add(session);
        if (isNotifySessionListenersOnReplication()) {
            session.tellNew();
        }
    }

    /** Deals with a message that waited. */
    void apply(SessionMessage message) {
        messageReceived(message, message.getAddress());
    }

    /** Sends to one member and waits as the options say. */
    void sendTo(Member member, SessionMessage message, int options) throws ChannelException {
        message.setAddress(getCluster().getLocalMember());
        getCluster().getChannel().send(new Member[] { member }, message, options);
    }

    @Override
    public ClusterManager cloneFromTemplate() {
        RingtribeDeltaManager made = new RingtribeDeltaManager();
        clone(made);
        MoreAttributes.copy(this, made);
        made.useDirtyFlag = useDirtyFlag;
        // What stock's own clone sets beside what all managers have.
        made.setExpireSessionsOnShutdown(isExpireSessionsOnShutdown());
        made.setNotifySessionListenersOnReplication(isNotifySessionListenersOnReplication());
        made.setNotifyContainerListenersOnReplication(isNotifyContainerListenersOnReplication());
        made.setStateTransferTimeout(getStateTransferTimeout());
        made.setSendAllSessions(isSendAllSessions());
        made.setSendAllSessionsSize(getSendAllSessionsSize());
        made.setSendAllSessionsWaitTime(getSendAllSessionsWaitTime());
        made.setStateTimestampDrop(isStateTimestampDrop());
        made.setEnableStatistics(getEnableStatistics());
        return made;
    }
}
