package org.ringtribe.tomcat;

import java.io.IOException;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.transport.MultiPointSender;
import org.apache.catalina.tribes.transport.ReplicationTransmitter;

/**
 * The Sender element: a {@link ReplicationTransmitter} whose transport is a {@link RingtribeTransport}.
 * The words of Tomcat 5.5's Sender are accepted here and passed on.
 */
public class RingtribeSender extends ReplicationTransmitter {

    public RingtribeSender() {
        super.setTransport(new RingtribeTransport());
    }

    @Override
    public void setTransport(MultiPointSender transport) {
        if (!(transport instanceof RingtribeTransport)) {
            throw new IllegalArgumentException("Transport className=\"" + transport.getClass().getName()
                    + "\" does not belong to this Sender: use " + RingtribeTransport.class.getName()
                    + " or leave the element out");
        }
        super.setTransport(transport);
    }

    private RingtribeTransport transport() {
        return (RingtribeTransport) getTransport();
    }

    @Override
    public synchronized void start() throws IOException {
        transport().setChannel(getChannel());
        super.start();
    }

    @Override
    public void setChannel(Channel channel) {
        super.setChannel(channel);
        transport().setChannel(channel);
    }

    /**
     * The words of Tomcat 5.5 (replicationMode, ackTimeout, waitForAck ...) and the attributes of the
     * transport.
     *
     * @return true: what is wrong is told at the start
     */
    public boolean setProperty(String attribute, String value) {
        transport().settings().give(attribute, value);
        return true;
    }
}
