package org.ringtribe.tomcat;

import java.util.concurrent.CountDownLatch;

import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ErrorHandler;
import org.apache.catalina.tribes.UniqueId;

/** What becomes of a message, awaited by whoever submitted it. The engine ends each by ackTimeout. */
final class Outcome implements ErrorHandler {

    private final CountDownLatch known = new CountDownLatch(1);
    private volatile ChannelException failure;
    private volatile Copies.Change change;

    /** @param learning learns of it before whoever waits */
    void tells(Copies.Change learning) {
        change = learning;
    }

    private void end(ChannelException failed) {
        failure = failed;
        Copies.Change learning = change;
        if (learning != null) {
            learning.acknowledged(failed);
        }
        known.countDown();
    }

    @Override
    public void handleError(ChannelException e, UniqueId id) {
        end(e);
    }

    @Override
    public void handleCompletion(UniqueId id) {
        end(null);
    }

    /** @return whether it is known, so that nobody need wait */
    boolean isKnown() {
        return known.getCount() == 0;
    }

    /**
     * Waits until every member is done as the message's options ask.
     *
     * @throws ChannelException some failed
     */
    void await() throws ChannelException, InterruptedException {
        known.await();
        ChannelException failed = failure;
        if (failed != null) {
            throw failed;
        }
    }
}
