package org.ringtribe.tomcat;

import java.io.IOException;
import java.io.NotSerializableException;
import java.io.ObjectOutputStream;
import java.io.OutputStream;
import java.security.DigestOutputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.security.Principal;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

import org.apache.catalina.Manager;
import org.apache.catalina.ha.session.ClusterManagerBase;
import org.apache.catalina.ha.session.DeltaRequest;
import org.apache.catalina.ha.session.DeltaSession;
import org.apache.catalina.tribes.io.ReplicationStream;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/** A session of a {@link RingtribeDeltaManager}; on the wire it is a {@link DeltaSession}. */
public class RingtribeDeltaSession extends DeltaSession {

    private static final Log log = LogFactory.getLog(RingtribeDeltaSession.class);
    private static final long serialVersionUID = 1L;
    private static final int HASH_CHARS = 8;
    private static final long MILLIS = 1000;

    /** Types that cannot be changed in place. */
    private static final Set<Class<?>> FIXED = new HashSet<>(Arrays.asList(String.class, Boolean.class, Character.class,
            Byte.class, Short.class, Integer.class, Long.class, Float.class, Double.class));

    /** Held from taking a difference until the engine has it. */
    private final transient Object order = new Object();
    /** What each attribute was when it was last sent; guarded by {@link #order}. */
    private final transient Map<String,byte[]> sent = new HashMap<>();
    /** Of the difference that was submitted last; guarded by {@link #order}. */
    private transient Outcome last;
    /** Who has a copy. */
    private final transient Copies.Copy copy = new Copies.Copy();
    /** The thread that sets an attribute. */
    private transient volatile Thread setting;
    /** Attributes that are changed and not in a difference yet; guarded by {@link #lock()}. */
    private final transient Set<String> unsent = new HashSet<>();
    /** Of what another node may change at the same time; guarded by {@link #lock()}. */
    private final transient AttributeOrder changed = new AttributeOrder();
    /** The difference that is applied here; guarded by {@link #lock()}. */
    private transient AttributeOrder.Change arrived;
    /** The node that takes differences, null if nobody counts them; guarded by {@link #order}. */
    private transient Long taking;
    /** When the last one was taken, microseconds since 1970; guarded by {@link #order}. */
    private transient long sentAt;
    /** What the copy held when the last difference was taken; guarded by {@link #order}. */
    private transient SessionVersion sentChanges = SessionVersion.NONE;
    /** Whether the lock is held for a difference; guarded by {@link #order}. */
    private transient boolean isTaking;
    private transient boolean isApplying;
    private transient volatile boolean isNamed = true;
    /** What this copy holds; written under {@link #lock()}. */
    private transient volatile SessionVersion changes = SessionVersion.NONE;
    /** When it was changed last, by the clock of who changed it, microseconds since 1970; written under {@link #lock()}. */
    private transient volatile long changedAt;

    /** For serialization. */
    public RingtribeDeltaSession() {
        this(null);
    }

    public RingtribeDeltaSession(Manager manager) {
        super(manager);
    }

    /**
     * {@inheritDoc} Stock's does nothing; its own methods take this lock one by one. No attribute is serialized under it:
     * an application may hold its own lock while it sets one, and its writeObject wants the same lock.
     */
    @Override
    public void lock() {
        diffLock.lock();
    }

    @Override
    public void unlock() {
        diffLock.unlock();
    }

    Copies.Copy copy() {
        return copy;
    }

    Object order() {
        return order;
    }

    /** Called under {@link #order()}. */
    void setLast(Outcome outcome) {
        last = outcome;
    }

    /** @return of the last difference, if it is not known yet; else null; called under {@link #order()} */
    Outcome pending() {
        if (last != null && last.isKnown()) {
            last = null;
        }
        return last;
    }

    SessionVersion changes() {
        return changes;
    }

    long changedAt() {
        return changedAt;
    }

    /** Called under {@link #lock()}, or before anybody else knows the session. */
    void setChanges(SessionVersion changes, long changedAt) {
        this.changes = changes;
        this.changedAt = changedAt;
    }

