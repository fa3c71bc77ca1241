package org.ringtribe.tomcat;

import java.util.ArrayList;
import java.util.List;

import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.membership.McastService;
import org.apache.catalina.tribes.transport.ReplicationTransmitter;
import org.apache.catalina.tribes.transport.nio.NioReceiver;
import org.apache.catalina.tribes.transport.nio.PooledParallelSender;

/** Stock's parts with the values of Ringtribe's, for machines where the native library cannot load. */
final class StockParts {

    private StockParts() {
    }

    /**
     * Puts them into a channel that is stopped. Values that stock has no attribute for are left.
     *
     * @throws ChannelException something was given that does not exist, or twice
     */
    static void install(RingtribeChannel channel) throws ChannelException {
        List<String> errors = new ArrayList<>();
        Object sends = channel.getChannelSender();
        for (Object part : new Object[] { channel.getMembershipService(), channel.getChannelReceiver(),
                sends instanceof RingtribeSender ? ((RingtribeSender) sends).getTransport() : null }) {
            if (part instanceof ChannelEngine.Part) {
                errors.addAll(((ChannelEngine.Part) part).settings().errors());
            }
        }
        if (!errors.isEmpty()) {
            throw new ChannelException(String.join("; ", errors));
        }
        if (channel.getMembershipService() instanceof RingtribeMembership) {
            channel.setMembershipService(membership((RingtribeMembership) channel.getMembershipService()));
        }
        if (channel.getChannelReceiver() instanceof RingtribeReceiver) {
            channel.setChannelReceiver(receiver((RingtribeReceiver) channel.getChannelReceiver()));
        }
        if (channel.getChannelSender() instanceof RingtribeSender) {
            RingtribeSender sender = (RingtribeSender) channel.getChannelSender();
            channel.setChannelSender(sender((RingtribeTransport) sender.getTransport()));
        }
    }

    private static McastService membership(RingtribeMembership from) {
        McastService stock = new McastService();
        stock.setAddress(from.getAddress());
        stock.setPort(from.getPort());
        stock.setFrequency(from.getFrequency());
        stock.setDropTime(from.getDropTime());
        if (from.getBind() != null) {
            stock.setBind(from.getBind());
        }
        Settings.Given ttl = from.settings().get("mcastTTL");
        if (ttl != null && Settings.integer(ttl.value) != null) {
            stock.setTtl(Settings.integer(ttl.value));
        }
        Settings.Given domain = from.settings().get("mcastClusterDomain");
        if (domain != null) {
            stock.setDomain(domain.value);
        }
        return stock;
    }

    private static NioReceiver receiver(RingtribeReceiver from) {
        NioReceiver stock = new NioReceiver();
        stock.setAddress(from.getAddress());
        stock.setPort(from.getPort());
        stock.setAutoBind(from.getAutoBind());
        stock.setSelectorTimeout(from.getSelectorTimeout());
        if (from.getMaxThreads() != new RingtribeReceiver().getMaxThreads()) {
            stock.setMaxThreads(from.getMaxThreads());
        }
        stock.setMinThreads(from.getMinThreads());
        return stock;
    }

    private static ReplicationTransmitter sender(RingtribeTransport from) {
        PooledParallelSender transport = new PooledParallelSender();
        transport.setTimeout(from.getTimeout());
        transport.setPoolSize(from.getPoolSize());
        transport.setThrowOnFailedAck(from.getThrowOnFailedAck());
        ReplicationTransmitter stock = new ReplicationTransmitter();
        stock.setTransport(transport);
        return stock;
    }
}
