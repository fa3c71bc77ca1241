package org.ringtribe.tomcat;

import java.io.IOException;
import java.net.InetAddress;
import java.util.Arrays;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

import javax.management.ObjectName;

import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.MessageListener;
import org.apache.catalina.tribes.io.BufferPool;
import org.apache.catalina.tribes.io.ChannelData;
import org.apache.catalina.tribes.io.XByteBuffer;
import org.apache.catalina.tribes.jmx.JmxRegistry;
import org.apache.catalina.tribes.membership.MemberImpl;
import org.apache.catalina.tribes.transport.nio.NioReceiver;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;
import org.ringtribe.Records;

/**
 * The Receiver element. The engine owns the port and all sockets; threads of this class take the
 * messages and run the channel's listeners. They grow up to maxThreads (default 200 here) as long as
 * all are busy, so that listeners that wait for replies do not keep those replies from coming.
 */
public class RingtribeReceiver extends NioReceiver implements ChannelEngine.Part {

    private static final Log log = LogFactory.getLog(RingtribeReceiver.class);
    private static final int DEFAULT_MAX_THREADS = 200;
    /** Beside two of each member: who has gone, or sent before it was announced. */
    private static final int SENDERS_BESIDE = 16;

    private final Settings settings = new Settings(Words.RECEIVER, this, this::mirror);
    private final Map<Package,MemberImpl> senders = new ConcurrentHashMap<>();
    private String configured = "auto";
    private volatile ChannelEngine shared;
    private ObjectName name;

    public RingtribeReceiver() {
        setMaxThreads(DEFAULT_MAX_THREADS);
    }

    @Override
    public Settings settings() {
        return settings;
    }

    @Override
    public void configure(Configuration config) {
        Settings.Given address = settings.get("tcpListenAddress");
        if (address == null) {
            config.put("tcpListenAddress", resolved(configured), "auto", settings);
        } else {
            // The engine takes digits; a name is resolved here.
            config.put("tcpListenAddress", resolved(address.value), address.origin());
        }
        NioReceiver standard = new NioReceiver();
        config.put("tcpListenPort", getPort(), standard.getPort(), settings);
        Settings.Given port = settings.get("tcpListenPort");
        if (port != null && port.isOld() && settings.get("autoBind") == null) {
            config.put("autoBind", "0", "as Tomcat 5.5 with tcpListenPort: that port or none");
        } else {
            config.put("autoBind", Math.max(0, getAutoBind()), standard.getAutoBind(), settings);
        }
        config.put("tcpSelectorTimeout", getSelectorTimeout(), standard.getSelectorTimeout(), settings);
        for (String attribute : new String[] { "tcpThreadCount", "backend", "maxReceiveBytes", "maxConnections" }) {
            config.put(attribute, null, null, settings);
        }
    }

    private static String resolved(String address) {
        if ("auto".equals(address)) {
            return address;
        }
        try {
            return InetAddress.getByName(address).getHostAddress();
        } catch (IOException e) {
            throw new IllegalArgumentException("tcpListenAddress=\"" + address + "\" of the Receiver is refused: it "
                    + "cannot be resolved (" + e.getMessage() + "); give an address of this machine or auto", e);
        }
    }

    @Override
    public void setAddress(String address) {
        settings.give("address", address);
    }

    @Override
    public void setHost(String host) {
        configured = host;
        super.setHost(host);
    }

    @Override
    public void setBind(InetAddress bind) {
        configured = bind.getHostAddress();
        super.setBind(bind);
    }

    /** @param port first port tried; text, so that the engine refuses what is none */
    public void setPort(String port) {
        settings.give("port", port);
    }

    /** @param count ports tried */
    public void setAutoBind(String count) {
        settings.give("autoBind", count);
    }

    /** @param millis accepted for its name */
    public void setSelectorTimeout(String millis) {
        settings.give("selectorTimeout", millis);
    }

    /**
     * The words of Tomcat 5.5 (tcpListenAddress, tcpListenPort, tcpThreadCount ...), those of the
     * engine (backend ...), and what has no setter.
     *
     * @return true: what is wrong is told at the start
     */
    public boolean setProperty(String attribute, String value) {
        settings.give(attribute, value);
        return true;
    }

