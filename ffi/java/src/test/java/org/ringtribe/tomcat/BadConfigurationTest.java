package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;

import org.apache.catalina.LifecycleException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What an administrator gets wrong: the node does not start, and the error has all that repairs it. */
class BadConfigurationTest {

    private static final String OPEN = "<Cluster className='org.ringtribe.tomcat.RingtribeCluster' ";

    private void refused(String cluster, String... says) throws IOException, LifecycleException {
        try (OneNode node = new OneNode(cluster)) {
            String text = node.refusal();
            for (String part : says) {
                assertTrue(text.contains(part), part + " in: " + text);
            }
        }
    }

    /** Attributes of the one element; after each, what the error says. */
    @ParameterizedTest
    @CsvSource(quoteCharacter = '`', delimiter = '|', value = {
            "tcpListenPort='0'            | tcpListenPort=\"0\"       | 1 to 65535",
            "tcpListenPort='70000'        | tcpListenPort=\"70000\"   | 1 to 65535",
            "receiver.port='70000'        | given as port=\"70000\"   | 1 to 65535",
            "tcpListenPort='first'        | tcpListenPort=\"first\"   | 1 to 65535",
            "tcpListenAddress='192.0.2.1' | tcpListenAddress=\"192.0.2.1\" | give auto or one of",
            "mcastAddr='10.0.0.1'         | mcastAddr=\"10.0.0.1\"    | 224.0.0.0 to 239.255.255.255",
            "mcastBindAddress='192.0.2.1' | mcastBindAddr=\"192.0.2.1\" | set mcastBindAddr to one of this machine's",
            "mcastDropTime='99'           | mcastDropTime=\"99\"      | 2 x mcastFrequency",
            "replicationMode='poled'      | replicationMode=\"poled\" | did you mean pooled?",
            "tcpThreadCount='0'           | tcpThreadCount=\"0\"      | 5.5 received nothing with 0",
            "tcpThreadCount='10000'       | tcpThreadCount=\"10000\"  | 1 to 64",
            "ackTimeout='0'               | ackTimeout=\"0\"          | 5.5 waited for ever with 0",
            "waitForAck='maybe'           | waitForAck=\"maybe\"      | true or false",
            "mcastFreqency='500'          | mcastFreqency=\"500\"     | did you mean mcastFrequency?",
            "expireSessionOnShutdown='true' | expireSessionOnShutdown=\"true\" | did you mean expireSessionsOnShutdown?",
            "manager.maxActiveSession='5' | manager.maxActiveSession=\"5\" | did you mean maxActiveSessions?",
            "expireSessionsOnShutdown='yes' | expireSessionsOnShutdown=\"yes\" | true or false",
            "managerClassName='org.example.None' | managerClassName=\"org.example.None\" | there is no such class",
            "tcpListenPort='4002' receiver.port='4003' | tcpListenPort=\"4002\" of Cluster | contradict each other",
            "replicationMode='pooled' channelSendOptions='8' | channelSendOptions=\"8\" | contradict each other",
            "onReplicationFailure='heder' | onReplicationFailure=\"heder\" of Cluster | did you mean header?",
            "onReplicationFailure='502'   | one of log, header, 503   | did you mean 503?",
            "onReplicationFailur='503'    | onReplicationFailur=\"503\" | did you mean onReplicationFailure?",
            "config='conf/none.xml'       | config=\"conf/none.xml\"  | relative to catalina.base",
    })
    void onTheOneElement(String attributes, String first, String second) throws Exception {
        String usual = "mcastPort='@MCAST@' mcastFrequency='50' "
                + (attributes.contains("mcastBind") ? "" : "mcastBindAddr='127.0.0.1' ")
                + (attributes.contains("mcastDropTime") ? "" : "mcastDropTime='500' ")
                + (attributes.contains("tcpListenAddress") ? "" : "tcpListenAddress='127.0.0.1' ");
        refused(OPEN + usual + attributes + "/>", first, second);
    }

    @Test
    void aPortInUseWithItsOwnerAndAFreeOne() throws Exception {
        try (ServerSocket taken = new ServerSocket(0, 1, InetAddress.getByName("127.0.0.1"))) {
            refused(OPEN + OneNode.HERE + "mcastPort='@MCAST@' tcpListenAddress='127.0.0.1' tcpListenPort='"
                    + taken.getLocalPort() + "'/>", "tcpListenPort=\"" + taken.getLocalPort() + "\"", "in use by process ",
                    " is free)", "autoBind");
        }
    }

