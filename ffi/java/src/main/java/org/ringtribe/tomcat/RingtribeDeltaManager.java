package org.ringtribe.tomcat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;

import org.apache.catalina.Session;
import org.apache.catalina.ha.CatalinaCluster;
import org.apache.catalina.ha.ClusterManager;
import org.apache.catalina.ha.ClusterMessage;
import org.apache.catalina.ha.session.DeltaManager;
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
 * <li>an attribute that cannot be serialized costs that attribute, an unreadable session in a transfer
 * of state costs that session; both are named and counted.
 * </ul>
 */
public class RingtribeDeltaManager extends DeltaManager {

    private static final Log log = LogFactory.getLog(RingtribeDeltaManager.class);

    private final AtomicLong unserializable = new AtomicLong();
    private final AtomicLong unreadable = new AtomicLong();
    private final AtomicLong failedReplications = new AtomicLong();
    private boolean useDirtyFlag = true;

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
            return completed(session, sessionId, expires);
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

    private ClusterMessage completed(RingtribeDeltaSession session, String sessionId, boolean expires) {
        if (!useDirtyFlag && !expires) {
            session.findChanged();
        }
        return super.requestCompleted(sessionId, expires);
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
        try {
            return super.serializeSessions(sessions);
        } catch (IOException | RuntimeException e) {
            List<Session> whole = new ArrayList<>();
            List<String> why = new ArrayList<>();
            for (Session session : sessions) {
                try {
                    super.serializeSessions(new Session[] { session });
                    whole.add(session);
                } catch (IOException | RuntimeException one) {
                    why.add("session " + ((RingtribeDeltaSession) session).hash() + ": " + one);
                }
            }
            unreadable.addAndGet(why.size());
            if (!why.isEmpty()) {
                log.error("The state of " + getName() + " is sent without what cannot be written: "
                        + String.join("; ", why));
            }
            return super.serializeSessions(whole.toArray(new Session[0]));
        }
    }

    /** {@inheritDoc} One that cannot be read is passed over; stock ends the transfer at it. */
    @Override
    protected void deserializeSessions(byte[] data) throws ClassNotFoundException, IOException {
        List<String> why = new ArrayList<>();
        int count = 0;
        int done = 0;
        try (TolerantInput in = new TolerantInput(getReplicationStream(data))) {
            count = (Integer) in.readObject();
            while (done < count) {
                RingtribeDeltaSession session = (RingtribeDeltaSession) createEmptySession();
                session.readObjectData(in);
                done++;
                takeOrName(session, in.takeMissing(), why);
            }
        } catch (IOException | ClassNotFoundException | RuntimeException e) {
            if (count == 0) {
                throw e;
            }
            // From here on nobody knows where the next one begins.
            why.add("the last " + (count - done) + " of " + count + " sessions of a message: " + e);
            unreadable.addAndGet(count - done - 1L);
        }
        if (!why.isEmpty()) {
            unreadable.addAndGet(why.size());
            log.error("The state of " + getName() + " came without what could not be read here: " + String.join("; ", why)
                    + "; give every node the same classes");
        }
    }

    private void takeOrName(RingtribeDeltaSession session, String missing, List<String> why) {
        String refused = missing;
        try {
            if (refused == null) {
                take(session);
            }
        } catch (RuntimeException e) {
            // A listener of the application.
            refused = e.toString();
        }
        if (refused != null) {
            why.add("session " + session.hash() + ": " + refused);
        }
    }

    /** As stock does with each session that came; it counts them too, with a field that not every line has. */
    private void take(RingtribeDeltaSession session) {
        session.setManager(this);
        session.setValid(true);
        session.setPrimarySession(false);
        session.access();
        session.idle();
        session.resetDeltaRequest();
        add(session);
        if (isNotifySessionListenersOnReplication()) {
            session.tellNew();
        }
    }

    @Override
    public ClusterManager cloneFromTemplate() {
        RingtribeDeltaManager made = new RingtribeDeltaManager();
        clone(made);
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
