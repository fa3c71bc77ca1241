package org.ringtribe;

import java.nio.charset.StandardCharsets;
import java.util.BitSet;
import java.util.Collection;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Consumer;

/**
 * A node of the native engine. All methods may be called from any thread.
 *
 * <p>Reserved poller threads take replies, completions, membership events and log records from the
 * moment the engine opens; {@link Events} and {@link Completion} must not block. Messages are taken
 * by pollers that {@link #startPollers} starts, and by more of them, up to a maximum, whenever all
 * are busy.
 */
public final class Engine implements AutoCloseable {

    /** Start and stop {@link #membership} receiving and sending. */
    public static final int RECEIVE = 4;
    public static final int SEND = 8;

    /** The native side has so many places for pollers. */
    private static final int POLLERS_LIMIT = 1024;
    private static final long END_MILLIS = 2000;

    /** Takes messages. */
    public interface MessageHandler {
        /**
         * @param message the message; valid during the call
         * @throws Throwable the listener failed; the sender is told if it waits
         */
        void message(Records message) throws Throwable;
    }

    /** Learns what happens; called by the reserved poller and must not block. */
    public interface Events {
        void memberAdded(long id, byte[] memberPackage);

        void memberChanged(long id, byte[] memberPackage);

        void memberGone(long id, byte[] memberPackage, int cause);

        /** Until {@link Engine#repaired} further ones of the member are not told. */
        void gap(long id, boolean here, long messages);

        void log(int level, String text);
    }

    /** Called when a message submitted with it is done. */
    public interface Completion {
        /**
         * @param members members that failed, empty if all went well; null if the engine closed and
         *        nobody knows
         * @param statuses why, for each
         */
        void completed(long[] members, int[] statuses);
    }

    private final long handle;
    private final Events events;
    private final String name;
    private final Map<Long,Completion> completions = new ConcurrentHashMap<>();
    private final AtomicLong nextToken = new AtomicLong();
    private final BitSet pollerIds = new BitSet();
    private final ReservedPollers reserved = new ReservedPollers(this);
    private volatile MessagePollers pollers;

    private Engine(long handle, String name, Events events) {
        this.handle = handle;
        this.name = name;
        this.events = events;
    }

    /**
     * @param config engine attributes by name
     * @param name names the threads
     * @param events learns what happens
     * @return an open engine; nothing listens yet
     * @throws EngineException the configuration is refused, or the machine lacks something
     */
    public static Engine open(Map<String,String> config, String name, Events events) throws EngineException {
        NativeLoader.ensureLoaded();
        StringBuilder lines = new StringBuilder();
        config.forEach((key, value) -> lines.append(key).append('=').append(value).append('\n'));
        byte[] error = new byte[2048];
        long handle = Bridge.open(lines.toString().getBytes(StandardCharsets.UTF_8), error);
        if (handle <= 0) {
            throw refused(error, (int) -handle);
        }
        Engine engine = new Engine(handle, name, events);
        if (!engine.reserved.startOne()) {
            Bridge.close(handle, 0);
            throw new EngineException("no thread could be started; raise the limit of processes (ulimit -u)");
        }
        return engine;
    }

    /**
     * @param given a name that nobody knows
     * @param names those that are known
     * @return a question that has the nearest of them, or all where the native library is absent
     */
    public static String didYouMean(String given, Collection<String> names) {
        if (NativeLoader.whyNot() == null) {
            byte[] text = new byte[256];
            int length = Bridge.nearest(given.getBytes(StandardCharsets.UTF_8),
                    String.join("\n", names).getBytes(StandardCharsets.UTF_8), text);
            if (length > 0) {
                return "did you mean " + new String(text, 0, length, StandardCharsets.UTF_8) + "?";
            }
        }
        return "known are " + String.join(", ", names);
    }

    private static EngineException refused(byte[] text, int length) {
        return new EngineException(new String(text, 0, Math.min(length, text.length), StandardCharsets.UTF_8));
    }

    /**
     * @return "host:port" where peers connect from now on
     * @throws EngineException no such address here, or no free port
     */
    public String listen() throws EngineException {
        byte[] text = new byte[2048];
        int length = Bridge.listen(handle, text);
        if (length < 0) {
            throw refused(text, -length);
        }
        return new String(text, 0, length, StandardCharsets.UTF_8);
    }

