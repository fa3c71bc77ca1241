package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;

import org.apache.catalina.Valve;
import org.apache.catalina.ha.session.ClusterSessionListener;
import org.apache.catalina.ha.session.DeltaManager;
import org.apache.catalina.ha.deploy.FarmWarDeployer;
import org.apache.catalina.ha.tcp.ReplicationValve;
import org.apache.catalina.tribes.membership.McastService;
import org.apache.catalina.tribes.transport.nio.NioReceiver;
import org.junit.jupiter.api.Test;

/** The one element, the words of 2007 on it or in a file, and the long form: what reaches the parts. */
class ConfigurationTest {

    private static final String OPEN = "<Cluster className='org.ringtribe.tomcat.RingtribeCluster' ";

    private static void says(String text, String... parts) {
        for (String part : parts) {
            assertTrue(text.contains(part), part + " in: " + text);
        }
    }

    @Test
    void theWordsOf2007OnTheOneElementReachTheirParts() throws Exception {
        String cluster = OPEN + OneNode.HERE + "mcastAddr='228.0.0.9' mcastPort='@MCAST@' mcastTTL='0' "
                + "mcastClusterDomain='blue' clusterName='shop' managerClassName='org.apache.catalina.cluster.session.DeltaManager' "
                + "expireSessionsOnShutdown='true' useDirtyFlag='true' notifyListenersOnReplication='false' "
                + "manager.maxActiveSessions='77' tcpListenAddress='127.0.0.1' tcpListenPort='@TCP@' tcpSelectorTimeout='150' "
                + "tcpThreadCount='2' replicationMode='fastasyncqueue' ackTimeout='7000' maxPoolSocketLimit='9' "
                + "compress='false' autoConnect='true' keepAliveTimeout='1' keepAliveMaxRequestCount='5' resend='true' "
                + "maxQueueLength='5' recoverTimeout='5' recoverCounter='5' mcastSoTimeout='5' doClusterLog='true' "
                + "receiver.maxThreads='33'/>";
        try (OneNode node = new OneNode(cluster)) {
            node.start();
            McastService membership = (McastService) node.channel().getMembershipService();
            assertEquals("228.0.0.9", membership.getAddress());
            assertEquals(50, membership.getFrequency());
            assertEquals(500, membership.getDropTime());
            assertEquals("127.0.0.1", membership.getBind());
            assertEquals("blue", new String(membership.getDomain(), StandardCharsets.ISO_8859_1));
            NioReceiver receiver = (NioReceiver) node.channel().getChannelReceiver();
            assertEquals(150, receiver.getSelectorTimeout());
            assertEquals(33, receiver.getMaxThreads());
            assertEquals(8, node.cluster().getChannelSendOptions());
            DeltaManager manager = (DeltaManager) node.cluster().getManagerTemplate();
            assertTrue(manager.isExpireSessionsOnShutdown());
            assertFalse(manager.isNotifyListenersOnReplication());
            assertEquals(77, manager.getMaxActiveSessions());
            String log = node.log();
            String effective = ((RingtribeCluster) node.cluster()).getEffectiveConfiguration();
            says(effective, "mcastAddr=228.0.0.9 (old word mcastAddr of Cluster)", "mcastTTL=0 (old word",
                    "mcastClusterDomain=blue (old word", "autoBind=0 (as Tomcat 5.5", "tcpThreadCount=2 (old word",
                    "ackTimeout=7000 (old word ackTimeout of Cluster)", "poolSize=9 (old word maxPoolSocketLimit of Cluster)",
                    "clusterName=shop (attribute clusterName of Cluster)", "channelSendOptions=8 (replicationMode",
                    "expireSessionsOnShutdown=true (old word", "maxActiveSessions=77 (attribute manager.maxActiveSessions");
            says(log, "configured: " + effective);
            for (String name : new String[] { "compress", "autoConnect", "keepAliveTimeout", "keepAliveMaxRequestCount",
                    "resend", "maxQueueLength", "recoverTimeout", "recoverCounter", "mcastSoTimeout", "doClusterLog" }) {
                assertEquals(2, log.split(name + "=\"", -1).length, name + " is named once in: " + log);
            }
            assertEquals(effective, OneNode.jmx("Catalina:type=Cluster", "effectiveConfiguration"));
            assertEquals(effective, OneNode.jmx("ClusterChannel:type=Channel,channel=shop-Channel,component=Sender",
                    "EffectiveConfiguration"));
            says(log, "the application \"/plain\" are not copied", "<distributable/>");
        }
    }

    @Test
    void withoutAWordAnUpdateIsAcknowledged() throws Exception {
        try (OneNode node = new OneNode(OPEN + OneNode.HERE + "membership.port='@MCAST@' "
                + "receiver.address='127.0.0.1' receiver.port='@TCP@'/>")) {
            node.start();
            assertEquals(6, node.cluster().getChannelSendOptions());
            String effective = ((RingtribeCluster) node.cluster()).getEffectiveConfiguration();
            says(effective, "mcastAddr=228.0.0.4 (default)", "(attribute port of Cluster)", "autoBind=100 (default)",
                    "channelSendOptions=6 (default", "manager=" + ManagerWords.standard().getClass().getName());
            assertFalse(effective.contains("clusterName"), effective);
        }
    }

