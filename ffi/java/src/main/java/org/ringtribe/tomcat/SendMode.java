package org.ringtribe.tomcat;

import org.apache.catalina.ha.tcp.SimpleTcpCluster;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/** What replicationMode and waitForAck of Tomcat 5.5 say, as the cluster's channelSendOptions. */
final class SendMode {

    private static final Log log = LogFactory.getLog(SendMode.class);

    /** Acknowledged after the listener returned. */
    static final int APPLIED = Channel.SEND_OPTIONS_USE_ACK | Channel.SEND_OPTIONS_SYNCHRONIZED_ACK;

    /** The bits that replicationMode decides. */
    private static final int DECIDED = APPLIED | Channel.SEND_OPTIONS_ASYNCHRONOUS;

    private SendMode() {
    }

    /**
     * Sets the options if the sender states a mode and nobody else did.
     *
     * @throws ChannelException channelSendOptions were given and say something else
     */
    static void decide(SimpleTcpCluster cluster, RingtribeTransport transport) throws ChannelException {
        if (!transport.statesMode()) {
            return;
        }
        String mode = transport.replicationMode();
        boolean isQueued = mode.equals("asynchronous") || mode.equals("fastasyncqueue");
        int options;
        if (isQueued) {
            options = Channel.SEND_OPTIONS_ASYNCHRONOUS;
        } else {
            // Bit 1 is set or cleared by the channel for each message: without bit 2 nobody waits.
            options = transport.waitsForAck() ? APPLIED : Channel.SEND_OPTIONS_BYTE_MESSAGE;
        }
        String stated = "replicationMode=\"" + mode + "\" waitForAck=\"" + transport.waitsForAck() + "\"";
        boolean wereGiven = cluster instanceof RingtribeCluster ? ((RingtribeCluster) cluster).optionsGiven()
                : cluster.getChannelSendOptions() != Channel.SEND_OPTIONS_ASYNCHRONOUS;
        if (wereGiven && ((cluster.getChannelSendOptions() ^ options) & DECIDED) != 0) {
            throw new ChannelException("channelSendOptions=\"" + cluster.getChannelSendOptions() + "\" and " + stated
                    + " contradict each other: the latter means channelSendOptions=\"" + options
                    + "\"; leave one of them out");
        }
        if (!isQueued && !transport.waitsForAck()) {
            log.warn(stated + ": a request ends without an acknowledgement, so that an update that was answered may be "
                    + "on no other node; set waitForAck=\"true\" to have it there");
        }
        if (!wereGiven) {
            log.info(stated + ": channelSendOptions " + options);
            if (cluster instanceof RingtribeCluster) {
                ((RingtribeCluster) cluster).decideOptions(options, stated);
            } else {
                cluster.setChannelSendOptions(options);
            }
        }
    }

    /** @return where a stock cluster's options came from, as far as they show */
    static String origin(SimpleTcpCluster cluster) {
        return cluster.getChannelSendOptions() == Channel.SEND_OPTIONS_ASYNCHRONOUS ? "default of SimpleTcpCluster"
                : "attribute of Cluster, or replicationMode";
    }
}
