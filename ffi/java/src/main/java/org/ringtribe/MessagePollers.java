package org.ringtribe;

import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;

/**
 * The threads that take messages and run listeners. When none is left that waits, another one starts
 * before the last runs a listener, so that listeners may wait for messages that come later.
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
                if (!engine.startPoller("Receiver", false, FIRST_BUFFER_BYTES, this::run)) {
                    count.decrementAndGet();
                }
                return;
            }
            now = count.get();
        }
    }

    private void run(Poller poller) {
        boolean counted = true;
        try {
            long idleSince = System.nanoTime();
            while (!stopped && !poller.isClosed()) {
                Records records = poll(poller);
                if (records != null) {
                    if (records.wantsMorePollers()) {
                        startOne();
                    }
                    int index = 0;
                    while (records.advance()) {
                        poller.outcome(index++, engine.handle(handler, records));
                    }
                    idleSince = System.nanoTime();
                } else if (System.nanoTime() - idleSince > idleNanos && leave()) {
                    counted = false;
                    return;
                }
            }
        } finally {
            if (counted) {
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

    /** Whether this one may go; of two that ask at once for the last place, one stays. */
    private boolean leave() {
        int now = count.get();
        while (now > least) {
            if (count.compareAndSet(now, now - 1)) {
                return true;
            }
            now = count.get();
        }
        return false;
    }
}
