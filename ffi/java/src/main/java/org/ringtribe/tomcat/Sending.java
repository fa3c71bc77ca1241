package org.ringtribe.tomcat;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ErrorHandler;
import org.apache.catalina.tribes.UniqueId;

/**
 * What {@link RingtribeChannel#send} knows of a message and the Tribes SPI does not carry: its key
 * and who waits. It lives on the calling thread while the interceptors run, which keep to that
 * thread. One message may become several ({@code FragmentationInterceptor}); the handler learns of it
 * once, when all are done, or not at all if the call itself fails.
 */
final class Sending {

    private static final ThreadLocal<Sending> CURRENT = new ThreadLocal<>();

    private final Channel channel;
    private final Long key;
    private final Sending outer;
    private boolean asynchronous;
    private ErrorHandler handler;
    private UniqueId id;
    /** Parts whose outcome is open, and the call itself. */
    private int pending = 1;
    private final List<ChannelException.FaultyMember> faulty = new ArrayList<>();

    private Sending(Channel channel, Long key, Sending outer) {
        this.channel = channel;
        this.key = key;
        this.outer = outer;
    }

    /** Begins a call on this thread; {@link #end} must follow. */
    static Sending begin(Channel channel, Long key) {
        Sending sending = new Sending(channel, key, CURRENT.get());
        CURRENT.set(sending);
        return sending;
    }

    /** @return what the calling thread sends on this channel, null if it did not begin here */
    static Sending current(Channel channel) {
        Sending sending = CURRENT.get();
        return sending == null || sending.channel != channel ? null : sending;
    }

    /** Ends the extent of the call on this thread. */
    void end() {
        if (outer == null) {
            CURRENT.remove();
        } else {
            CURRENT.set(outer);
        }
    }

    Long key() {
        return key;
    }

    /** The dispatch interceptor: hand over and return. */
    synchronized void becomeAsynchronous(ErrorHandler handler, UniqueId id) {
        asynchronous = true;
        this.handler = handler;
        this.id = id;
    }

    synchronized boolean isAsynchronous() {
        return asynchronous;
    }

    synchronized boolean hasHandler() {
        return handler != null;
    }

    /** Whether the handler is a thread of this project that waits. */
    synchronized boolean isAwaited() {
        return handler instanceof Outcome;
    }

    /** A part is handed over. */
    synchronized void oneMore() {
        pending++;
    }

    /** A part was not handed over after all: the caller learns of it by an exception. */
    synchronized void oneLess() {
        pending--;
    }

    /** The call returned: the handler, if there is one, is told when the last part is done. */
    void returned() {
        oneDone(Collections.<ChannelException.FaultyMember>emptyList());
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
