package org.ringtribe.tomcat;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.NavigableMap;
import java.util.TreeMap;

/**
 * Sessions that have ended here, or have another id now: an older copy, from a node that did not learn of
 * it, does not bring them back. Of more than {@link #MOST} the first to end is forgotten. Thread-safe.
 */
final class ExpiredSessions {

    static final int MOST = 32_768;

    private final Map<String,End> ends = new LinkedHashMap<String,End>() {
        private static final long serialVersionUID = 1L;

        @Override
        protected boolean removeEldestEntry(Map.Entry<String,End> eldest) {
            return size() > MOST;
        }
    };

    /** How a session ended. */
    static final class End {
        /** When the session was made, ms since 1970: one of the same id that was made later is another one. */
        final long createdAt;
        /** When the copy that ended was used last; ms since 1970. */
        final long accessedAt;
        /** It was not used for too long, which a copy that was used since may contradict. */
        final boolean isIdle;
        /** It got another id, which made this version of it: a later one may have this id again. Else null. */
        final SessionVersion renamed;

        End(long createdAt, long accessedAt, boolean isIdle, SessionVersion renamed) {
            this.createdAt = createdAt;
            this.accessedAt = accessedAt;
            this.isIdle = isIdle;
            this.renamed = renamed;
        }

        /** @return whether a copy of a session of this id must not be kept */
        boolean ends(long copyCreatedAt, long copyAccessedAt, SessionVersion copyChanges) {
            boolean isUsedSince = isIdle && copyAccessedAt > accessedAt;
            boolean isRenamedSince = renamed != null && copyChanges.holds(renamed);
            return copyCreatedAt <= createdAt && !isUsedSince && !isRenamedSince;
        }

        boolean ends(RingtribeDeltaSession copy) {
            return ends(copy.getCreationTimeInternal(), copy.getThisAccessedTimeInternal(), copy.changes());
        }
    }

    synchronized void add(String id, End end) {
        ends.remove(id);
        ends.put(id, end);
    }

    /** @return how it ended, null if it did not, or that is forgotten */
    synchronized End of(String id) {
        return ends.get(id);
    }

    synchronized void remove(String id) {
        ends.remove(id);
    }

    /** @return all, by id */
    synchronized NavigableMap<String,End> byId() {
        return new TreeMap<>(ends);
    }

    synchronized void clear() {
        ends.clear();
    }
}
