package org.ringtribe.tomcat;

import org.apache.catalina.tribes.ChannelException;

/** Why one member has not got a message; stock's own text would go on about faulty members. */
final class NotDelivered extends ChannelException {

    private static final long serialVersionUID = 1L;

    private final String reason;

    NotDelivered(String reason) {
        super(reason);
        this.reason = reason;
    }

    @Override
    public String getMessage() {
        return reason;
    }
}