    private void mirror(String attribute, String value) {
        Integer number = Settings.integer(value);
        if (attribute.equals("tcpListenAddress")) {
            configured = value;
            super.setAddress(value);
        } else if (attribute.equals("tcpListenPort") && number != null) {
            setPort(number.intValue());
        } else if (attribute.equals("autoBind") && number != null) {
            setAutoBind(number.intValue());
        } else if (attribute.equals("tcpSelectorTimeout") && number != null) {
            setSelectorTimeout(number.longValue());
        }
    }

    @Override
    public void start() throws IOException {
        if (shared != null) {
            return;
        }
        if (getUdpPort() > 0) {
            log.warn("udpPort=\"" + getUdpPort() + "\" is ignored: this receiver takes no datagrams");
            setUdpPort(-1);
        }
        shared = ChannelEngine.acquire(getChannel());
        try {
            String bound = shared.engine().listen();
            int colon = bound.lastIndexOf(':');
            String host = bound.substring(0, colon);
            super.setHost(host);
            super.setBind(InetAddress.getByName(host));
            setPort(Integer.parseInt(bound.substring(colon + 1)));
        } catch (IOException e) {
            shared.release();
            shared = null;
            throw e;
        }
        log.info("Receiver listens on " + getHost() + ":" + getPort());
        shared.engine().startPollers(getMinThreads(), getMaxThreads(), getMaxIdleTime(), this::received);
        setListen(true);
        JmxRegistry registry = JmxRegistry.getRegistry(getChannel());
        if (registry != null) {
            name = registry.registerJmx(",component=Receiver", this);
        }
    }

    @Override
    public void stop() {
        setListen(false);
        if (shared == null) {
            return;
        }
        shared.engine().stopListening();
        shared.engine().stopPollers();
        if (name != null) {
            JmxRegistry registry = JmxRegistry.getRegistry(getChannel());
            if (registry != null) {
                registry.unregisterJmx(name);
            }
            name = null;
        }
        shared.release();
        shared = null;
        senders.clear();
        setChannel(null);
    }

    @Override
    public boolean isListening() {
        return shared != null;
    }

    private void received(Records record) {
        ChannelData message = new ChannelData(false);
        int length = record.payloadLength();
        XByteBuffer buffer = BufferPool.getBufferPool().getBuffer(length, false);
        try {
            message.setOptions(record.options());
            message.setTimestamp(record.timestamp());
            message.setUniqueId(record.uniqueId());
            message.setAddress(sender(record.sender()));
            record.payload(buffer.getBytesDirect(), 0);
            buffer.setLength(length);
            message.setMessage(buffer);
            deliver(message);
        } catch (RuntimeException | Error e) {
            log.warn("A message from " + message.getAddress() + " was not accepted by its listener", e);
            throw e;
        } finally {
            BufferPool.getBufferPool().returnBuffer(buffer);
        }
    }

    private void deliver(ChannelMessage message) {
        MessageListener listener = getMessageListener();
        if (listener != null && listener.accept(message)) {
            listener.messageReceived(message);
        }
    }

    /** Members repeat from message to message; parsing one costs more than looking it up. */
    private MemberImpl sender(byte[] bytes) {
        Package key = new Package(bytes);
        MemberImpl known = senders.get(key);
        if (known == null) {
            known = (MemberImpl) MemberImpl.getMember(bytes);
            ChannelEngine engine = shared;
            int most = SENDERS_BESIDE + (engine == null ? 0 : 2 * engine.membersCount());
            if (senders.size() >= most) {
                senders.clear();
            }
            senders.put(key, known);
        }
        return known;
    }

    /** Bytes as a map key. */
    private static final class Package {
        private final byte[] bytes;
        private final int hash;

        Package(byte[] bytes) {
            this.bytes = bytes;
            this.hash = Arrays.hashCode(bytes);
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Package && Arrays.equals(bytes, ((Package) other).bytes);
        }

        @Override
        public int hashCode() {
            return hash;
        }
    }
}