    /**
     * A change was made here, or came. Called under {@link #lock()}.
     *
     * @param sent the version that the change made; null if nobody counted it: it is made here, or by a stock node
     * @param at the clock of who changed it, microseconds since 1970
     * @return false if an earlier change is missing here: the version stays what it was
     */
    boolean changed(SessionVersion sent, long writer, long at) {
        if (sent != null && !changes.holds(sent.beforeChangeBy(writer))) {
            return false;
        }
        changes = sent == null ? changes.changedBy(writer) : changes.and(sent);
        changedAt = Math.max(changedAt, at);
        return true;
    }

    /** The next difference is one of this node. Called under {@link #order()}. */
    void takenBy(long writer) {
        taking = writer;
    }

    /** @return when the last difference was made, as in {@link #changed}; called under {@link #order()} */
    long sentAt() {
        return sentAt;
    }

    /** @return what the copy held then; called under {@link #order()} */
    SessionVersion sentChanges() {
        return sentChanges;
    }

    /**
     * From here on changes belong to the next difference. This one is later than all that is here, whatever the clocks of
     * who changed that say; what comes while it is written is not known to it.
     */
    void differenceTaken() {
        if (taking != null) {
            sentAt = Math.max(AttributeOrder.now(), changedAt + 1);
            AttributeOrder.Change change = new AttributeOrder.Change(sentAt, taking);
            unsent.forEach(name -> changed.takes(name, change));
            changed(null, taking, sentAt);
            sentChanges = changes;
        }
        sentAll();
        isTaking = false;
        unlock();
    }

    /**
     * Applies a difference of another node, but for what was changed later, here or elsewhere, by somebody who did not
     * know it. Called under {@link #lock()}.
     *
     * @param sent as in {@link #changed}
     * @return as {@link #changed} does
     */
    boolean apply(byte[] difference, SessionVersion sent, long writer, long at) throws IOException, ClassNotFoundException {
        if (sent == null || sent.holds(changes)) {
            changed.clear();
        }
        arrived = new AttributeOrder.Change(at, writer);
        try {
            deserializeAndExecuteDeltaRequest(difference);
        } finally {
            arrived = null;
        }
        return changed(sent, writer, at);
    }

    /** @return whether this change of a part is made: it is one of here, or there is no later one */
    private boolean takes(String name) {
        // What a request has changed and not sent yet will be later.
        return !isApplying || !unsent.contains(name) && (arrived == null || changed.takes(name, arrived));
    }

    /** This copy stays, and with it counts what another one was changed by. */
    void absorb(SessionVersion other) {
        lock();
        try {
            changes = changes.and(other);
        } finally {
            unlock();
        }
    }

    /**
     * The same copy was used at another node, and later than here: that node is to end it when nobody uses it any more.
     *
     * @param at ms since 1970
     */
    void usedElsewhere(long at) {
        lock();
        try {
            if (at > thisAccessedTime) {
                lastAccessedTime = Math.max(lastAccessedTime, at);
                thisAccessedTime = at;
                setPrimarySession(false);
            }
        } finally {
            unlock();
        }
    }

    /** @return whether it has not ended, nor must end now because nobody used it */
    boolean isLive() {
        if (!isValid) {
            return false;
        }
        return maxInactiveInterval <= 0 || !isIdle(isPrimarySession() ? 1 : 2);
    }

    private boolean isIdle(int times) {
        boolean isUsed = accessCount != null && accessCount.get() > 0;
        return !isUsed && maxInactiveInterval > 0 && getIdleTimeInternal() / MILLIS >= (long) times * maxInactiveInterval;
    }

    /** @return how it ends if it does so now */
    ExpiredSessions.End end() {
        return new ExpiredSessions.End(creationTime, thisAccessedTime, isIdle(1), null);
    }

    /** {@inheritDoc} A copy that nobody used does not end the session: it may be in use elsewhere. */
    @Override
    public void expire(boolean notify, boolean notifyCluster) {
        if (isValid && notifyCluster && getManager() instanceof RingtribeDeltaManager) {
            ((RingtribeDeltaManager) getManager()).copies().ended(this);
        }
        super.expire(notify, notifyCluster);
    }

