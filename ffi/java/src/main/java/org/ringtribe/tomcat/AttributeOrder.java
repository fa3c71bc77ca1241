package org.ringtribe.tomcat;

import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.HashMap;
import java.util.Map;

/**
 * Of a session: when, and by whom, each of its parts was changed last, as far as another node may have changed it at
 * the same time without knowing. Two nodes that get each other's changes in different orders keep the same one so: the
 * one made last; at the same time, that of the node with the greater number. Guarded by the session's lock.
 */
final class AttributeOrder {

    /** A name that no attribute has: who is logged in. */
    static final String PRINCIPAL = "\0principal";
    /** A name that no attribute has: how long it may be unused. */
    static final String MAX_INACTIVE_INTERVAL = "\0maxInactiveInterval";

    /** An application may use ever new names. */
    private static final int MOST_NAMES = 1024;

    /** One difference. */
    static final class Change {
        private final long at;
        private final long writer;

        /**
         * @param at microseconds since 1970 by the clock of the writer, but later than all changes that it knew
         * @param writer the node
         */
        Change(long at, long writer) {
            this.at = at;
            this.writer = writer;
        }

        private boolean isBefore(Change other) {
            return writer != other.writer && (at != other.at ? at < other.at : Long.compareUnsigned(writer, other.writer) < 0);
        }
    }

    /** Null until there is one. */
    private Map<String,Change> last;

    /** @return microseconds since 1970; Java 8 knows only thousands of them */
    static long now() {
        return ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
    }

    /** All changes so far were known to who made the next one. */
    void clear() {
        last = null;
    }

    /** @return whether this change of a part stays; one that was made later is here already if not */
    boolean takes(String name, Change change) {
        if (last == null) {
            last = new HashMap<>();
        }
        Change there = last.get(name);
        if (there != null && change.isBefore(there)) {
            return false;
        }
        if (there == null && last.size() >= MOST_NAMES) {
            last.values().removeIf(one -> one.isBefore(change) || one.writer == change.writer);
        }
        if (there != null || last.size() < MOST_NAMES) {
            last.put(name, change);
        }
        return true;
    }
}
