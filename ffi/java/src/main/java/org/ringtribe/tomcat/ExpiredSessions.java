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
    /** While one message is on its way. */
    private static final int MOST_RENAMES = 8;

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
        /** Its id since then; null if it got none, or that is not known. */
        final String id;

        End(long createdAt, long accessedAt, boolean isIdle, SessionVersion renamed) {
            this(createdAt, accessedAt, isIdle, renamed, null);
        }

        End(long createdAt, long accessedAt, boolean isIdle, SessionVersion renamed, String id) {
            this.createdAt = createdAt;
            this.accessedAt = accessedAt;
            this.isIdle = isIdle;
            this.renamed = renamed;
            this.id = id;
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

    /** @return the id that a session has now: another one, if it was changed here and its sender did not know that yet */
    synchronized String idNow(String id) {
        String now = id;
        for (int n = 0; n < MOST_RENAMES; n++) {
            End end = ends.get(now);
            if (end == null || end.id == null) {
                break;
            }
            now = end.id;
        }
        return now;
    }

    /** @return all, by id */
    synchronized NavigableMap<String,End> byId() {
        return new TreeMap<>(ends);
    }

    synchronized void clear() {
        ends.clear();
    }
}
