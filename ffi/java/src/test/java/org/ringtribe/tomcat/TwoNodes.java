package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

import org.apache.catalina.ha.session.DeltaManager;

/** Several nodes of one cluster in this JVM, each with the application /shop. */
final class TwoNodes {

    static final String SHOP = "localhost#/shop";
    static final String BEAN = ":type=Manager,host=localhost,context=/shop";
    static final String STOCK = "managerClassName='org.apache.catalina.ha.session.DeltaManager' ";
    private static final String CONNECTOR = "<Connector port='0' address='127.0.0.1'/>";
    private static final long LONGEST_WAIT_MS = 30_000;

    final int mcastPort = OneNode.freeUdpPort();

    TwoNodes() throws Exception {
        OneNode.write("../webapps/shop/WEB-INF/web.xml", "<web-app metadata-complete='true'><distributable/></web-app>");
    }

    /** @param engine its name, another one for each of two that are there at the same time */
    OneNode node(String engine, String attributes) throws Exception {
        return node(engine, attributes, "", "");
    }

    /**
     * @param inside elements below Cluster
     * @param beside elements below Engine
     */
    OneNode node(String engine, String attributes, String inside, String beside) throws Exception {
        return new OneNode("<Cluster className='org.ringtribe.tomcat.RingtribeCluster' " + OneNode.HERE + "mcastPort='"
                + mcastPort + "' tcpListenAddress='127.0.0.1' tcpListenPort='@TCP@' " + attributes + ">" + inside
                + "</Cluster>" + beside, CONNECTOR, engine);
    }

    OneNode started(String engine, String attributes) throws Exception {
        OneNode node = node(engine, attributes);
        node.start();
        return node;
    }

    static DeltaManager manager(OneNode node) {
        return (DeltaManager) node.context("localhost", "/shop").getManager();
    }

    static RingtribeDeltaManager ours(OneNode node) {
        return (RingtribeDeltaManager) manager(node);
    }

    static void await(String what, BooleanSupplier isSo) throws InterruptedException {
        long until = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(LONGEST_WAIT_MS);
        while (!isSo.getAsBoolean()) {
            assertTrue(System.nanoTime() < until, what);
            TimeUnit.MILLISECONDS.sleep(5);
        }
    }
}