    /**
     * Takes over a newer copy. What a running request has changed and not sent yet stays. Called under
     * {@link #lock()}.
     */
    void become(RingtribeDeltaSession newer, boolean notify) {
        for (String name : keys()) {
            if (!unsent.contains(name) && !newer.attributes.containsKey(name) && !exclude(name, attributes.get(name))) {
                removeAttributeInternal(name, notify, false);
            }
        }
        for (Map.Entry<String,Object> entry : newer.attributes.entrySet()) {
            if (!unsent.contains(entry.getKey())) {
                setAttribute(entry.getKey(), entry.getValue(), notify, false);
            }
        }
        if (!unsent.contains(AttributeOrder.PRINCIPAL)) {
            setPrincipal(newer.getPrincipal(), false);
        }
        notes.putAll(newer.notes);
        listeners = newer.listeners;
        creationTime = newer.creationTime;
        maxInactiveInterval = newer.maxInactiveInterval;
        isNew = newer.isNew;
        lastAccessedTime = Math.max(lastAccessedTime, newer.lastAccessedTime);
        thisAccessedTime = Math.max(thisAccessedTime, newer.thisAccessedTime);
        changes = newer.changes;
        changedAt = newer.changedAt;
        setPrimarySession(false);
    }

    /** No request uses it. */
    void idle() {
        setAccessCount(0);
    }

    /** @return its id for a log, where the id itself would be a key to the session */
    String hash() {
        return hash(getIdInternal());
    }

    /** @return a session's id as a log may have it */
    static String hash(String id) {
        return id == null ? "?" : hex(digest().digest(id.getBytes(java.nio.charset.StandardCharsets.UTF_8)));
    }

    private static String hex(byte[] bytes) {
        StringBuilder text = new StringBuilder();
        for (byte b : bytes) {
            text.append(String.format("%02x", b));
        }
        return text.substring(0, HASH_CHARS);
    }

