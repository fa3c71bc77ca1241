package org.ringtribe;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.locks.LockSupport;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The threads that take replies, completions, membership events and log records. One at a time has
 * the turn to poll. It keeps the turn while it hands on an event, so that events stay in order, and
 * gives it away while it runs the listener of a reply: late replies end in callbacks of the
 * application ({@code RpcCallback.leftOver}), and one that blocks must not hold up the rest.
 */
final class ReservedPollers {

    private static final int MOST = 8;
    /** As many may wait for the turn when nothing comes; beyond that the one that has it ends. */
    private static final int WAITING = 1;
    private static final long PAUSE_NANOS = TimeUnit.MILLISECONDS.toNanos(100);

    private final Engine engine;
    private final ReentrantLock turn = new ReentrantLock();
    private final AtomicInteger count = new AtomicInteger();
    private final CountDownLatch ended = new CountDownLatch(1);

    ReservedPollers(Engine engine) {
        this.engine = engine;
    }

    boolean startOne() {
        int now = count.get();
        while (now < MOST) {
            if (count.compareAndSet(now, now + 1)) {
                boolean started = engine.startPoller("Reserved", true, Poller.LEAST_BUFFER_BYTES, this::run);
                if (!started) {
                    count.decrementAndGet();
                }
                return started;
            }
            now = count.get();
        }
        return false;
    }

    /** Waits until everything was taken after a close; a thread of these does not wait for itself. */
    void awaitEnd(long millis) {
        try {
            if (!turn.isHeldByCurrentThread() && !ended.await(millis, TimeUnit.MILLISECONDS)) {
                engine.report("events are left that nobody took");
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private void run(Poller poller) {
        while (!poller.isClosed()) {
            Records reply = null;
            boolean isSpare = false;
            turn.lock();
            try {
                Records records = poller.poll();
                isSpare = records == null && !poller.isClosed() && turn.getQueueLength() > WAITING;
                if (records != null && records.advance()) {
                    if (records.type() == Records.MESSAGE) {
                        reply = records;
                    } else {
                        do {
                            engine.event(records);
                        } while (records.advance());
                    }
                }
            } catch (OutOfMemoryError e) {
                engine.report("no memory for an event or a reply: " + e);
                LockSupport.parkNanos(PAUSE_NANOS);
            } finally {
                turn.unlock();
            }
            if (isSpare) {
                count.decrementAndGet();
                return;
            }
            if (reply != null) {
                if (!turn.hasQueuedThreads()) {
                    startOne();
                }
                int index = 0;
                do {
                    poller.outcome(index++, engine.handleReply(reply));
                } while (reply.advance());
            }
        }
        ended.countDown();
    }
}
