package org.ringtribe.tomcat;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

/**
 * What two managers tell each other when they reconcile their sessions, as the payload of a SessionMessage
 * whose event stock's managers do not know, and so ignore.
 *
 * <p>One of the two begins and sends digests, block by block in the order of the ids; the other one compares
 * them with its own sessions, sends those where it is ahead, and answers which it wants.
 */
final class ReconcileMessage {

    /** The event of all of them; those of stock are below 17. */
    static final int EVENT = 0x5254;

    private static final int FORMAT = 1;
    private static final long RENAMED = 1;
    /** No entry is shorter: an id, and what it is. */
    private static final int SHORTEST_ENTRY_BYTES = 3;

    /** What a message says. */
    enum Kind {
        /** Begin, please. */
        ASK,
        /** What the sender has of some ids. */
        DIGEST,
        /** Sessions. */
        STATE,
        /** The block of digests is dealt with; what is wanted of it. */
        ANSWER,
        /** It is over. */
        END
    }

    /** What a node knows of a session. */
    enum Knowledge {
        /** It has a copy. */
        HELD,
        /** It has ended. */
        ENDED,
        /** Nothing. */
        UNKNOWN,
        /** In an answer: both sides changed it, and the copy of the node that answers stays. */
        OVERRULED,
        /** In an answer: its copy is the same, and was used later. */
        USED
    }

    /** One session. */
    static final class Entry {
        final String id;
        final Knowledge knowledge;
        /** ms since 1970, as the next two. */
        final long createdAt;
        final long accessedAt;
        /** When it was changed last, by the clock of who changed it; of one that ended whether by another id. */
        final long changedAt;
        final SessionVersion changes;
        /** Ended, since nobody used it; or, in an answer, both sides changed it. */
        final boolean flag;

        private Entry(String id, Knowledge knowledge, long createdAt, long accessedAt, long changedAt,
                SessionVersion changes, boolean flag) {
            this.id = id;
            this.knowledge = knowledge;
            this.createdAt = createdAt;
            this.accessedAt = accessedAt;
            this.changedAt = changedAt;
            this.changes = changes;
            this.flag = flag;
        }

        static Entry held(RingtribeDeltaSession session, boolean isConflict) {
            session.lock();
            try {
                return new Entry(session.getIdInternal(), Knowledge.HELD, session.getCreationTimeInternal(),
                        session.getThisAccessedTimeInternal(), session.changedAt(), session.changes(), isConflict);
            } finally {
                session.unlock();
            }
        }

        static Entry ended(String id, ExpiredSessions.End end) {
            return new Entry(id, Knowledge.ENDED, end.createdAt, end.accessedAt, end.renamed == null ? 0 : RENAMED,
                    end.renamed == null ? SessionVersion.NONE : end.renamed, end.isIdle);
        }

        static Entry unknown(String id) {
            return new Entry(id, Knowledge.UNKNOWN, 0, 0, 0, SessionVersion.NONE, false);
        }

        static Entry used(RingtribeDeltaSession session) {
            return new Entry(session.getIdInternal(), Knowledge.USED, 0, session.getThisAccessedTimeInternal(), 0,
                    SessionVersion.NONE, false);
        }

        static Entry overruled(String id) {
            return new Entry(id, Knowledge.OVERRULED, 0, 0, 0, SessionVersion.NONE, true);
        }

        ExpiredSessions.End end() {
            return new ExpiredSessions.End(createdAt, accessedAt, flag, changedAt == RENAMED ? changes : null);
        }

        private void write(DataOutputStream out) throws IOException {
            out.writeUTF(id);
            out.writeByte(knowledge.ordinal());
            if (knowledge != Knowledge.UNKNOWN && knowledge != Knowledge.OVERRULED) {
                out.writeLong(createdAt);
                out.writeLong(accessedAt);
                out.writeBoolean(flag);
                out.writeLong(changedAt);
                changes.write(out);
            }
        }

        private static Entry read(DataInputStream in) throws IOException {
            String id = in.readUTF();
            Knowledge knowledge = constant(Knowledge.values(), in.readUnsignedByte());
            if (knowledge == Knowledge.UNKNOWN) {
                return unknown(id);
            }
            if (knowledge == Knowledge.OVERRULED) {
                return overruled(id);
            }
            long createdAt = in.readLong();
            long accessedAt = in.readLong();
            boolean flag = in.readBoolean();
            return new Entry(id, knowledge, createdAt, accessedAt, in.readLong(), SessionVersion.read(in), flag);
        }
    }

    final Kind kind;
    /** Names the whole exchange, from its first digest to its end. */
    final long round;
    /** Of digests and their answer. */
    int block;
    /** All sessions are compared: what a block of digests does not name between its ends is not there. */
    boolean isWhole;
    /** Exclusive; empty for the first block. */
    String from = "";
    /** Inclusive; empty for the last block, which has no end. */
    String to = "";
    /** Digests; or, in an answer, what is wanted, what has ended, and conflicts that the answering node decided for its own copy. */
    final List<Entry> entries = new ArrayList<>();
    /** As {@link StateBlocks} writes them. */
    byte[] sessions = new byte[0];

    ReconcileMessage(Kind kind, long round) {
        this.kind = kind;
        this.round = round;
    }

    byte[] encode() throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        DataOutputStream out = new DataOutputStream(bytes);
        out.writeByte(FORMAT);
        out.writeByte(kind.ordinal());
        out.writeLong(round);
        out.writeInt(block);
        out.writeBoolean(isWhole);
        out.writeUTF(from);
        out.writeUTF(to);
        out.writeInt(entries.size());
        for (Entry entry : entries) {
            entry.write(out);
        }
        out.writeInt(sessions.length);
        out.write(sessions);
        return bytes.toByteArray();
    }

    /** @throws IOException it is cut off, or none, or of a later format */
    static ReconcileMessage decode(byte[] data) throws IOException {
        DataInputStream in = new DataInputStream(new ByteArrayInputStream(data == null ? new byte[0] : data));
        int format = in.readUnsignedByte();
        if (format != FORMAT) {
            throw new IOException("its format is " + format + ", this node knows " + FORMAT);
        }
        Kind kind = constant(Kind.values(), in.readUnsignedByte());
        ReconcileMessage message = new ReconcileMessage(kind, in.readLong());
        message.block = in.readInt();
        message.isWhole = in.readBoolean();
        message.from = in.readUTF();
        message.to = in.readUTF();
        int count = in.readInt();
        if (count < 0 || count > in.available() / SHORTEST_ENTRY_BYTES) {
            throw new IOException("it says it has " + count + " entries, in " + in.available() + " bytes");
        }
        for (int n = 0; n < count; n++) {
            message.entries.add(Entry.read(in));
        }
        int length = in.readInt();
        if (length < 0 || length > in.available()) {
            throw new IOException("it says it has " + length + " bytes of sessions, in " + in.available());
        }
        message.sessions = new byte[length];
        in.readFully(message.sessions);
        return message;
    }

    private static <T> T constant(T[] values, int ordinal) throws IOException {
        if (ordinal >= values.length) {
            throw new IOException("it has the number " + ordinal + " where " + (values.length - 1) + " is the highest");
        }
        return values[ordinal];
    }
}
