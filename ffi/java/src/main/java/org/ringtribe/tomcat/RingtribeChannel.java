package org.ringtribe.tomcat;

import java.io.Serializable;

import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelInterceptor;
import org.apache.catalina.tribes.ErrorHandler;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.UniqueId;
import org.apache.catalina.tribes.group.GroupChannel;
import org.apache.catalina.tribes.group.interceptors.MessageDispatchInterceptor;
import org.apache.catalina.tribes.group.interceptors.TcpFailureDetector;

/**
 * A {@link GroupChannel} on the Ringtribe engine. It reads the key of each message before Tribes
 * serializes it, so that messages of one session keep the order in which {@link #send} was entered,
 * and it replaces the interceptor that hands asynchronous messages to several threads.
 */
public class RingtribeChannel extends GroupChannel {

    private static final int APPLIED = SEND_OPTIONS_USE_ACK | SEND_OPTIONS_SYNCHRONIZED_ACK;

    public RingtribeChannel() {
        setChannelSender(new RingtribeSender());
        setChannelReceiver(new RingtribeReceiver());
        setMembershipService(new RingtribeMembership());
    }

    /**
     * {@inheritDoc} A stock MessageDispatchInterceptor, which loses the order, and a stock TcpFailureDetector,
     * which takes who was started again for who was killed, are replaced.
     */
    @Override
    public void addInterceptor(ChannelInterceptor interceptor) {
        if (interceptor.getClass() == MessageDispatchInterceptor.class) {
            super.addInterceptor(new RingtribeDispatchInterceptor((MessageDispatchInterceptor) interceptor));
        } else if (interceptor.getClass() == TcpFailureDetector.class) {
            super.addInterceptor(new RingtribeFailureDetector((TcpFailureDetector) interceptor));
        } else {
            super.addInterceptor(interceptor);
        }
    }

    @Override
    protected synchronized void setupDefaultStack() throws ChannelException {
        if (!getInterceptors().hasNext()) {
            addInterceptor(new RingtribeDispatchInterceptor());
            addInterceptor(new RingtribeFailureDetector());
        }
        super.setupDefaultStack();
    }

    @Override
    public UniqueId send(Member[] destination, Serializable msg, int options, ErrorHandler handler)
            throws ChannelException {
        int effective = options;
        if (msg instanceof SessionMessage
                && ((SessionMessage) msg).getEventType() == SessionMessage.EVT_CHANGE_SESSION_ID) {
            // It concerns two keys, the old id and the new one: what follows under the new id must
            // find it applied everywhere.
            effective = (options | APPLIED) & ~Channel.SEND_OPTIONS_ASYNCHRONOUS;
        }
        Sending sending = Sending.begin(this, Keys.of(msg));
        UniqueId id;
        try {
            id = super.send(destination, msg, effective, handler);
        } finally {
            sending.end();
        }
        sending.returned();
        return id;
    }
}
