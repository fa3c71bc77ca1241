package org.ringtribe.tomcat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Executor;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.TimeUnit;

import javax.management.ObjectName;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipProvider;
import org.apache.catalina.tribes.MembershipService;
import org.apache.catalina.tribes.jmx.JmxRegistry;
import org.apache.catalina.tribes.membership.McastService;
import org.apache.catalina.tribes.membership.MemberImpl;
import org.apache.catalina.tribes.membership.MembershipProviderBase;
import org.apache.catalina.tribes.transport.SenderState;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;
import org.ringtribe.Engine;
import org.ringtribe.Status;

/**
 * The Membership element: heartbeats are the engine's, in the packets of {@link McastService}. Members
 * are {@link MemberImpl} objects, the oldest first; listeners run on the channel's utility executor,
 * one after another.
 */
public class RingtribeMembership extends McastService implements ChannelEngine.Part {

    private static final Log log = LogFactory.getLog(RingtribeMembership.class);

    private final Settings settings = new Settings(Words.MEMBERSHIP, this, this::mirror);
    private final Provider provider = new Provider();
    private final SerialQueue callbacks = new SerialQueue();
    private volatile ChannelEngine shared;
    private volatile int started;
    private long startTime;
    private ObjectName name;

    @Override
    public void setAddress(String address) {
        settings.give("address", address);
    }

    /** @param port port of the heartbeats; text, so that the engine refuses what is none */
    public void setPort(String port) {
        settings.give("port", port);
    }

    /** @param millis time between heartbeats */
    public void setFrequency(String millis) {
        settings.give("frequency", millis);
    }

    /** @param millis silence after which a member is suspect */
    public void setDropTime(String millis) {
        settings.give("dropTime", millis);
    }

    /** @param millis as {@link #setDropTime(String)} (Tomcat 5.5) */
    public void setMcastDropTime(String millis) {
        settings.give("mcastDropTime", millis);
    }

    @Override
    public void setBind(String address) {
        settings.give("bind", address);
    }

    @Override
    public void setMcastBindAddress(String address) {
        settings.give("mcastBindAddress", address);
    }

    /** @param hops how far a heartbeat goes */
    public void setTtl(String hops) {
        settings.give("ttl", hops);
    }

    /** @param millis accepted for its name */
    public void setSoTimeout(String millis) {
        settings.give("soTimeout", millis);
    }

    @Override
    public void setDomain(String domain) {
        settings.give("domain", domain);
    }

    /**
     * The words of Tomcat 5.5 (mcastAddr, mcastPort ...), and what has no setter.
     *
     * @return true: what is wrong is told at the start
     */
    public boolean setProperty(String attribute, String value) {
        settings.give(attribute, value);
        return true;
    }

    private void mirror(String attribute, String value) {
        Long number = Settings.number(value);
        Integer integer = Settings.integer(value);
        if (attribute.equals("mcastAddr")) {
            super.setAddress(value);
        } else if (attribute.equals("mcastBindAddr")) {
            super.setBind(value);
        } else if (attribute.equals("mcastClusterDomain")) {
            super.setDomain(value);
        } else if (attribute.equals("mcastPort") && integer != null) {
            setPort(integer.intValue());
        } else if (attribute.equals("mcastFrequency") && number != null) {
            setFrequency(number.longValue());
        } else if (attribute.equals("mcastDropTime") && number != null) {
            setDropTime(number.longValue());
        } else if (attribute.equals("mcastTTL") && integer != null) {
            setTtl(integer.intValue());
        }
    }

    @Override
    public Settings settings() {
        return settings;
    }

    @Override
    public void configure(Configuration config) {
        Properties properties = getProperties();
        Properties standard = new McastService().getProperties();
        put(config, "mcastAddr", "mcastAddress", properties, standard);
        put(config, "mcastPort", "mcastPort", properties, standard);
        put(config, "mcastFrequency", "mcastFrequency", properties, standard);
        put(config, "mcastDropTime", "memberDropTime", properties, standard);
        put(config, "mcastBindAddr", "mcastBindAddress", properties, standard);
        put(config, "mcastTTL", "mcastTTL", properties, standard);
        config.put("membership", null, null, settings);
        config.put("staticMembers", null, null, settings);
        Settings.Given domain = settings.get("mcastClusterDomain");
        if (domain != null) {
            config.report("mcastClusterDomain", domain.value, domain.origin());
        }
    }

