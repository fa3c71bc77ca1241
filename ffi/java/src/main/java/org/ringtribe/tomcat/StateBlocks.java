package org.ringtribe.tomcat;

import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.ObjectOutputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

import org.apache.catalina.Session;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.Member;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * Whole sessions as bytes, in the form of stock's: their number, then each. Behind the last one, where
 * stock does not read, stands the {@link SessionVersion} of each. What cannot be written or read costs
 * that session, which is named and counted.
 */
final class StateBlocks {

    private static final Log log = LogFactory.getLog(StateBlocks.class);

    /** What a block should have, in bytes: small enough to wait for, large enough to be worth a message. */
    static final int BLOCK_BYTES = 1 << 20;
    /** One that became larger is sent as two. */
    private static final int MOST_BLOCK_BYTES = 4 * BLOCK_BYTES;
    private static final int FIRST_SESSIONS = 16;
    /** Behind the sessions: "the versions follow". */
    private static final int VERSIONS = 0x52745631;
    /** A log line may not become arbitrarily long. */
    private static final int MOST_NAMED = 8;

    private final RingtribeDeltaManager manager;

    StateBlocks(RingtribeDeltaManager manager) {
        this.manager = manager;
    }

    /** Takes blocks. */
    interface Sink {
        /**
         * @param sessions that are done with it, those that could not be written too
         * @return whether to go on
         */
        boolean block(byte[] data, int sessions) throws IOException, ChannelException;
    }

    /** What became of the sessions of a block. */
    static final class Read {
        /** Of those that could be read. */
        final List<String> ids = new ArrayList<>();
    }

    /**
     * Writes sessions in blocks of at most sendAllSessionsSize, and of about {@link #BLOCK_BYTES}; a block
     * exceeds {@link #MOST_BLOCK_BYTES} only by one session.
     *
     * @param to who gets them
     */
    void write(Session[] sessions, Member to, Sink sink) throws IOException, ChannelException {
        int most = Math.max(1, manager.getSendAllSessionsSize());
        int next = Math.min(most, FIRST_SESSIONS);
        int at = 0;
        while (at < sessions.length) {
            Session[] some = Arrays.copyOfRange(sessions, at, Math.min(sessions.length, at + next));
            byte[] data = write(some, to);
            if (data.length > MOST_BLOCK_BYTES && some.length > 1) {
                next = Math.max(1, some.length / 2);
                continue;
            }
            at += some.length;
            if (!sink.block(data, some.length)) {
                return;
            }
            long average = Math.max(1, data.length / some.length);
            next = (int) Math.max(1, Math.min(most, BLOCK_BYTES / average));
        }
    }

    /**
     * One that cannot be written, or is changed just now, is left out; stock sends none then.
     *
     * @param to who gets them, null if that is not known
     */
    byte[] write(Session[] sessions, Member to) throws IOException {
        try {
            return writeAll(sessions);
        } catch (IOException | RuntimeException e) {
            List<Session> whole = new ArrayList<>();
            List<String> why = new ArrayList<>();
            for (Session session : sessions) {
                try {
                    writeAll(new Session[] { session });
                    whole.add(session);
                } catch (IOException | RuntimeException one) {
                    manager.notWritten((RingtribeDeltaSession) session, to);
                    why.add("session " + ((RingtribeDeltaSession) session).hash() + ": " + one);
                }
            }
            manager.countUnreadable(why.size());
            if (!why.isEmpty()) {
                log.error("The state of " + manager.getName() + " is sent without what cannot be written: " + text(why));
            }
            return writeAll(whole.toArray(new Session[0]));
        }
    }

    private static byte[] writeAll(Session[] sessions) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        ByteArrayOutputStream versions = new ByteArrayOutputStream();
        DataOutputStream versionsOut = new DataOutputStream(versions);
        try (ObjectOutputStream out = new ObjectOutputStream(new BufferedOutputStream(bytes))) {
            out.writeObject(sessions.length);
            for (Session one : sessions) {
                RingtribeDeltaSession session = (RingtribeDeltaSession) one;
                session.lock();
                try {
                    // Before what it is of: a change that is in both is made twice, which is no other than once.
                    session.changes().write(versionsOut);
                    versionsOut.writeLong(session.changedAt());
                } finally {
                    session.unlock();
                }
                session.writeObjectData(out);
            }
            out.writeInt(VERSIONS);
            out.write(versions.toByteArray());
        }
        return bytes.toByteArray();
    }

    private static String text(List<String> why) {
        if (why.size() <= MOST_NAMED) {
            return String.join("; ", why);
        }
        return String.join("; ", why.subList(0, MOST_NAMED)) + "; and " + (why.size() - MOST_NAMED) + " more";
    }

    private static void readVersions(TolerantInput in, List<RingtribeDeltaSession> sessions) {
        try {
            // Stock's ends here.
            if (in.available() < Integer.BYTES || in.readInt() != VERSIONS) {
                return;
            }
            for (RingtribeDeltaSession session : sessions) {
                session.setChanges(SessionVersion.read(in), in.readLong());
            }
        } catch (IOException e) {
            log.warn("The versions of " + sessions.size() + " sessions cannot be read, they count as old ones: " + e);
        }
    }

    /** Takes what a block has, if it is newer than what is here; what cannot be read is passed over, stock ends at it. */
    Read read(byte[] data) throws ClassNotFoundException, IOException {
        List<String> why = new ArrayList<>();
        List<RingtribeDeltaSession> whole = new ArrayList<>();
        List<RingtribeDeltaSession> all = new ArrayList<>();
        int count = 0;
        int done = 0;
        int lost = 0;
        try (TolerantInput in = new TolerantInput(manager.getReplicationStream(data))) {
            count = (Integer) in.readObject();
            while (done < count) {
                RingtribeDeltaSession session = (RingtribeDeltaSession) manager.createEmptySession();
                session.readObjectData(in);
                String missing = in.takeMissing();
                if (missing == null) {
                    whole.add(session);
                } else {
                    why.add("session " + session.hash() + ": " + missing);
                }
                all.add(session);
                done++;
            }
            readVersions(in, all);
        } catch (IOException | ClassNotFoundException | RuntimeException e) {
            if (count == 0) {
                throw e;
            }
            // From here on nobody knows where the next one begins.
            lost = count - done;
            why.add("the last " + lost + " of " + count + " sessions of a message: " + e);
        }
        Read read = new Read();
        for (int n = 0; n < whole.size(); n++) {
            RingtribeDeltaSession session = whole.get(n);
            try {
                manager.copies().take(session);
                read.ids.add(session.getIdInternal());
            } catch (RuntimeException e) {
                // A listener of the application.
                why.add("session " + session.hash() + ": " + e);
            }
        }
        manager.countUnreadable(why.size() + Math.max(0, lost - 1));
        if (!why.isEmpty()) {
            log.error("The state of " + manager.getName() + " came without what could not be read here: " + text(why)
                    + "; give every node the same classes");
        }
        return read;
    }
}