    public void stopListening() {
        Bridge.stopListening(handle);
    }

    public void setLocalMember(byte[] memberPackage) {
        int status = Bridge.setLocalMember(handle, memberPackage);
        if (status < 0) {
            throw new IllegalArgumentException(Status.text(-status));
        }
    }

    /**
     * @param operation {@link #RECEIVE} or {@link #SEND}, negative to stop
     * @throws EngineException the group cannot be joined
     */
    public void membership(int operation) throws EngineException {
        byte[] error = new byte[2048];
        int status = Bridge.membership(handle, operation, error);
        if (status < 0) {
            throw refused(error, -status);
        }
    }

    /**
     * Waits until every Ringtribe member has finished what it submitted before it saw this node: a copy
     * of its state that is asked for afterwards holds all that was not sent here.
     *
     * @param timeoutMillis longest wait
     * @return the addresses of those who did not answer, or null if all did
     */
    public String joinBarrier(long timeoutMillis) {
        byte[] text = new byte[4096];
        int length = Bridge.join(handle, timeoutMillis, text);
        return length == 0 ? null : new String(text, 0, Math.min(-length, text.length), StandardCharsets.UTF_8);
    }

    /**
     * @param memberPackage names a member, known to membership or not
     * @return its id, at or above 0, or a negated {@link Status}
     */
    public long enter(byte[] memberPackage) {
        return Bridge.enter(handle, memberPackage);
    }

    /** Sends one datagram to the group; 0 or a negated {@link Status}. */
    public int broadcast(byte[] bytes, int length, int options, long timestamp, byte[] uniqueId) {
        return Bridge.broadcast(handle, bytes, 0, length, options, timestamp, uniqueId);
    }

    /**
     * Sends and waits until all members are done as the options ask.
     *
     * @param key order among other messages, null for none
     * @param statuses receives a {@link Status} for each member if some failed
     * @return 0, the number of members that failed, or a negated {@link Status} of the whole call
     */
    public int send(byte[] bytes, int length, int options, long timestamp, byte[] uniqueId, long[] members, Long key,
            boolean reply, int[] statuses) {
        int flags = flags(key, reply);
        return Bridge.send(handle, bytes, 0, length, options, timestamp, uniqueId, members, members.length,
                key == null ? 0 : key, flags, 0, 0, statuses);
    }

    /**
     * Queues and returns; waits only for room.
     *
     * @param completion called when all members are done; null if nobody wants to know
     * @return as {@link #send}; if not 0, the completion is not called
     */
    public int submit(byte[] bytes, int length, int options, long timestamp, byte[] uniqueId, long[] members, Long key,
            boolean reply, Completion completion, int[] statuses) {
        int flags = flags(key, reply) | Bridge.SUBMIT;
        long token = 0;
        if (completion != null) {
            token = nextToken.getAndIncrement();
            completions.put(token, completion);
            flags |= Bridge.TOKEN;
        }
        int result = Bridge.send(handle, bytes, 0, length, options, timestamp, uniqueId, members, members.length,
                key == null ? 0 : key, flags, 0, token, statuses);
        if (result != 0 && completion != null) {
            completions.remove(token);
        }
        return result;
    }

    private static int flags(Long key, boolean reply) {
        return (key == null ? 0 : Bridge.HAS_KEY) | (reply ? Bridge.REPLY : 0);
    }

    /**
     * Starts pollers for messages.
     *
     * @param least pollers that stay
     * @param most pollers at a time
     * @param idleMillis after which one above {@code least} ends
     */
    public synchronized void startPollers(int least, int most, long idleMillis, MessageHandler handler) {
        stopPollers();
        MessagePollers started = new MessagePollers(this, least, most, idleMillis, handler);
        pollers = started;
        started.start();
    }

    /** Tells the pollers to end after what they are doing. */
    public synchronized void stopPollers() {
        MessagePollers running = pollers;
        if (running != null) {
            running.stop();
            pollers = null;
        }
    }