    private static MessageDigest digest() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError("every JRE has SHA-256", e);
        }
    }

    @Override
    protected DeltaRequest createRequest(String sessionId, boolean recordAllActions) {
        return new TolerantDeltaRequest(sessionId, recordAllActions);
    }

    @Override
    public byte[] getDiff() throws IOException {
        synchronized (order) {
            TolerantDeltaRequest.OF.set(this);
            lock();
            isTaking = true;
            try {
                // Until the request for it is exchanged, and is to be written.
                return super.getDiff();
            } finally {
                TolerantDeltaRequest.OF.remove();
                if (isTaking) {
                    isTaking = false;
                    unlock();
                }
            }
        }
    }

    private void sentAll() {
        // Null while stock's constructor runs.
        if (unsent != null) {
            unsent.clear();
        }
    }

    @Override
    public void setId(String id) {
        isNamed = false;
        try {
            super.setId(id);
        } finally {
            isNamed = true;
        }
    }

    @Override
    public void setId(String id, boolean notify) {
        if (notify) {
            // It is made, and its listeners are told.
            super.setId(id, true);
            return;
        }
        lock();
        try {
            super.setId(id, false);
        } finally {
            unlock();
        }
    }

    /** {@inheritDoc} Where there is no other member nobody is sent what was changed: it is a change all the same. */
    @Override
    public void resetDeltaRequest() {
        // Not while stock's constructor runs, nor while it is made.
        if (isNamed && getManager() instanceof RingtribeDeltaManager) {
            ((RingtribeDeltaManager) getManager()).keptToItself(this);
        }
        noDifference();
    }

    /** What is in it is what the others have. */
    void noDifference() {
        lock();
        try {
            sentAll();
            super.resetDeltaRequest();
        } finally {
            unlock();
        }
    }

    @Override
    public void setPrincipal(Principal principal, boolean addDeltaRequest) {
        lock();
        try {
            if (!addDeltaRequest && !takes(AttributeOrder.PRINCIPAL)) {
                return;
            }
            if (addDeltaRequest) {
                unsent.add(AttributeOrder.PRINCIPAL);
            }
            super.setPrincipal(principal, addDeltaRequest);
        } finally {
            unlock();
        }
    }

    @Override
    public void setMaxInactiveInterval(int interval, boolean addDeltaRequest) {
        lock();
        try {
            // Null while stock's constructor runs.
            if (unsent != null && !addDeltaRequest && !takes(AttributeOrder.MAX_INACTIVE_INTERVAL)) {
                return;
            }
            if (unsent != null && addDeltaRequest) {
                unsent.add(AttributeOrder.MAX_INACTIVE_INTERVAL);
            }
            super.setMaxInactiveInterval(interval, addDeltaRequest);
        } finally {
            unlock();
        }
    }

    @Override
    protected void removeAttributeInternal(String name, boolean notify, boolean addDeltaRequest) {
        lock();
        try {
            if (!addDeltaRequest && !takes(name)) {
                return;
            }
            if (addDeltaRequest && name != null) {
                unsent.add(name);
            }
            super.removeAttributeInternal(name, notify, addDeltaRequest);
        } finally {
            unlock();
        }
    }

    /**
     * {@inheritDoc} What a request has changed here, and not sent yet, stays to be sent; stock puts the difference that
     * came in its place, and empties that.
     */
    @Override
    protected void deserializeAndExecuteDeltaRequest(byte[] delta) throws IOException, ClassNotFoundException {
        if (!(getManager() instanceof ClusterManagerBase)) {
            return;
        }
        ClusterManagerBase of = (ClusterManagerBase) getManager();
        DeltaRequest came = createRequest(null, of.isRecordAllActions());
        try (ReplicationStream in = of.getReplicationStream(delta)) {
            came.readExternal(in);
        }
        lock();
        try {
            // It may have been sent before the session got the id that it has now.
            came.setSessionId(getIdInternal());
            isApplying = true;
            came.execute(this, of.isNotifyListenersOnReplication());
            setPrimarySession(false);
        } finally {
            isApplying = false;
            unlock();
        }
    }

    /**
     * Puts what was changed since it was last sent into the difference: an attribute whose serialized
     * form is another one. Called under {@link #order()}.
     */
    void findChanged() {
        Set<String> names = new HashSet<>(Arrays.asList(keys()));
        sent.keySet().retainAll(names);
        for (String name : names) {
            Object value = attributes.get(name);
            if (value == null || FIXED.contains(value.getClass()) || value instanceof Enum || exclude(name, value)) {
                continue;
            }
            try {
                byte[] now = digest(value);
                if (!Arrays.equals(now, sent.put(name, now))) {
                    setAttribute(name, value, false, true);
                }
            } catch (IOException | RuntimeException e) {
                // Named when it is sent; or another request changes it right now, and that one will send it.
                sent.remove(name);
            }
        }
    }

    private static byte[] digest(Object value) throws IOException {
        DigestOutputStream digested = new DigestOutputStream(new OutputStream() {
            @Override
            public void write(int b) {
                // Only its digest is wanted.
            }

            @Override
            public void write(byte[] bytes, int offset, int length) {
                // Only its digest is wanted.
            }
        }, digest());
        try (ObjectOutputStream out = new ObjectOutputStream(digested)) {
            out.writeObject(value);
        }
        return digested.getMessageDigest().digest();
    }

    @Override
    public void setAttribute(String name, Object value, boolean notify, boolean addDeltaRequest) {
        lock();
        try {
            if (!addDeltaRequest && !takes(name)) {
                return;
            }
            setting = Thread.currentThread();
            if (addDeltaRequest && name != null) {
                unsent.add(name);
            }
            super.setAttribute(name, value, notify, addDeltaRequest);
        } finally {
            setting = null;
            unlock();
        }
    }

    /** {@inheritDoc} What is not is refused by stock when it is set; here it is named when it is to be sent. */
    @Override
    public boolean isAttributeDistributable(String name, Object value) {
        return setting == Thread.currentThread() || super.isAttributeDistributable(name, value);
    }

    /** An attribute of this session cannot be copied. */
    void unserializable(String name, Object value, NotSerializableException e) {
        if (getManager() instanceof RingtribeDeltaManager) {
            ((RingtribeDeltaManager) getManager()).countUnserializable();
        }
        log.error("The attribute \"" + name + "\" of session " + hash() + ", a " + value.getClass().getName()
                + ", is on no other node: " + e.getMessage() + " is not Serializable; make it so, or exclude the attribute "
                + "with sessionAttributeNameFilter of the Manager");
    }
}
