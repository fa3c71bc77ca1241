package org.ringtribe.tomcat;

import java.io.IOException;
import java.io.NotSerializableException;
import java.io.ObjectOutputStream;
import java.io.OutputStream;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;

import org.apache.catalina.ha.session.DeltaRequest;

/**
 * A difference that loses one attribute if that cannot be serialized; stock's loses all. The attribute
 * is removed on the other nodes: an older value there would pass for the present one.
 */
public class TolerantDeltaRequest extends DeltaRequest {

    /** The session whose difference this thread serializes: requests are pooled and belong to none. */
    static final ThreadLocal<RingtribeDeltaSession> OF = new ThreadLocal<>();

    private final transient Map<String,Object> values = new LinkedHashMap<>();
    private final transient Set<String> removed = new HashSet<>();
    private transient boolean principalChanged;

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
                removed.remove(name);
            } else {
                values.remove(name);
                removed.add(name);
            }
        }
        principalChanged |= type == TYPE_PRINCIPAL;
        super.addAction(type, action, name, value);
    }

    @Override
    public void reset() {
        super.reset();
        if (values != null) {
            values.clear();
            removed.clear();
        }
        principalChanged = false;
    }

    @Override
    public void clear() {
        super.clear();
        values.clear();
        removed.clear();
        principalChanged = false;
    }

    /** @return names of attributes that are set or removed by it */
    Set<String> changedAttributes() {
        Set<String> names = new HashSet<>(values.keySet());
        names.addAll(removed);
        return names;
    }

    boolean isPrincipalChanged() {
        return principalChanged;
    }

    @Override
    protected byte[] serialize() throws IOException {
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
