package org.ringtribe.tomcat;

import java.io.IOException;
import java.io.NotSerializableException;
import java.io.ObjectOutputStream;
import java.io.OutputStream;
import java.util.LinkedHashMap;
import java.util.Map;

import org.apache.catalina.ha.session.DeltaRequest;

/**
 * A difference that loses one attribute if that cannot be serialized; stock's loses all. The attribute
 * is removed on the other nodes: an older value there would pass for the present one.
 */
public class TolerantDeltaRequest extends DeltaRequest {

    /** The session whose difference this thread serializes: requests are pooled and belong to none. */
    static final ThreadLocal<RingtribeDeltaSession> OF = new ThreadLocal<>();

    private final transient Map<String,Object> values = new LinkedHashMap<>();
    private final transient Map<String,Object> notes = new LinkedHashMap<>();

    /** For serialization. */
    public TolerantDeltaRequest() {
        this(null, false);
    }

    public TolerantDeltaRequest(String sessionId, boolean recordAllActions) {
        super(sessionId, recordAllActions);
    }

    @Override
    protected void addAction(int type, int action, String name, Object value) {
        if (type == TYPE_ATTRIBUTE && values != null) {
            if (action == ACTION_SET) {
                values.put(name, value);
            } else {
                values.remove(name);
            }
        }
        if (type == TYPE_NOTE && notes != null && action == ACTION_SET) {
            notes.put(name, value);
        }
        super.addAction(type, action, name, value);
    }

    @Override
    public void reset() {
        super.reset();
        if (values != null) {
            values.clear();
            notes.clear();
        }
    }

    @Override
    public void clear() {
        super.clear();
        values.clear();
        notes.clear();
    }

    @Override
    protected byte[] serialize() throws IOException {
        if (OF.get() != null) {
            OF.get().differenceTaken();
        }
        try {
            return super.serialize();
        } catch (NotSerializableException e) {
            for (Map.Entry<String,Object> entry : new LinkedHashMap<>(values).entrySet()) {
                NotSerializableException why = whyNot(entry.getValue());
                if (why != null) {
                    removeAttribute(entry.getKey());
                    RingtribeDeltaSession session = OF.get();
                    if (session != null) {
                        session.unserializable(entry.getKey(), entry.getValue(), why);
                    }
                }
            }
            // What Tomcat itself notes is; what others do, is for their own node.
            for (Map.Entry<String,Object> entry : new LinkedHashMap<>(notes).entrySet()) {
                if (whyNot(entry.getValue()) != null) {
                    removeNote(entry.getKey());
                }
            }
            return super.serialize();
        }
    }

    private static NotSerializableException whyNot(Object value) throws IOException {
        try (ObjectOutputStream out = new ObjectOutputStream(new OutputStream() {
            @Override
            public void write(int b) {
                // Only whether it can be written is asked.
            }
        })) {
            out.writeObject(value);
            return null;
        } catch (NotSerializableException e) {
            return e;
        }
    }
}
