package org.ringtribe.test;

import java.util.HashMap;
import java.util.Map;

import org.apache.catalina.tribes.ChannelInterceptor;
import org.apache.catalina.tribes.group.GroupChannel;
import org.apache.catalina.tribes.membership.McastService;
import org.apache.catalina.tribes.transport.ReceiverBase;
import org.apache.catalina.tribes.transport.ReplicationTransmitter;
import org.apache.catalina.tribes.transport.nio.NioReceiver;
import org.apache.catalina.tribes.transport.nio.PooledParallelSender;

/** Makes channels of either flavour on loopback, from name=value arguments. */
final class Peers {

    private Peers() {
    }

    static Map<String,String> arguments(String[] words) {
        Map<String,String> arguments = new HashMap<>();
        for (String word : words) {
            int equals = word.indexOf('=');
            if (equals > 0) {
                arguments.put(word.substring(0, equals), word.substring(equals + 1));
            }
        }
        return arguments;
    }

    static GroupChannel channel(Map<String,String> arguments) throws Exception {
        boolean stock = arguments.get("flavour").equals("stock");
        GroupChannel channel =
                stock ? new GroupChannel() : make(GroupChannel.class, "org.ringtribe.tomcat.RingtribeChannel");
        if (stock) {
            channel.setMembershipService(new McastService());
            channel.setChannelReceiver(new NioReceiver());
            channel.setChannelSender(new ReplicationTransmitter());
        }
        McastService membership = (McastService) channel.getMembershipService();
        membership.setAddress("228.0.0.4");
        membership.setPort(Integer.parseInt(arguments.get("mcast")));
        membership.setBind("127.0.0.1");
        membership.setFrequency(Long.parseLong(arguments.getOrDefault("frequency", "200")));
        membership.setDropTime(Long.parseLong(arguments.getOrDefault("drop", "1000")));
        ReceiverBase receiver = (ReceiverBase) channel.getChannelReceiver();
        receiver.setAddress("127.0.0.1");
        receiver.setPort(Integer.parseInt(arguments.getOrDefault("port", "21000")));
        receiver.setAutoBind(50);
        ReplicationTransmitter sender = (ReplicationTransmitter) channel.getChannelSender();
        PooledParallelSender transport = (PooledParallelSender) sender.getTransport();
        transport.setTimeout(Long.parseLong(arguments.getOrDefault("timeout", "10000")));
        transport.setMaxWait(10000);
        String interceptors = arguments.getOrDefault("interceptors", "");
        for (String name : interceptors.split(",")) {
            if (!name.isEmpty()) {
                channel.addInterceptor(make(ChannelInterceptor.class,
                        "org.apache.catalina.tribes.group.interceptors." + name));
            }
        }
        channel.setName(arguments.getOrDefault("name", "peer"));
        return channel;
    }

    private static <T> T make(Class<T> type, String name) throws Exception {
        return type.cast(Class.forName(name).getConstructor().newInstance());
    }
}
