package org.ringtribe.tomcat;

import java.util.ArrayList;
import java.util.List;

import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ErrorHandler;
import org.apache.catalina.tribes.UniqueId;

/**
 * What {@link RingtribeChannel#send} knows of a message and the Tribes SPI does not carry: its key
 * and who waits. It lives on the calling thread while the interceptors run,
 * which keep to that thread. One message may become several ({@code FragmentationInterceptor}); the
 * handler learns of it once, when all are done.
 */
final class Sending {

    private static final ThreadLocal<Sending> CURRENT = new ThreadLocal<>();

    final Long key;
    /** Set by the dispatch interceptor: hand over and return. */
    boolean asynchronous;
    private final Sending outer;
    private ErrorHandler handler;
    private UniqueId id;
    private int pending = 1;
    private final List<ChannelException.FaultyMember> faulty = new ArrayList<>();

    private Sending(Long key, Sending outer) {
        this.key = key;
        this.outer = outer;
    }

    static Sending begin(Long key) {
        Sending sending = new Sending(key, CURRENT.get());
        CURRENT.set(sending);
        return sending;
    }

    /** @return what the calling thread sends, null outside of {@link RingtribeChannel#send} */
    static Sending current() {
        return CURRENT.get();
    }

    void end() {
        if (outer == null) {
            CURRENT.remove();
        } else {
            CURRENT.set(outer);
        }
    }

    /** The dispatch interceptor: from here on the message is asynchronous. */
    synchronized void becomeAsynchronous(ErrorHandler handler, UniqueId id) {
        asynchronous = true;
        this.handler = handler;
        this.id = id;
    }

    boolean hasHandler() {
        return handler != null;
    }

    synchronized void oneMore() {
        pending++;
    }

    /** One part is done; the last one tells the handler. */
    void oneDone(List<ChannelException.FaultyMember> failed) {
        ErrorHandler told;
        ChannelException failure = null;
        synchronized (this) {
            faulty.addAll(failed);
            if (--pending > 0 || handler == null) {
                return;
            }
            told = handler;
            if (!faulty.isEmpty()) {
                failure = new ChannelException("not delivered to every member");
                failure.addFaultyMember(faulty.toArray(new ChannelException.FaultyMember[0]));
            }
        }
        if (failure == null) {
            told.handleCompletion(id);
        } else {
            told.handleError(failure, id);
        }
    }
}
