package org.ringtribe.tomcat;

import java.util.ArrayList;
import java.util.IdentityHashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelInterceptor;
import org.apache.catalina.tribes.ManagedChannel;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.membership.MemberImpl;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;
import org.ringtribe.Engine;
import org.ringtribe.EngineException;
import org.ringtribe.Status;

/**
 * The one engine of a channel, shared by its sender, receiver and membership: the first part that
 * starts opens it, the last that stops closes it.
 */
final class ChannelEngine implements Engine.Events {

    private static final Log log = LogFactory.getLog(ChannelEngine.class);

    private static final Map<Channel,ChannelEngine> ENGINES = new IdentityHashMap<>();

    private static final Map<Channel,List<GapListener>> GAP_LISTENERS = new IdentityHashMap<>();

    private final Channel channel;
    private final Map<Member,Long> ids = new ConcurrentHashMap<>();
    private final Map<Long,Member> members = new ConcurrentHashMap<>();
    /** What the engine sends as the sender of messages: the cached package of the local member. */
    private volatile byte[] announced;
    private volatile String effective = "";
    private Engine engine;
    private int users;
    private volatile RingtribeMembership membership;

    private ChannelEngine(Channel channel) {
        this.channel = channel;
    }

    /** A part of a channel that has attributes for the engine. */
    interface Part {
        /** @return what was given to it */
        Settings settings();

        /**
         * @param config receives engine attributes
         */
        void configure(Configuration config);
    }

    /**
     * @param channel whose engine
     * @return the engine, open; give it back with {@link #release}
     * @throws EngineException it does not open
     */
    static ChannelEngine acquire(Channel channel) throws EngineException {
        synchronized (ENGINES) {
            ChannelEngine shared = ENGINES.get(channel);
            if (shared == null) {
                shared = new ChannelEngine(channel);
                shared.open();
                ENGINES.put(channel, shared);
            }
            shared.users++;
            return shared;
        }
    }

    void release() {
        synchronized (ENGINES) {
            if (--users > 0) {
                return;
            }
            ENGINES.remove(channel);
        }
        engine.close();
    }

    private void open() throws EngineException {
        Configuration config = new Configuration();
        List<String> errors = new ArrayList<>();
        List<String> withoutEffect = new ArrayList<>();
        for (Object part : parts()) {
            if (part instanceof Part) {
                Settings settings = ((Part) part).settings();
                errors.addAll(settings.errors());
                withoutEffect.addAll(settings.takeWithoutEffect());
            }
        }
        if (!errors.isEmpty()) {
            throw new EngineException(String.join("; ", errors));
        }
        if (!withoutEffect.isEmpty()) {
            log.info(String.join("; ", withoutEffect));
        }
        for (Object part : parts()) {
            if (part instanceof Part) {
                ((Part) part).configure(config);
            } else if (part instanceof RingtribeDispatchInterceptor) {
                Long bytes = ((RingtribeDispatchInterceptor) part).givenQueueSize();
                if (bytes != null) {
                    config.put("maxQueueSize", String.valueOf(bytes), "attribute maxQueueSize of Interceptor");
                }
            }
        }
        if (channel instanceof RingtribeChannel) {
            ((RingtribeChannel) channel).configure(config);
        }
        String name = channel.getName() == null ? "" : channel.getName();
        try {
            engine = Engine.open(config.values(), name, this);
        } catch (EngineException e) {
            throw new EngineException(config.explained(e.getMessage()));
        }
        effective = config.toString();
        if (log.isInfoEnabled()) {
            log.info("Ringtribe engine open, backend=" + described("backend") + ", configured: " + effective);
            if (!(channel instanceof RingtribeChannel)) {
                log.info("Under " + channel.getClass().getName() + " messages have no key: use "
                        + RingtribeChannel.class.getName() + " to keep the order of each session");
            }
        }
    }

    /** The channel's parts and interceptors, the top one first. */
    private List<Object> parts() {
        List<Object> parts = new ArrayList<>();
        if (channel instanceof ManagedChannel) {
            ManagedChannel managed = (ManagedChannel) channel;
            for (Iterator<ChannelInterceptor> all = managed.getInterceptors(); all.hasNext();) {
                parts.add(all.next());
            }
            parts.add(managed.getMembershipService());
            parts.add(managed.getChannelReceiver());
            Object sender = managed.getChannelSender();
            parts.add(sender instanceof RingtribeSender ? ((RingtribeSender) sender).getTransport() : sender);
        }
        return parts;
    }

    private String described(String name) {
        for (String line : engine.describe().split("\n")) {
            if (line.startsWith(name + "=")) {
                return line.substring(name.length() + 1);
            }
        }
        return "";
    }

    /** @return each value in force and where it came from */
    String effective() {
        return effective;
    }

    /** @return that of the channel's open engine, empty if there is none */
    static String effective(Channel channel) {
        synchronized (ENGINES) {
            ChannelEngine shared = ENGINES.get(channel);
            return shared == null ? "" : shared.effective;
        }
    }

