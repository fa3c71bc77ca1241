package org.ringtribe.tomcat;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.net.DatagramSocket;
import java.net.ServerSocket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.logging.Handler;
import java.util.logging.LogRecord;
import java.util.logging.Logger;

import javax.management.JMException;
import javax.management.MBeanServer;
import javax.management.ObjectName;

import org.apache.catalina.Container;
import org.apache.catalina.Context;
import org.apache.catalina.LifecycleException;
import org.apache.catalina.LifecycleState;
import org.apache.catalina.ha.tcp.SimpleTcpCluster;
import org.apache.catalina.startup.Catalina;

/** A Tomcat in this JVM, from a server.xml with one Cluster element; without connectors unless a test gives some. */
final class OneNode implements AutoCloseable {

    private final Logger logger = Logger.getLogger("org.ringtribe");
    private final StringBuilder log = new StringBuilder();
    private final Handler handler = new Handler() {
        @Override
        public void publish(LogRecord record) {
            synchronized (log) {
                log.append(record.getLevel()).append(": ").append(record.getMessage()).append('\n');
            }
        }

        @Override
        public void flush() {
            // Nothing is kept back.
        }

        @Override
        public void close() {
            // Nothing is open.
        }
    };
    private final Catalina catalina = new Catalina();

    /** On loopback, with short times; a test adds or replaces attributes. */
    static final String HERE = "mcastBindAddr='127.0.0.1' mcastFrequency='50' mcastDropTime='500' ";

    /** The catalina.base; Tomcat remembers the first one of a JVM for all that follow. */
    static final Path BASE = Paths.get("target", "one-node").toAbsolutePath();

    static {
        System.setProperty("catalina.base", BASE.toString());
        System.setProperty("catalina.home", BASE.toString());
    }

    /** Writes a file below conf. */
    static void write(String name, String text) throws IOException {
        Path file = BASE.resolve("conf").resolve(name).normalize();
        Files.createDirectories(file.getParent());
        Files.write(file, text.getBytes(StandardCharsets.UTF_8));
    }

    /** @param cluster the element; @MCAST@ and @TCP@ in it become free ports */
    OneNode(String cluster) throws IOException {
        this(cluster, "");
    }

    /** @param connectors elements that stand before the Engine */
    OneNode(String cluster, String connectors) throws IOException {
        this(cluster, connectors, "Catalina");
    }

    /** @param engine its name, another one for each of two nodes that are there at the same time */
    OneNode(String cluster, String connectors, String engine) throws IOException {
        Files.createDirectories(BASE.resolve("temp"));
        Files.createDirectories(BASE.resolve("webapps/plain/WEB-INF"));
        String xml = "<Server port='-1'><Service name='" + engine + "'>" + connectors + "<Engine name='" + engine + "' defaultHost='localhost'>"
                + cluster.replace("@MCAST@", String.valueOf(freeUdpPort())).replace("@TCP@", String.valueOf(freePort()))
                + "<Host name='localhost' appBase='webapps' unpackWARs='false'/></Engine></Service></Server>";
        write("server.xml", xml);
        logger.addHandler(handler);
        catalina.setUseNaming(false);
        catalina.setConfigFile("conf/server.xml");
        catalina.load();
    }

    static int freePort() throws IOException {
        try (ServerSocket socket = new ServerSocket(0)) {
            return socket.getLocalPort();
        }
    }

    static int freeUdpPort() throws IOException {
        try (DatagramSocket socket = new DatagramSocket(0)) {
            return socket.getLocalPort();
        }
    }

    void start() throws LifecycleException {
        catalina.getServer().start();
    }

    /** @return why it does not start: the messages of all causes */
    String refusal() {
        try {
            start();
        } catch (LifecycleException e) {
            StringBuilder text = new StringBuilder();
            for (Throwable cause = e; cause != null; cause = cause.getCause()) {
                text.append(cause.getMessage()).append('\n');
            }
            return text.toString();
        }
        throw new AssertionError("it started");
    }

    SimpleTcpCluster cluster() {
        return (SimpleTcpCluster) catalina.getServer().findServices()[0].getContainer().getCluster();
    }

    Container host(String name) {
        return catalina.getServer().findServices()[0].getContainer().findChild(name);
    }

    Context context(String host, String path) {
        Container found = catalina.getServer().findServices()[0].getContainer().findChild(host).findChild(path);
        return (Context) found;
    }

    /** @return of the first connector */
    int port() {
        return catalina.getServer().findServices()[0].findConnectors()[0].getLocalPort();
    }

    /** @return of the first connector: whether HTTP is open */
    LifecycleState connectorState() {
        return catalina.getServer().findServices()[0].findConnectors()[0].getState();
    }

    RingtribeChannel channel() {
        return (RingtribeChannel) cluster().getChannel();
    }

    /** @return what the project's classes logged */
    String log() {
        synchronized (log) {
            return log.toString();
        }
    }

    static Object jmx(String name, String attribute) throws JMException {
        MBeanServer server = ManagementFactory.getPlatformMBeanServer();
        return server.getAttribute(new ObjectName(name), attribute);
    }

    @Override
    public void close() throws LifecycleException {
        logger.removeHandler(handler);
        if (catalina.getServer().getState().isAvailable()) {
            catalina.getServer().stop();
        }
        catalina.getServer().destroy();
    }
}