    @Test
    void onTheElementsOfTheLongForm() throws Exception {
        String cluster = "<Cluster className='org.apache.catalina.ha.tcp.SimpleTcpCluster'>"
                + "<Channel className='org.ringtribe.tomcat.RingtribeChannel'>"
                + "<Membership className='org.ringtribe.tomcat.RingtribeMembership' bind='127.0.0.1' adress='228.0.0.4'/>"
                + "<Receiver className='org.ringtribe.tomcat.RingtribeReceiver' port='4000' tcpListenPort='4001'/>"
                + "<Sender className='org.ringtribe.tomcat.RingtribeSender' poolsize='25'/></Channel></Cluster>";
        refused(cluster, "adress=\"228.0.0.4\" of Membership is refused", "did you mean address?",
                "port=\"4000\" of Receiver and tcpListenPort=\"4001\" of Receiver contradict each other",
                "poolsize=\"25\" of Sender", "did you mean poolSize?");
    }

    @Test
    void aFilterThatIsNoRegularExpression() throws Exception {
        refused(OPEN + "><Valve className='org.ringtribe.tomcat.RingtribeReplicationValve' filter='*.gif'/></Cluster>",
                "filter=\"*.gif\"", "no regular expression", ".*\\.gif|.*\\.js");
    }

    @Test
    void whatHappensOnAFailureSaidTwiceOrToAValveThatCannot() throws Exception {
        String valve = "<Valve className='org.ringtribe.tomcat.RingtribeReplicationValve' onReplicationFailure=";
        refused(OPEN + "onReplicationFailure='503'>" + valve + "'header'/></Cluster>",
                "onReplicationFailure=\"503\" of Cluster and onReplicationFailure=\"header\" of Valve contradict each other");
        refused(OPEN + "onReplicationFailure='503'><Valve className='org.apache.catalina.ha.tcp.ReplicationValve'/></Cluster>",
                "onReplicationFailure=\"503\" of Cluster is refused", "take org.ringtribe.tomcat.RingtribeReplicationValve");
        // Stock's cluster asks its valves nothing: the valve itself does not start.
        refused("<Cluster className='org.apache.catalina.ha.tcp.SimpleTcpCluster'>" + valve + "'header, 503'/></Cluster>",
                "onReplicationFailure=\"header, 503\" of Valve is refused", "one of log, header, 503");
    }

    @Test
    void aFileOfTomcat55WithItsLines() throws Exception {
        OneNode.write("cluster-5.5.xml", "<Cluster className='org.apache.catalina.cluster.tcp.SimpleTcpCluster'\n"
                + "         mangerClassName='x'>\n"
                + "  <Membership mcastPort='46002'/>\n"
                + "  <Receiver tcpListenPrt='4002'/>\n"
                + "  <Valve className='org.apache.catalina.cluster.tcp.ReplicationValve' filtre='a'/>\n"
                + "  <Valve className='org.example.None'/>\n"
                + "  <Channel className='x'/>\n"
                + "</Cluster>");
        refused(OPEN + "config='conf/cluster-5.5.xml' mcastPort='46003'/>",
                "mangerClassName=\"x\" of conf/cluster-5.5.xml line 2 is refused", "did you mean managerClassName?",
                "tcpListenPrt=\"4002\" of conf/cluster-5.5.xml line 4", "did you mean tcpListenPort?",
                "filtre=\"a\" of conf/cluster-5.5.xml line 5", "did you mean filter?",
                "className=\"org.example.None\" of <Valve> at conf/cluster-5.5.xml line 6",
                "<Channel> at conf/cluster-5.5.xml line 7",
                "mcastPort=\"46003\" of Cluster and mcastPort=\"46002\" of conf/cluster-5.5.xml line 3 contradict");
    }

    @Test
    void aFileThatIsNoXmlOrHasADoctype() throws Exception {
        OneNode.write("c.xml", "<Cluster\n<");
        refused(OPEN + "config='conf/c.xml'/>", "config=\"conf/c.xml\"", "not XML at line 2");
        OneNode.write("c.xml", "<!DOCTYPE Cluster [<!ENTITY a 'b'>]><Cluster/>");
        refused(OPEN + "config='conf/c.xml'/>", "config=\"conf/c.xml\"", "DOCTYPE");
        OneNode.write("c.xml", "<Server/>");
        refused(OPEN + "config='conf/c.xml'/>", "has no Cluster element");
    }
}