    /** @return what the channel's open engine has queued, or not acknowledged by its members; -1 if there is none */
    static long queuedBytes(Channel channel) {
        synchronized (ENGINES) {
            ChannelEngine shared = ENGINES.get(channel);
            String bytes = shared == null ? "-1" : shared.described("queued_bytes");
            return bytes.isEmpty() ? Long.MAX_VALUE : Long.parseLong(bytes);
        }
    }

    Engine engine() {
        return engine;
    }

    Channel channel() {
        return channel;
    }

    /**
     * Tells the engine who this node is, if that is not what it knows. Without membership (a static
     * local member, or channelStartOptions 3) nobody else does.
     *
     * @param local the local member
     */
    void announce(Member local) {
        if (local instanceof MemberImpl) {
            // The same array until a setter is called.
            byte[] bytes = ((MemberImpl) local).getData(false, false);
            if (bytes != announced) {
                engine.setLocalMember(bytes);
                announced = bytes;
            }
        }
    }

    void setMembership(RingtribeMembership membership) {
        this.membership = membership;
    }

    /**
     * @param member a member, known to membership or not (a static one)
     * @return its id, or a negated {@link Status}
     */
    long id(Member member) {
        Long known = ids.get(member);
        return known == null ? enter(member) : known;
    }

    /** As {@link #id} when the engine no longer knows the id that was remembered. */
    long enter(Member member) {
        if (!(member instanceof MemberImpl)) {
            return -Status.UNSUPPORTED;
        }
        long id = engine.enter(((MemberImpl) member).getData(false, false));
        if (id >= 0) {
            ids.put(member, id);
            members.put(id, member);
        }
        return id;
    }

    int membersCount() {
        return members.size();
    }

    @Override
    public void memberAdded(long id, byte[] memberPackage) {
        MemberImpl member = (MemberImpl) MemberImpl.getMember(memberPackage);
        ids.put(member, id);
        members.put(id, member);
        RingtribeMembership listener = membership;
        if (listener != null) {
            listener.added(member);
        }
    }

    @Override
    public void memberChanged(long id, byte[] memberPackage) {
        RingtribeMembership listener = membership;
        if (listener != null) {
            listener.changed((MemberImpl) MemberImpl.getMember(memberPackage));
        }
    }

    @Override
    public void memberGone(long id, byte[] memberPackage, int cause) {
        MemberImpl member = (MemberImpl) MemberImpl.getMember(memberPackage);
        ids.remove(member, id);
        members.remove(id);
        RingtribeMembership listener = membership;
        if (listener != null) {
            listener.gone(member, cause);
        }
    }

    /** Whoever keeps state learns what a member and this node missed of each other. */
    interface GapListener {
        /**
         * Called by a thread that must not be held up.
         *
         * @param repaired to be run when it is repaired, or cannot be: until then further gaps of the member
         *        are not told
         */
        void gap(Member member, Runnable repaired);
    }

    static void addGapListener(Channel channel, GapListener listener) {
        synchronized (ENGINES) {
            GAP_LISTENERS.computeIfAbsent(channel, one -> new ArrayList<>()).add(listener);
        }
    }

    static void removeGapListener(Channel channel, GapListener listener) {
        synchronized (ENGINES) {
            List<GapListener> all = GAP_LISTENERS.get(channel);
            if (all != null && all.remove(listener) && all.isEmpty()) {
                GAP_LISTENERS.remove(channel);
            }
        }
    }

    @Override
    public void gap(long id, boolean here, long messages) {
        Member member = members.get(id);
        String who = here ? "This node missed messages of " + member : member + " missed messages of this node";
        if (!here && member != null && channel instanceof RingtribeChannel) {
            ((RingtribeChannel) channel).copies().missed(member);
        }
        log.warn(who + (messages == 0 ? "" : ", up to " + messages));
        List<GapListener> all = new ArrayList<>();
        synchronized (ENGINES) {
            if (member != null) {
                all.addAll(GAP_LISTENERS.getOrDefault(channel, new ArrayList<>()));
            }
        }
        AtomicInteger open = new AtomicInteger(all.size() + 1);
        Runnable repaired = () -> {
            if (open.decrementAndGet() == 0) {
                engine.repaired(id);
            }
        };
        Runnable tell = () -> {
            all.forEach(listener -> listener.gap(member, repaired));
            repaired.run();
        };
        RingtribeMembership first = membership;
        if (first == null) {
            tell.run();
        } else {
            // That the member was away comes before it.
            first.then(tell);
        }
    }

    @Override
    public void log(int level, String text) {
        switch (level) {
            case 0:
                log.debug(text);
                break;
            case 1:
                log.info(text);
                break;
            case 2:
                log.warn(text);
                break;
            default:
                log.error(text);
        }
    }
}