    private void put(Configuration config, String attribute, String property, Properties own, Properties standard) {
        config.put(attribute, own.getProperty(property), standard.getProperty(property), settings);
    }

    /** Longest wait for the join barrier: the default of ackTimeout. */
    private static final long JOIN_MILLIS = 15_000;

    @Override
    public synchronized void start(int level) throws Exception {
        if ((started & level) != 0) {
            throw new IllegalStateException("membership level " + level + " is started already");
        }
        if (started == 0) {
            shared = ChannelEngine.acquire(getChannel());
            shared.setMembership(this);
            startTime = System.currentTimeMillis();
            if (localMember != null) {
                localMember.setServiceStartTime(startTime);
            }
            tellLocal();
        }
        try {
            if ((level & MembershipService.MBR_RX) != 0) {
                shared.engine().membership(Engine.RECEIVE);
            }
            if ((level & MembershipService.MBR_TX) != 0) {
                shared.engine().membership(Engine.SEND);
            }
        } catch (IOException e) {
            if (started == 0) {
                releaseEngine();
            }
            throw e;
        }
        boolean first = started == 0;
        started |= level;
        if (first) {
            JmxRegistry registry = JmxRegistry.getRegistry(getChannel());
            if (registry != null) {
                name = registry.registerJmx(",component=Membership", this);
            }
        }
        awaitMembers(level);
    }

    /**
     * As McastService: two heartbeats a level, so that everyone who is there has been heard. Who asks
     * for the members right after the start (DeltaManager) relies on it.
     */
    private void awaitMembers(int level) throws InterruptedException {
        int levels = Integer.bitCount(level & (MembershipService.MBR_RX | MembershipService.MBR_TX));
        TimeUnit.MILLISECONDS.sleep(2 * getFrequency() * levels);
        if (!(getChannel() instanceof RingtribeChannel)) {
            awaitBarrier(level);
        }
    }

    /**
     * From the start of MBR_TX on everyone addresses this node; waits until what was sent before is
     * finished where it went. {@link RingtribeChannel} calls it when its parts have started: another
     * channel's lock is held at the start of its membership, and a listener that needs it waits too.
     *
     * @param level what was started
     */
    void awaitBarrier(int level) {
        ChannelEngine open;
        synchronized (this) {
            open = shared;
        }
        if ((level & MembershipService.MBR_TX) == 0 || open == null) {
            return;
        }
        String silent = open.engine().joinBarrier(JOIN_MILLIS);
        if (silent != null) {
            log.warn("No answer to the join barrier within " + JOIN_MILLIS + " ms from " + silent
                    + ": what they sent before they saw this node may be missing in the state it gets");
        }
    }

    @Override
    public synchronized void stop(int level) {
        int ending = started & level;
        if (ending == 0) {
            return;
        }
        started &= ~level;
        try {
            if ((ending & MembershipService.MBR_TX) != 0) {
                shared.engine().membership(-Engine.SEND);
            }
            if ((ending & MembershipService.MBR_RX) != 0) {
                shared.engine().membership(-Engine.RECEIVE);
            }
        } catch (IOException e) {
            log.warn("Membership did not stop in order", e);
        }
        if (started == 0) {
            if (name != null) {
                JmxRegistry registry = JmxRegistry.getRegistry(getChannel());
                if (registry != null) {
                    registry.unregisterJmx(name);
                }
                name = null;
            }
            provider.clear();
            releaseEngine();
            setChannel(null);
        }
    }

    private void releaseEngine() {
        shared.setMembership(null);
        shared.release();
        shared = null;
    }

    private void tellLocal() {
        ChannelEngine running = shared;
        if (running != null && localMember != null) {
            localMember.getData(true, true);
            running.announce(localMember);
        }
    }

    @Override
    public Member getLocalMember(boolean alive) {
        if (alive && localMember != null && started != 0) {
            localMember.setMemberAliveTime(System.currentTimeMillis() - startTime);
        }
        return localMember;
    }

    @Override
    public synchronized void setLocalMemberProperties(String listenHost, int listenPort, int securePort, int udpPort) {
        super.setLocalMemberProperties(listenHost, listenPort, securePort, udpPort);
        tellLocal();
    }

