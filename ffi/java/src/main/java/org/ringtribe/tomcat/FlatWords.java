package org.ringtribe.tomcat;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ManagedChannel;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;
import org.apache.tomcat.util.IntrospectionUtils;

/** Words that stand on the Cluster element, or in a file of Tomcat 5.5, and belong to a part of it. */
final class FlatWords {

    private static final Log log = LogFactory.getLog(FlatWords.class);

    /** A word for a part. */
    private static final class Word {
        final String name;
        final String value;
        final String where;

        Word(String name, String value, String where) {
            this.name = name;
            this.value = value;
            this.where = where;
        }
    }

    private final RingtribeCluster cluster;
    private final ManagerWords manager;
    private final Map<Words,List<Word>> parts = new LinkedHashMap<>();
    private final List<Word> unknown = new ArrayList<>();
    private final Set<String> withoutEffect = new LinkedHashSet<>();

    FlatWords(RingtribeCluster cluster) {
        this.cluster = cluster;
        this.manager = new ManagerWords(cluster);
        for (Words words : Arrays.asList(Words.MEMBERSHIP, Words.RECEIVER, Words.SENDER)) {
            parts.put(words, new ArrayList<>());
        }
    }

    /**
     * @param name as it stands on Cluster: with the prefix of a part, or one that says which part it means
     * @param value as the user wrote it
     * @param where the element or the line
     */
    synchronized void give(String name, String value, String where) {
        int dot = name.indexOf('.');
        String prefix = dot < 0 ? "" : name.substring(0, dot);
        String rest = name.substring(dot + 1);
        if (prefix.equals("manager")) {
            manager.give(rest, value, where, name);
            return;
        }
        if (dot < 0 && Words.MANAGER.knows(name)) {
            manager.give(name, value, where, name);
            return;
        }
        for (Words words : parts.keySet()) {
            boolean isPrefixed = prefix.equalsIgnoreCase(words.element())
                    || words == Words.SENDER && prefix.equals("transport");
            if (isPrefixed || dot < 0 && words.knowsOnCluster(name)) {
                give(words, rest, value, where);
                return;
            }
        }
        String why = Words.CLUSTER.whyWithoutEffect(name);
        if (why == null) {
            unknown.add(new Word(name, value, where));
        } else {
            withoutEffect.add(name + "=\"" + value + "\" of " + where + " has no effect: " + why);
        }
    }

    /** A word of a part's own element. */
    synchronized void give(Words words, String name, String value, String where) {
        parts.get(words).add(new Word(name, value, where));
    }

    /** Hands everything to the part that it belongs to. */
    synchronized void apply(Channel channel, List<String> errors) {
        for (Word word : unknown) {
            errors.add(Settings.unknown(word.name, word.value, word.where, names()));
        }
        if (!withoutEffect.isEmpty()) {
            log.info(String.join("; ", withoutEffect));
            withoutEffect.clear();
        }
        for (Map.Entry<Words,List<Word>> entry : parts.entrySet()) {
            Object part = part(entry.getKey(), channel);
            for (Word word : entry.getValue()) {
                if (part instanceof ChannelEngine.Part) {
                    if (entry.getKey().knows(word.name)) {
                        ((ChannelEngine.Part) part).settings().give(word.name, word.value, word.where);
                    } else if (Settings.properties(part).contains(word.name)) {
                        IntrospectionUtils.setProperty(part, word.name, word.value);
                    } else {
                        errors.add(((ChannelEngine.Part) part).settings().unknown(word.name, word.value, word.where));
                    }
                } else {
                    errors.add(word.name + "=\"" + word.value + "\" of " + word.where + " is refused: the "
                            + entry.getKey().element() + " is a " + (part == null ? "missing one" : part.getClass().getName())
                            + ", which has attributes of its own; set it there, or leave the element out");
                }
            }
            if (part instanceof ChannelEngine.Part) {
                errors.addAll(((ChannelEngine.Part) part).settings().errors());
            }
        }
        manager.apply(errors);
    }

    void report(Configuration report) {
        manager.report(report);
    }

    private static Object part(Words words, Channel channel) {
        if (!(channel instanceof ManagedChannel)) {
            return null;
        }
        ManagedChannel managed = (ManagedChannel) channel;
        if (words == Words.MEMBERSHIP) {
            return managed.getMembershipService();
        }
        if (words == Words.RECEIVER) {
            return managed.getChannelReceiver();
        }
        Object sender = managed.getChannelSender();
        return sender instanceof RingtribeSender ? ((RingtribeSender) sender).getTransport() : sender;
    }

    private List<String> names() {
        List<String> all = new ArrayList<>(Words.CLUSTER.names());
        all.addAll(Words.MANAGER.names());
        for (Words words : parts.keySet()) {
            for (String name : words.names()) {
                if (words.knowsOnCluster(name)) {
                    all.add(name);
                }
            }
        }
        all.addAll(Settings.properties(cluster));
        return all;
    }
}
