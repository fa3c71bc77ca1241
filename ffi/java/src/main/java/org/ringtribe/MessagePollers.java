package org.ringtribe;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;

/**
 * The threads that take messages and run listeners. The one that would leave nobody waiting starts
 * another before it runs a listener, so that listeners may wait for messages that come later; for
 * the same reason the last that waits never goes, however long it is idle.
 *
 * <p>Messages go round among those that wait, so none of them need be idle for long though one would
 * do. Hence those go as well without which there was always somebody waiting, for the time after which
 * an idle one goes.
 */
final class MessagePollers {

    private static final int FIRST_BUFFER_BYTES = 256 << 10;
    private static final long PAUSE_NANOS = TimeUnit.SECONDS.toNanos(1);

    private final Engine engine;
    private final int least;
    private final int most;
    private final long idleNanos;
    private final Engine.MessageHandler handler;
    private final AtomicInteger count = new AtomicInteger();
    /** Those that run no listener. */
    private final AtomicInteger idle = new AtomicInteger();
    /** Fewest of these since {@link #periodStart}. */
    private final AtomicInteger leastIdle = new AtomicInteger(Integer.MAX_VALUE);
    private final AtomicLong periodStart = new AtomicLong(System.nanoTime());
    /** So many may go, since the last period did without them. */
    private final AtomicInteger surplus = new AtomicInteger();
    private volatile boolean stopped;

    MessagePollers(Engine engine, int least, int most, long idleMillis, Engine.MessageHandler handler) {
        this.engine = engine;
        this.least = Math.max(1, least);
        this.most = Math.max(this.least, most);
        this.idleNanos = TimeUnit.MILLISECONDS.toNanos(idleMillis);
        this.handler = handler;
    }

    void start() {
        for (int n = 0; n < least; n++) {
            startOne();
        }
    }

    void stop() {
        stopped = true;
    }

    int count() {
        return count.get();
    }

    Engine.MessageHandler handler() {
        return handler;
    }

    private void startOne() {
        int now = count.get();
        while (now < most && !stopped) {
            if (count.compareAndSet(now, now + 1)) {
                idle.incrementAndGet();
                if (!engine.startPoller("Receiver", false, FIRST_BUFFER_BYTES, this::run)) {
                    idle.decrementAndGet();
                    count.decrementAndGet();
                }
                return;
            }
            now = count.get();
        }
    }

    private void run(Poller poller) {
        boolean left = false;
        try {
            long idleSince = System.nanoTime();
            while (!stopped && !poller.isClosed()) {
                Records records = poll(poller);
                if (records != null) {
                    int others = idle.decrementAndGet();
                    if (others == 0) {
                        startOne();
                    }
                    leastIdle.accumulateAndGet(others, Math::min);
                    try {
                        int index = 0;
                        while (records.advance()) {
                            poller.outcome(index++, engine.handle(handler, records));
                        }
                    } finally {
                        idle.incrementAndGet();
                    }
                    idleSince = System.nanoTime();
                    if (isSurplus(idleSince) && leave()) {
                        left = true;
                        return;
                    }
                } else if (System.nanoTime() - idleSince > idleNanos && leave()) {
                    left = true;
                    return;
                }
            }
        } finally {
            if (!left) {
                idle.decrementAndGet();
                count.decrementAndGet();
            }
        }
    }

    private Records poll(Poller poller) {
        try {
            return poller.poll();
        } catch (OutOfMemoryError e) {
            engine.report("no direct memory for a message that waits; raise -XX:MaxDirectMemorySize: " + e);
            LockSupport.parkNanos(PAUSE_NANOS);
            return null;
        }
    }

    private boolean isSurplus(long now) {
        long start = periodStart.get();
        if (now - start > idleNanos && periodStart.compareAndSet(start, now)) {
            // One waits in any case.
            surplus.set(leastIdle.getAndSet(Integer.MAX_VALUE) - 1);
        }
        return decrementAbove(surplus, 0);
    }

    /** Whether this one may go: enough stay, and one of them waits. Of two that ask at once one stays. */
    private boolean leave() {
        if (!decrementAbove(idle, 1)) {
            return false;
        }
        if (!decrementAbove(count, least)) {
            idle.incrementAndGet();
            return false;
        }
        return true;
    }

    private static boolean decrementAbove(AtomicInteger number, int least) {
        int now = number.get();
        while (now > least) {
            if (number.compareAndSet(now, now - 1)) {
                return true;
            }
            now = number.get();
        }
        return false;
    }
}
