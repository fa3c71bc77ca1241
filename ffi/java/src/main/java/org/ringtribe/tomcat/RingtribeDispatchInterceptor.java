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
 * hands them to up to ten threads. The engine's queue (maxQueueSize, per member) takes the place of
 * this interceptor's: when it is full the caller waits up to ackTimeout and then gets the error.
 */
public class RingtribeDispatchInterceptor extends MessageDispatchInterceptor {

    @Override
    public void sendMessage(Member[] destination, ChannelMessage msg, InterceptorPayload payload)
            throws ChannelException {
        boolean asynchronous = (msg.getOptions() & Channel.SEND_OPTIONS_ASYNCHRONOUS) != 0;
        Sending sending = Sending.current();
        if (asynchronous && sending != null) {
            ErrorHandler handler = payload == null ? null : payload.getErrorHandler();
            sending.becomeAsynchronous(handler, new UniqueId(msg.getUniqueId()));
        }
        if (getNext() != null) {
            getNext().sendMessage(destination, msg, payload);
        }
    }

    @Override
    public void startQueue() {
        run = true;
    }

    @Override
    public void stopQueue() {
        run = false;
    }
}
