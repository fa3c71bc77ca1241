package org.ringtribe.tomcat;

import org.apache.catalina.ha.tcp.SimpleTcpCluster;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelSender;
import org.apache.catalina.tribes.ManagedChannel;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * The one-line way in: a {@link SimpleTcpCluster} whose channel is a {@link RingtribeChannel}, and
 * whose messages are acknowledged after they are applied (channelSendOptions 6) unless said otherwise.
 */
public class RingtribeCluster extends SimpleTcpCluster {

    private static final Log log = LogFactory.getLog(RingtribeCluster.class);
    private static final int APPLIED = Channel.SEND_OPTIONS_USE_ACK | Channel.SEND_OPTIONS_SYNCHRONIZED_ACK;

    private boolean optionsGiven;

    public RingtribeCluster() {
        super.setChannelSendOptions(APPLIED);
        setChannel(new RingtribeChannel());
    }

    @Override
    public void setChannelSendOptions(int options) {
        optionsGiven = true;
        super.setChannelSendOptions(options);
    }

    @Override
    protected void checkDefaults() {
        super.checkDefaults();
        if (!optionsGiven && getChannel() instanceof ManagedChannel) {
            ChannelSender sender = ((ManagedChannel) getChannel()).getChannelSender();
            if (sender instanceof RingtribeSender) {
                decideMode((RingtribeTransport) ((RingtribeSender) sender).getTransport());
            }
        }
    }

    /** What replicationMode and waitForAck of Tomcat 5.5 say, as option bits. */
    private void decideMode(RingtribeTransport transport) {
        if (!transport.statesMode()) {
            return;
        }
        String mode = transport.getReplicationMode() == null ? "pooled" : transport.getReplicationMode();
        int options;
        if (mode.equals("asynchronous") || mode.equals("fastasyncqueue")) {
            options = Channel.SEND_OPTIONS_ASYNCHRONOUS;
        } else {
            // Bit 1 is set or cleared by the channel for each message: without bit 2 nobody waits.
            options = transport.getWaitForAck() ? APPLIED : Channel.SEND_OPTIONS_BYTE_MESSAGE;
        }
        log.info("replicationMode=" + mode + " waitForAck=" + transport.getWaitForAck() + ": channelSendOptions "
                + options);
        super.setChannelSendOptions(options);
    }
}
