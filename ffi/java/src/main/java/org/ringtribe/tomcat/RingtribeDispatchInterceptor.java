package org.ringtribe.tomcat;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.ErrorHandler;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.UniqueId;
import org.apache.catalina.tribes.group.InterceptorPayload;
import org.apache.catalina.tribes.group.interceptors.MessageDispatchInterceptor;

/**
 * Hands asynchronous messages to the engine in the calling thread, which keeps their order; stock
 * hands them to up to ten threads. The engine's queue takes the place of this interceptor's:
 * maxQueueSize is what it holds for each member, and when it is full the caller waits up to
 * ackTimeout and then gets the error. The attributes that concern threads have no effect.
 */
public class RingtribeDispatchInterceptor extends MessageDispatchInterceptor {

    private final StockName stockName = new StockName(MessageDispatchInterceptor.class);
    private Long givenQueueSize;

    public RingtribeDispatchInterceptor() {
    }

    /** Takes the place of a stock interceptor that server.xml names. */
    RingtribeDispatchInterceptor(MessageDispatchInterceptor stock) {
        if (stock.getMaxQueueSize() != new MessageDispatchInterceptor().getMaxQueueSize()) {
            setMaxQueueSize(stock.getMaxQueueSize());
        }
        if (stock.getOptionFlag() != getOptionFlag()) {
            setOptionFlag(stock.getOptionFlag());
        }
    }

    @Override
    public void setMaxQueueSize(long bytes) {
        super.setMaxQueueSize(bytes);
        givenQueueSize = bytes;
    }

    /** @return what was set for maxQueueSize, bytes; null if nothing */
    Long givenQueueSize() {
        return givenQueueSize;
    }

    /** Without the native library the parts below are stock's, and so is this. */
    private boolean isStock() {
        return getChannel() instanceof RingtribeChannel && ((RingtribeChannel) getChannel()).isStock();
    }

    @Override
    public void sendMessage(Member[] destination, ChannelMessage msg, InterceptorPayload payload)
            throws ChannelException {
        if (isStock()) {
            super.sendMessage(destination, msg, payload);
            return;
        }
        if (getNext() == null) {
            return;
        }
        if ((msg.getOptions() & Channel.SEND_OPTIONS_ASYNCHRONOUS) == 0) {
            getNext().sendMessage(destination, msg, payload);
            return;
        }
        ErrorHandler handler = payload == null ? null : payload.getErrorHandler();
        UniqueId id = new UniqueId(msg.getUniqueId());
        Sending sending = Sending.current(getChannel());
        if (sending != null) {
            sending.becomeAsynchronous(handler, id);
            getNext().sendMessage(destination, msg, payload);
            return;
        }
        // Under a channel that is not Ringtribe's the call begins here, without a key.
        sending = Sending.begin(getChannel(), null);
        try {
            sending.becomeAsynchronous(handler, id);
            getNext().sendMessage(destination, msg, payload);
        } finally {
            sending.end();
        }
        sending.returned();
    }

    @Override
    public void start(int service) throws ChannelException {
        super.start(service);
        stockName.register(getChannel(), this);
    }

    @Override
    public void stop(int service) throws ChannelException {
        stockName.unregister(getChannel());
        super.stop(service);
    }

    @Override
    public void startQueue() {
        if (isStock()) {
            super.startQueue();
            return;
        }
        run = true;
    }

    @Override
    public void stopQueue() {
        if (isStock()) {
            super.stopQueue();
            return;
        }
        run = false;
    }
}
