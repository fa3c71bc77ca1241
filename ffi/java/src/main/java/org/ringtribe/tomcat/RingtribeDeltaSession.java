package org.ringtribe.tomcat;

import java.io.IOException;
import java.io.NotSerializableException;
import java.io.ObjectOutputStream;
import java.io.OutputStream;
import java.security.DigestOutputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
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

    /** For serialization. */
    public RingtribeDeltaSession() {
        this(null);
    }

    public RingtribeDeltaSession(Manager manager) {
        super(manager);
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
        TolerantDeltaRequest.OF.set(this);
        try {
            return super.getDiff();
        } finally {
            TolerantDeltaRequest.OF.remove();
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
            came.execute(this, of.isNotifyListenersOnReplication());
            setPrimarySession(false);
        } finally {
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
            setting = Thread.currentThread();
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