    @Test
    void theLongFormIsEqual() throws Exception {
        try (OneNode node = new OneNode("<Cluster className='org.apache.catalina.ha.tcp.SimpleTcpCluster' "
                + "clusterName='shop'><Channel className='org.ringtribe.tomcat.RingtribeChannel'>"
                + "<Membership className='org.ringtribe.tomcat.RingtribeMembership' mcastBindAddr='127.0.0.1' port='@MCAST@' "
                + "mcastFrequency='50' dropTime='500'/>"
                + "<Receiver className='org.ringtribe.tomcat.RingtribeReceiver' address='127.0.0.1' tcpListenPort='@TCP@' "
                + "autoBind='5'/>"
                + "<Sender className='org.ringtribe.tomcat.RingtribeSender' replicationMode='synchronous' waitForAck='false' "
                + "timeout='7000'/></Channel></Cluster>")) {
            node.start();
            assertEquals(1, node.cluster().getChannelSendOptions());
            says(node.log(), "mcastBindAddr=127.0.0.1 (old word mcastBindAddr of Membership)",
                    "mcastDropTime=500 (attribute dropTime of Membership)", "autoBind=5 (attribute autoBind of Receiver)",
                    "ackTimeout=7000 (attribute timeout of Sender)", "clusterName=shop",
                    "WARNING: replicationMode=\"synchronous\" waitForAck=\"false\": a request ends without");
        }
    }

    @Test
    void theSeedsElementAsItStands() throws Exception {
        String seed = new String(Files.readAllBytes(Paths.get("../../tests/testdata/seed-server.xml")), StandardCharsets.UTF_8);
        // The values that belong to the seed's machine and network.
        String tcpPort = String.valueOf(OneNode.freePort());
        String mcastPort = String.valueOf(OneNode.freeUdpPort());
        OneNode.write("cluster-5.5.xml",
                seed.replace("192.168.1.109", "127.0.0.1").replace("\"4002\"", '"' + tcpPort + '"')
                        .replace("\"46002\"", '"' + mcastPort + '"'));
        // A deployer belongs below a Host.
        String host = "<Host name='www' appBase='none' deployOnStartup='false'>" + OPEN
                + "config='conf/cluster-5.5.xml' mcastBindAddr='127.0.0.1'/></Host>";
        try (OneNode node = new OneNode(host)) {
            node.start();
            RingtribeCluster cluster = (RingtribeCluster) node.host("www").getCluster();
            String effective = cluster.getEffectiveConfiguration();
            String line = " of conf/cluster-5.5.xml line ";
            says(effective, "mcastAddr=224.0.0.5 (old word mcastAddr" + line, "mcastPort=" + mcastPort + " (old word mcastPort" + line,
                    "mcastFrequency=500 (old word", "mcastDropTime=3000 (old word",
                    "tcpListenAddress=127.0.0.1 (old word", "tcpListenPort=" + tcpPort + " (old word", "tcpSelectorTimeout=100 (old word",
                    "tcpThreadCount=6 (old word", "replicationMode=pooled (old word", "ackTimeout=15000 (old word",
                    "waitForAck=true (old word", "channelSendOptions=6", "useDirtyFlag=true (old word",
                    "expireSessionsOnShutdown=false (old word", "notifyListenersOnReplication=true (old word");
            Valve[] valves = cluster.getValves();
            assertEquals(1, valves.length);
            assertEquals(".*\\.gif|.*\\.js|.*\\.jpg|.*\\.png|.*\\.htm|.*\\.html|.*\\.css|.*\\.txt",
                    ((ReplicationValve) valves[0]).getFilter());
            FarmWarDeployer deployer = (FarmWarDeployer) cluster.getClusterDeployer();
            assertEquals(2, cluster.findClusterListeners().length);
            assertTrue(cluster.findClusterListeners()[0] instanceof ClusterSessionListener);
            assertEquals(deployer, cluster.findClusterListeners()[1]);
            assertEquals("/tmp/war-temp/", deployer.getTempDir());
            assertEquals("/tmp/war-listen/", deployer.getWatchDir());
            assertEquals(Integer.parseInt(tcpPort), ((NioReceiver) ((RingtribeChannel) cluster.getChannel()).getChannelReceiver()).getPort());
        }
    }

    @Test
    void aStockValveWithAListIsGivenOneExpression() throws Exception {
        try (OneNode node = new OneNode(OPEN + OneNode.HERE + "mcastPort='@MCAST@' tcpListenAddress='127.0.0.1' "
                + "tcpListenPort='@TCP@'><Valve className='org.apache.catalina.ha.tcp.ReplicationValve' "
                + "filter='.*\\.gif;(?i).*\\.js;'/></Cluster>")) {
            node.start();
            assertEquals(".*\\.gif|(?:(?i).*\\.js)", ((ReplicationValve) node.cluster().getValves()[0]).getFilter());
            says(node.log(), "filter=\".*\\.gif;(?i).*\\.js;\" is a list of Tomcat 5.5");
        }
    }
}
