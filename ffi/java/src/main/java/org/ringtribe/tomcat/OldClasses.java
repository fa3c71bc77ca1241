package org.ringtribe.tomcat;

import java.util.HashMap;
import java.util.Map;

/** Classes of Tomcat 5.5's cluster and what has taken their place. */
final class OldClasses {

    private static final String OLD = "org.apache.catalina.cluster.";
    private static final String HA = "org.apache.catalina.ha.";
    private static final Map<String,String> TODAY = new HashMap<>();

    static {
        TODAY.put(OLD + "session.DeltaManager", ManagerWords.standard().getClass().getName());
        TODAY.put(OLD + "session.SimpleTcpReplicationManager", ManagerWords.standard().getClass().getName());
        TODAY.put(OLD + "session.JvmRouteBinderValve", HA + "session.JvmRouteBinderValve");
        TODAY.put(OLD + "session.ClusterSessionListener", HA + "session.ClusterSessionListener");
        TODAY.put(OLD + "tcp.ReplicationValve", RingtribeReplicationValve.class.getName());
        TODAY.put(OLD + "deploy.FarmWarDeployer", RingtribeFarmWarDeployer.class.getName());
        TODAY.put(OLD + "authenticator.ClusterSingleSignOn", HA + "authenticator.ClusterSingleSignOn");
        // The engine's parts: their class does not matter, their attributes do.
        TODAY.put(OLD + "tcp.SimpleTcpCluster", RingtribeCluster.class.getName());
        TODAY.put(OLD + "mcast.McastService", RingtribeMembership.class.getName());
        TODAY.put(OLD + "tcp.ReplicationListener", RingtribeReceiver.class.getName());
        TODAY.put(OLD + "tcp.SocketReplicationListener", RingtribeReceiver.class.getName());
        TODAY.put(OLD + "tcp.ReplicationTransmitter", RingtribeSender.class.getName());
    }

    /** What a route's change needed in 5.5 and the valve does alone today. */
    static final String ROUTE_LISTENER = OLD + "session.JvmRouteSessionIDBinderListener";

    private OldClasses() {
    }

    /** @return the class that does today what this one did; the same if it is no class of 5.5's cluster */
    static String today(String name) {
        return TODAY.getOrDefault(name, name);
    }

    /** @return an object of the class, seen from the cluster's class loader */
    static Object make(String name, Object beside) throws ReflectiveOperationException {
        return Class.forName(name, true, beside.getClass().getClassLoader()).getConstructor().newInstance();
    }
}
