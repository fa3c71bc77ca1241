package org.ringtribe.tomcat;

import java.io.Serializable;

import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.tribes.tipis.AbstractReplicatedMap;

/**
 * What keeps its order: the key of a message, as a 64-bit FNV-1a hash of its name. Messages of one
 * key from one sender arrive in the order of the calls; a message without a key promises none.
 */
final class Keys {

    private static final long FNV_START = 0xcbf29ce484222325L;
    private static final long FNV_PRIME = 0x100000001b3L;

    private Keys() {
    }

    /** @return the key, null for a message without one */
    static Long of(Serializable message) {
        if (message instanceof SessionMessage) {
            SessionMessage session = (SessionMessage) message;
            switch (session.getEventType()) {
                case SessionMessage.EVT_GET_ALL_SESSIONS:
                    // Its handler sends for long and waits: it must not stand in anybody's way.
                    return null;
                case SessionMessage.EVT_ALL_SESSION_DATA:
                case SessionMessage.EVT_ALL_SESSION_TRANSFERCOMPLETE:
                case SessionMessage.EVT_ALL_SESSION_NOCONTEXTMANAGER:
                    // The end of a transfer comes after its data.
                    return hash(hash(FNV_START, 'C'), session.getContextName());
                default:
                    return hash(hash(hash(FNV_START, 'S'), session.getContextName()), withoutRoute(session.getSessionID()));
            }
        }
        if (message instanceof AbstractReplicatedMap.MapMessage) {
            AbstractReplicatedMap.MapMessage map = (AbstractReplicatedMap.MapMessage) message;
            byte[] key = map.getKeyData();
            return key == null ? null : hash(hash(hash(FNV_START, 'M'), map.getMapId()), key);
        }
        return null;
    }

    /** A session that moves gets another route: what was sent before, the change of its id and what follows keep their order. */
    private static String withoutRoute(String id) {
        int dot = id == null ? -1 : id.indexOf('.');
        return dot < 0 ? id : id.substring(0, dot);
    }

    private static long hash(long hash, int value) {
        return (hash ^ (value & 0xff)) * FNV_PRIME;
    }

    private static long hash(long hash, String text) {
        String name = text == null ? "" : text;
        long h = hash;
        for (int n = 0; n < name.length(); n++) {
            h = hash(hash(h, name.charAt(n)), name.charAt(n) >> 8);
        }
        // A separator, so that "a" + "bc" and "ab" + "c" differ.
        return hash(h, 0xff);
    }

    private static long hash(long hash, byte[] bytes) {
        long h = hash;
        for (byte b : bytes) {
            h = hash(h, b);
        }
        return hash(h, 0xff);
    }
}
