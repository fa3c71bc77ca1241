package org.ringtribe.tomcat;

import java.io.DataInput;
import java.io.DataOutput;
import java.io.IOException;
import java.util.Arrays;
import java.util.concurrent.TimeUnit;

import org.apache.catalina.tribes.Member;

/**
 * Which changes a copy of a session holds: how many of each node that changed it. Two copies compare:
 * one holds all of the other, or each holds changes that the other has not. It travels at the end of the
 * unique id of a message, which a stock manager does not read. Immutable.
 */
final class SessionVersion {

    /** Of a session that nobody has changed since it was made. */
    static final SessionVersion NONE = new SessionVersion(new long[0], new long[0]);

    /** Before it in the unique id of a message. */
    private static final String MARK = "~changes:";
    /** Before that: when the change was made. */
    private static final String AT = "~at:";
    /**
     * A node that was started again is another one, so that what its former life did and did not send
     * is not mixed up. A session that so many have changed begins a new count, and is copied as a whole once.
     */
    private static final int MOST_WRITERS = 16;
    /** Of one that is read. */
    private static final int LONGEST = 4 * MOST_WRITERS;
    private static final int HEX = 16;

    /** Ascending. */
    private final long[] writers;
    private final long[] counts;

    private SessionVersion(long[] writers, long[] counts) {
        this.writers = writers;
        this.counts = counts;
    }

    /** @return the name of a node in versions; another one after each start */
    static long writer(Member member) {
        byte[] id = member == null ? null : member.getUniqueId();
        long name = 0;
        for (int n = 0; id != null && n < id.length; n++) {
            name = Long.rotateLeft(name, Byte.SIZE) ^ (id[n] & 0xffL);
        }
        return name;
    }

    private long count(long writer) {
        int at = Arrays.binarySearch(writers, writer);
        return at < 0 ? 0 : counts[at];
    }

    /** @return whether each change of the other one is in this one */
    boolean holds(SessionVersion other) {
        for (int n = 0; n < other.writers.length; n++) {
            if (count(other.writers[n]) < other.counts[n]) {
                return false;
            }
        }
        return true;
    }

    /** @return with one more change of this node */
    SessionVersion changedBy(long writer) {
        if (writers.length >= MOST_WRITERS && count(writer) == 0) {
            return new SessionVersion(new long[] { writer }, new long[] { total() + 1 });
        }
        return with(writer, count(writer) + 1);
    }

    /** @return without the last change of this node */
    SessionVersion beforeChangeBy(long writer) {
        long count = count(writer);
        return count == 0 ? this : with(writer, count - 1);
    }

    private SessionVersion with(long writer, long count) {
        int at = Arrays.binarySearch(writers, writer);
        long[] names = writers;
        long[] numbers = Arrays.copyOf(counts, counts.length + (at < 0 ? 1 : 0));
        if (at < 0) {
            at = -at - 1;
            names = Arrays.copyOf(writers, writers.length + 1);
            System.arraycopy(writers, at, names, at + 1, writers.length - at);
            System.arraycopy(counts, at, numbers, at + 1, counts.length - at);
            names[at] = writer;
        }
        numbers[at] = count;
        return new SessionVersion(names, numbers);
    }

    /** @return with the changes of both */
    SessionVersion and(SessionVersion other) {
        if (holds(other)) {
            return this;
        }
        if (other.holds(this)) {
            return other;
        }
        SessionVersion both = this;
        for (int n = 0; n < other.writers.length; n++) {
            if (both.count(other.writers[n]) < other.counts[n]) {
                both = both.with(other.writers[n], other.counts[n]);
            }
        }
        return both;
    }

    long total() {
        long sum = 0;
        for (long count : counts) {
            sum += count;
        }
        return sum;
    }

    /**
     * Of two versions neither of which holds the other: which copy stays. Both nodes decide alike.
     *
     * @param at when this copy was changed last, by the clock of who changed it
     */
    boolean prevailsOver(SessionVersion other, long at, long otherAt) {
        if (at != otherAt) {
            return at > otherAt;
        }
        if (total() != other.total()) {
            return total() > other.total();
        }
        return toString().compareTo(other.toString()) > 0;
    }

    void write(DataOutput out) throws IOException {
        out.writeByte(writers.length);
        for (int n = 0; n < writers.length; n++) {
            out.writeLong(writers[n]);
            out.writeLong(counts[n]);
        }
    }

    /** @throws IOException it is cut off, or none */
    static SessionVersion read(DataInput in) throws IOException {
        int length = in.readUnsignedByte();
        if (length > LONGEST) {
            throw new IOException("a session's version names " + length + " nodes; at most " + LONGEST + " are allowed");
        }
        long[] writers = new long[length];
        long[] counts = new long[length];
        for (int n = 0; n < length; n++) {
            writers[n] = in.readLong();
            counts[n] = in.readLong();
            if (counts[n] < 0 || n > 0 && writers[n] <= writers[n - 1]) {
                throw new IOException("a session's version is none: its nodes are not in order");
            }
        }
        return new SessionVersion(writers, counts);
    }

    /**
     * @param at when the change was made, microseconds since 1970
     * @return a unique id that carries it
     */
    String mark(String uniqueId, long at) {
        return uniqueId + AT + Long.toHexString(at) + MARK + this;
    }

    /** @return when a change was made, microseconds since 1970, as its unique id says, or else its time in ms */
    static long at(String uniqueId, long millis) {
        int end = uniqueId == null ? -1 : uniqueId.lastIndexOf(MARK);
        int at = end < 0 ? -1 : uniqueId.lastIndexOf(AT, end);
        try {
            return at < 0 ? TimeUnit.MILLISECONDS.toMicros(millis)
                    : Long.parseLong(uniqueId.substring(at + AT.length(), end), HEX);
        } catch (NumberFormatException e) {
            return TimeUnit.MILLISECONDS.toMicros(millis);
        }
    }

    /** @return what the unique id of a message carries; null if it carries none, as stock's */
    static SessionVersion ofMarked(String uniqueId) {
        int at = uniqueId == null ? -1 : uniqueId.lastIndexOf(MARK);
        if (at < 0) {
            return null;
        }
        String[] parts = uniqueId.substring(at + MARK.length()).split(",");
        if (parts.length > LONGEST) {
            return null;
        }
        SessionVersion version = NONE;
        for (String part : parts) {
            int colon = part.indexOf(':');
            try {
                long count = colon < 0 ? -1 : Long.parseLong(part.substring(colon + 1), HEX);
                if (count < 0) {
                    return null;
                }
                version = version.with(Long.parseUnsignedLong(part.substring(0, colon), HEX), count);
            } catch (NumberFormatException e) {
                return null;
            }
        }
        return version;
    }

    @Override
    public String toString() {
        StringBuilder text = new StringBuilder();
        for (int n = 0; n < writers.length; n++) {
            text.append(n == 0 ? "" : ",").append(Long.toHexString(writers[n])).append(':')
                    .append(Long.toHexString(counts[n]));
        }
        return text.toString();
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof SessionVersion && Arrays.equals(writers, ((SessionVersion) other).writers)
                && Arrays.equals(counts, ((SessionVersion) other).counts);
    }

    @Override
    public int hashCode() {
        return Arrays.hashCode(writers) ^ Arrays.hashCode(counts);
    }
}
