package org.ringtribe.tomcat;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The names that one element understands: those of Tomcat 5.5 and today's. What a value may be is not
 * said here; the engine knows it, and the element's own setters.
 */
final class Words {

    /** Names that mean one thing on Membership and another on Receiver, or that Cluster has itself. */
    private static final Set<String> NOT_ON_CLUSTER = new HashSet<>(Arrays.asList("address", "port", "bind", "ttl",
            "timeout", "frequency", "dropTime", "soTimeout", "domain"));

    private static final String[] NONE = {};

    static final Words MEMBERSHIP = new Words("Membership")
            .word("mcastAddr", names("mcastAddr"), names("address"))
            .word("mcastPort", names("mcastPort"), names("port"))
            .word("mcastFrequency", names("mcastFrequency"), names("frequency"))
            .word("mcastDropTime", names("mcastDropTime"), names("dropTime"))
            .word("mcastBindAddr", names("mcastBindAddr", "mcastBindAddress"), names("bind"))
            .word("mcastTTL", names("mcastTTL"), names("ttl"))
            .word("mcastClusterDomain", names("mcastClusterDomain"), names("domain"))
            .word("membership", NONE, names("membership"))
            .word("staticMembers", NONE, names("staticMembers"))
            .without("heartbeats are awaited without a time limit", "mcastSoTimeout", "soTimeout")
            .without("the engine decides it by itself", "recoveryEnabled", "recoveryCounter", "recoverySleepTime",
                    "localLoopbackDisabled");

    static final Words RECEIVER = new Words("Receiver")
            .word("tcpListenAddress", names("tcpListenAddress"), names("address"))
            .word("tcpListenPort", names("tcpListenPort"), names("port"))
            .word("tcpSelectorTimeout", names("tcpSelectorTimeout"), names("selectorTimeout"))
            .word("tcpThreadCount", names("tcpThreadCount"), NONE)
            .word("autoBind", NONE, names("autoBind"))
            .word("backend", NONE, names("backend"))
            .word("maxReceiveBytes", NONE, names("maxReceiveBytes"))
            .word("maxConnections", NONE, names("maxConnections"))
            .without("autoBind says how many ports are tried", "tcpListenMaxPort")
            .without("each message says itself what it wants", "sendAck", "isSenderSynchronized", "synchronized");

    static final Words SENDER = new Words("Sender")
            .word("replicationMode", names("replicationMode"), NONE)
            .word("ackTimeout", names("ackTimeout"), names("timeout"))
            .word("waitForAck", names("waitForAck"), NONE)
            .word("poolSize", names("maxPoolSocketLimit"), names("poolSize"))
            .word("maxQueueSize", NONE, names("maxQueueSize"))
            .word("maxMessageBytes", NONE, names("maxMessageBytes"))
            .word("connectTimeout", NONE, names("connectTimeout"))
            .without("messages go as they are; a GzipInterceptor in the Channel compresses them", "compress")
            .without("connections are opened when a member is seen", "autoConnect")
            .without("connections stay open", "keepAliveTimeout", "keepAliveMaxRequestCount", "keepAliveTime",
                    "keepAliveCount")
            .without("what was not acknowledged is sent again after a lost connection in any case", "resend",
                    "recoverTimeout", "recoverCounter", "maxRetryAttempts")
            .without("the queue is bounded in bytes, by maxQueueSize, and its end is waited for, not dropped",
                    "maxQueueLength", "queueCheckLock", "queueDoStats", "queueTimeWait", "threadPriority")
            .without("the engine always counts", "doTransmitterProcessingStats", "doProcessingStats", "doWaitAckStats",
                    "processSenderFrequency");

    /** What stands on Cluster for its manager; with the prefix "manager." any of the manager's attributes does. */
    static final Words MANAGER = new Words("Manager")
            .word("managerClassName", names("managerClassName"), NONE)
            .word("expireSessionsOnShutdown", names("expireSessionsOnShutdown"), NONE)
            .word("useDirtyFlag", names("useDirtyFlag"), NONE)
            .word("notifyListenersOnReplication", names("notifyListenersOnReplication"), NONE);

    /** What Cluster has itself beside the setters of its class. */
    static final Words CLUSTER = new Words("Cluster")
            .without("the log of the cluster is Tomcat's", "doClusterLog", "clusterLogName", "printToScreen", "debug")
            .without("there is one protocol and one service", "protocol", "service");

    static final Words CHANNEL = new Words("Channel");

    private final String element;
    private final Map<String,Word> byName = new LinkedHashMap<>();
    private final Map<String,String> withoutEffect = new LinkedHashMap<>();

    /** One attribute and its names. */
    static final class Word {
        /** The engine's name of it. */
        final String attribute;
        private final String[] old;

        private Word(String attribute, String[] old) {
            this.attribute = attribute;
            this.old = old;
        }

        /** @return whether a name is Tomcat 5.5's */
        boolean isOld(String name) {
            return Arrays.asList(old).contains(name);
        }
    }

    private Words(String element) {
        this.element = element;
    }

    private static String[] names(String... names) {
        return names;
    }

    private Words word(String attribute, String[] old, String[] today) {
        Word word = new Word(attribute, old);
        for (String name : old) {
            byName.put(name, word);
        }
        for (String name : today) {
            byName.put(name, word);
        }
        return this;
    }

    private Words without(String why, String... names) {
        for (String name : names) {
            withoutEffect.put(name, why);
        }
        return this;
    }

    String element() {
        return element;
    }

    /** @return the word of this name, null if the element has none */
    Word word(String name) {
        return byName.get(name);
    }

    /** @return why a name has no effect any more, null if it is not such a one */
    String whyWithoutEffect(String name) {
        return withoutEffect.get(name);
    }

    boolean knows(String name) {
        return byName.containsKey(name) || withoutEffect.containsKey(name);
    }

    /** @return whether a name of this element may stand on Cluster without a prefix */
    boolean knowsOnCluster(String name) {
        return knows(name) && !NOT_ON_CLUSTER.contains(name);
    }

    Collection<String> names() {
        List<String> all = new ArrayList<>(byName.keySet());
        all.addAll(withoutEffect.keySet());
        return Collections.unmodifiableList(all);
    }
}