    @Override
    public void setPayload(byte[] payload) {
        super.setPayload(payload);
        tellLocal();
    }

    @Override
    public void setDomain(byte[] domain) {
        super.setDomain(domain);
        tellLocal();
    }

    @Override
    public void broadcast(ChannelMessage message) throws ChannelException {
        ChannelEngine engine = shared;
        if (engine == null || (started & MembershipService.MBR_TX) == 0) {
            throw new ChannelException("membership is not started: there is no group to send to");
        }
        int status = engine.engine().broadcast(message.getMessage().getBytesDirect(), message.getMessage().getLength(),
                message.getOptions(), message.getTimestamp(), message.getUniqueId());
        if (status < 0) {
            throw new ChannelException(Status.text(-status));
        }
    }

    @Override
    public MembershipProvider getMembershipProvider() {
        return started == 0 ? null : provider;
    }

    /** The engine announced a member. */
    void added(MemberImpl member) {
        provider.put(member);
        callbacks.add(() -> memberAdded(member));
    }

    void changed(MemberImpl member) {
        provider.update(member);
    }

    void gone(MemberImpl member, int cause) {
        Member known = provider.remove(member);
        if (cause == Status.CLOSED) {
            return;
        }
        MemberImpl reported = known instanceof MemberImpl ? (MemberImpl) known : member;
        reported.setCommand(member.getCommand());
        log.info("Member " + reported.getName() + " has gone: " + Status.text(cause));
        callbacks.add(() -> {
            memberDisappeared(reported);
            // Of each life of a member stock keeps one for ever.
            SenderState.removeSenderState(reported);
        });
    }

    /** Runs a task when the listeners know all that was announced before. */
    void then(Runnable task) {
        callbacks.add(task);
    }

    static void execute(Channel channel, Runnable task) {
        Executor executor = channel == null ? null : channel.getUtilityExecutor();
        try {
            if (executor != null) {
                executor.execute(task);
                return;
            }
        } catch (RejectedExecutionException e) {
            log.debug("The utility executor is closed", e);
        }
        task.run();
    }

    /** The members, oldest first. */
    private final class Provider extends MembershipProviderBase {
        private final List<MemberImpl> all = new ArrayList<>();

        synchronized void put(MemberImpl member) {
            all.remove(member);
            all.add(member);
            sort();
        }

        synchronized void update(MemberImpl member) {
            int at = all.indexOf(member);
            if (at >= 0) {
                MemberImpl known = all.get(at);
                known.setMemberAliveTime(member.getMemberAliveTime());
                known.setPayload(member.getPayload());
                known.setCommand(member.getCommand());
                sort();
            }
        }

        synchronized Member remove(MemberImpl member) {
            int at = all.indexOf(member);
            return at < 0 ? null : all.remove(at);
        }

        synchronized void clear() {
            all.clear();
        }

        private void sort() {
            all.sort(Comparator.comparingLong(MemberImpl::getMemberAliveTime).reversed());
        }

        @Override
        public void start(int level) {
            // The engine does.
        }

        @Override
        public boolean stop(int level) {
            return true;
        }

        @Override
        public synchronized boolean hasMembers() {
            return !all.isEmpty();
        }

        @Override
        public synchronized Member getMember(Member member) {
            int at = all.indexOf(member);
            return at < 0 ? null : all.get(at);
        }

        @Override
        public synchronized Member[] getMembers() {
            return all.toArray(new Member[0]);
        }
    }

    /** Runs tasks one after another on the utility executor, in order. */
    private final class SerialQueue {
        private final List<Runnable> waiting = new ArrayList<>();
        private boolean running;

        void add(Runnable task) {
            synchronized (waiting) {
                waiting.add(task);
                if (running) {
                    return;
                }
                running = true;
            }
            execute(getChannel(), this::drain);
        }

        private void drain() {
            while (true) {
                Runnable task;
                synchronized (waiting) {
                    if (waiting.isEmpty()) {
                        running = false;
                        return;
                    }
                    task = waiting.remove(0);
                }
                try {
                    task.run();
                } catch (RuntimeException e) {
                    log.error("A membership listener failed", e);
                }
            }
        }
    }
}