    /** @return threads that take messages now */
    public int pollersCount() {
        MessagePollers running = pollers;
        return running == null ? 0 : running.count();
    }

    /** What a member and this node missed of each other is dealt with; what they missed since is told by a new gap. */
    public void repaired(long member) {
        Bridge.repaired(handle, member);
    }

    /** @return what the node counts, as lines name=value */
    public String describe() {
        byte[] text = new byte[8192];
        int length = Bridge.describe(handle, text);
        return length < 0 ? "" : new String(text, 0, length, StandardCharsets.UTF_8);
    }

    @Override
    public void close() {
        close(5000);
    }

    /**
     * Closes in order: goodbye, what is queued within {@code graceMillis}, the rest fails. Completions
     * have been called when it returns, unless it is called by one.
     */
    public void close(long graceMillis) {
        Bridge.close(handle, graceMillis);
        stopPollers();
        reserved.awaitEnd(END_MILLIS);
        for (Long token : completions.keySet()) {
            Completion left = completions.remove(token);
            if (left != null) {
                left.completed(null, null);
            }
        }
    }

    /**
     * Starts a daemon thread that polls.
     *
     * @return false if the machine or the native side has no place for it; that is in the log
     */
    boolean startPoller(String role, boolean isReserved, int bufferBytes, Consumer<Poller> run) {
        int id;
        synchronized (pollerIds) {
            id = pollerIds.nextClearBit(0);
            if (id >= POLLERS_LIMIT) {
                return false;
            }
            pollerIds.set(id);
        }
        boolean started = false;
        try {
            Poller poller = new Poller(handle, id, isReserved, bufferBytes);
            Thread thread = new Thread(() -> {
                try {
                    run.accept(poller);
                } finally {
                    free(id);
                }
            }, "Ringtribe-" + role + "[" + name + "]-" + id);
            thread.setDaemon(true);
            thread.start();
            started = true;
        } catch (OutOfMemoryError e) {
            // No native thread or no buffer: those that run go on.
            report("a poller could not be started: " + e);
        } finally {
            if (!started) {
                free(id);
            }
        }
        return started;
    }

    private void free(int id) {
        synchronized (pollerIds) {
            pollerIds.clear(id);
        }
    }

    /** Writes to the log what no caller can be told. */
    void report(String text) {
        events.log(3, text);
    }

    /** Runs the listener of a message and answers its outcome. */
    int handle(MessageHandler handler, Records record) {
        try {
            handler.message(record);
            return Status.OK;
        } catch (VirtualMachineError e) {
            report("a listener failed: " + e);
        } catch (Throwable t) {
            // The handler logs what its application should know; the sender learns of the failure.
            events.log(0, "a listener failed: " + t);
        }
        return Status.REMOTE_FAILED;
    }

    int handleReply(Records record) {
        MessagePollers running = pollers;
        return running == null ? Status.CLOSED : handle(running.handler(), record);
    }

    /** Hands an event on; called in the order of the events. */
    void event(Records records) {
        try {
            dispatch(records);
        } catch (RuntimeException e) {
            report("an event was not handled: " + e);
        }
    }

    private void dispatch(Records records) {
        switch (records.type()) {
            case Records.MEMBER_ADDED:
                events.memberAdded(records.member(), records.memberPackage());
                break;
            case Records.MEMBER_CHANGED:
                events.memberChanged(records.member(), records.memberPackage());
                break;
            case Records.MEMBER_GONE:
                events.memberGone(records.member(), records.memberPackage(), records.cause());
                break;
            case Records.COMPLETED:
                Completion completion = completions.remove(records.token());
                if (completion != null) {
                    long[] members = new long[records.failures()];
                    int[] statuses = new int[members.length];
                    for (int n = 0; n < members.length; n++) {
                        members[n] = records.failedMember(n);
                        statuses[n] = records.failedStatus(n);
                    }
                    completion.completed(members, statuses);
                }
                break;
            case Records.GAP:
                events.gap(records.member(), records.gapHere(), records.gapMessages());
                break;
            case Records.LOG:
                events.log(records.logLevel(), records.logText());
                break;
            default:
                events.log(2, "a record of unknown type " + records.type());
        }
    }
}
