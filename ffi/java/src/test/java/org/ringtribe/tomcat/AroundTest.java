package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;

import javax.management.MBeanServer;
import javax.management.ObjectName;
import javax.servlet.http.HttpServlet;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;

import org.apache.catalina.ha.authenticator.ClusterSingleSignOn;
import org.apache.catalina.ha.context.ReplicatedContext;
import org.apache.catalina.tribes.Member;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What stands around the managers and uses the same channel, what is seen of it by JMX, and where a cluster ends. */
class AroundTest {

    private static final String INTERCEPTORS = "org.apache.catalina.tribes.group.interceptors.";

    /** An attribute of the application, and one of the session. */
    public static final class Attributes extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            String value = request.getParameter("v");
            if (value != null) {
                getServletContext().setAttribute("shared", value);
                request.getSession().setAttribute("own", value);
            }
            response.getWriter().print(getServletContext().getAttribute("shared"));
        }
    }

    @Test
    void whoLoggedInToOneApplicationAtOneNodeIsKnownToAnotherOneAtTheOther() throws Exception {
        TwoNodes two = new TwoNodes();
        LoginCopiesTest.writeUsers();
        String inside = "<Valve className='" + RingtribeReplicationValve.class.getName() + "'/><Valve className='"
                + ClusterSingleSignOn.class.getName() + "'/>";
        try (Site site = new Site()) {
            site.add("one", "", LoginCopiesTest.form());
            site.add("two", "", LoginCopiesTest.form() + Site.servlet(Logout.class, "/logout"));
            // The engines have names of their own in this JVM, and stock calls the map of logins by the cluster's.
            String words = "clusterName='shops'";
            try (OneNode b = two.node("B", words, inside, LoginCopiesTest.REALM);
                    OneNode a = two.node("A", words, inside, LoginCopiesTest.REALM)) {
                b.start();
                a.start();
                Site.Visitor ann = new Site.Visitor();
                ann.get(a, "/one/private");
                ann.post(a, "/one/j_security_check", "j_username=ann&j_password=secret");
                assertEquals("GET item=null by ann buyer=true seller=false", ann.get(a, "/one/private"));
                assertTrue(ann.cookies.containsKey("JSESSIONIDSSO"), ann.cookies.toString());
                // Of the other application she has no session anywhere.
                ann.cookies.remove("JSESSIONID");
                assertEquals("GET item=null by ann buyer=true seller=false", ann.get(b, "/two/private"));
                // And who leaves one, leaves both.
                ann.get(b, "/two/logout");
                ann.cookies.remove("JSESSIONID");
                assertEquals("/page", ann.get(a, "/one/private"));
            }
        }
    }

    /** Ends the login. */
    public static final class Logout extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) {
            request.getSession().invalidate();
        }
    }

    @Test
    void anAttributeOfAReplicatedContextIsOneOfBoth() throws Exception {
        TwoNodes two = new TwoNodes();
        try (Site site = new Site()) {
            site.add("both", "className='" + ReplicatedContext.class.getName() + "' mapSendOptions='6'",
                    Site.servlet(Attributes.class, "/attributes"));
            site.add("each", "", Site.servlet(Attributes.class, "/attributes"));
            try (OneNode a = two.started("A", "")) {
                Site.Visitor visitor = new Site.Visitor();
                visitor.get(a, "/both/attributes?v=early");
                try (OneNode b = two.started("B", "")) {
                    assertEquals("early", new Site.Visitor().get(b, "/both/attributes"));
                    visitor.get(a, "/both/attributes?v=late");
                    assertEquals("late", new Site.Visitor().get(b, "/both/attributes"));
                    visitor.get(b, "/both/attributes?v=back");
                    assertEquals("back", new Site.Visitor().get(a, "/both/attributes"));
                    visitor.get(a, "/each/attributes?v=alone");
                    assertEquals("null", new Site.Visitor().get(b, "/each/attributes"));
                }
            }
        }
    }

    @ParameterizedTest
    @ValueSource(strings = { "mcastAddr='228.0.0.4' |mcastAddr='228.0.0.5' ", "clusterName='one' |clusterName='two' " })
    void twoClustersOfTwoHaveNothingInCommon(String words) throws Exception {
        TwoNodes both = new TwoNodes();
        String one = words.split("\\|")[0];
        String two = words.split("\\|")[1];
        try (Site site = new Site()) {
            site.add("each", "", Site.servlet(Attributes.class, "/attributes"));
            try (OneNode a = both.started("A", one); OneNode c = both.started("C", two); OneNode b = both.started("B", one);
                    OneNode d = both.started("D", two)) {
                for (OneNode node : new OneNode[] { a, b, c, d }) {
                    TwoNodes.await("its member", () -> node.channel().getMembers().length > 0);
                }
                Site.Visitor visitor = new Site.Visitor();
                visitor.get(a, "/each/attributes?v=1");
                Site.Visitor other = new Site.Visitor();
                other.get(d, "/each/attributes?v=2");
                assertEquals(new TreeSet<>(java.util.Arrays.asList(visitor.session())), sessions(a));
                assertEquals(sessions(a), sessions(b));
                assertEquals(new TreeSet<>(java.util.Arrays.asList(other.session())), sessions(d));
                assertEquals(sessions(d), sessions(c));
                hasOnly(a, b);
                hasOnly(b, a);
                hasOnly(c, d);
                hasOnly(d, c);
                // Nor does one that begins now get anything from there.
                try (OneNode late = both.started("E", two)) {
                    assertEquals(sessions(d), sessions(late));
                }
            }
        }
    }

    private static Set<String> sessions(OneNode node) {
        return java.util.Arrays.stream(node.context("localhost", "/each").getManager().findSessions())
                .map(session -> session.getIdInternal()).collect(Collectors.toCollection(TreeSet::new));
    }

    private static void hasOnly(OneNode node, OneNode member) {
        Member[] members = node.channel().getMembers();
        assertEquals(1, members.length);
        assertEquals(member.channel().getLocalMember(false).getPort(), members[0].getPort());
    }

    @Test
    void theMBeansHaveStocksNames() throws Exception {
        MBeanServer server = ManagementFactory.getPlatformMBeanServer();
        TwoNodes two = new TwoNodes();
        String channel = "ClusterChannel:type=Channel,channel=A-Channel,component=";
        // A channel of one's own, with every interceptor that one can have above it, in the order that they need.
        StringBuilder inside = new StringBuilder("<Channel className='" + RingtribeChannel.class.getName() + "'>");
        for (String name : new String[] { "ThroughputInterceptor", "GzipInterceptor", "MessageDispatchInterceptor",
                "EncryptInterceptor' encryptionKey='000102030405060708090a0b0c0d0e0f", "OrderInterceptor",
                "DomainFilterInterceptor' domain='one", "TcpFailureDetector", "StaticMembershipInterceptor" }) {
            inside.append("<Interceptor className='").append(INTERCEPTORS).append(name).append("'/>");
        }
        inside.append("</Channel>");
        String words = "mcastClusterDomain='one' ";
        try (Site site = new Site()) {
            site.add("each", "", Site.servlet(Attributes.class, "/attributes"));
            try (OneNode a = two.node("A", words, inside.toString(), ""); OneNode b = two.node("B", words, inside.toString(), "")) {
                a.start();
                b.start();
                TwoNodes.await("its member", () -> a.channel().getMembers().length == 1);
                for (String component : new String[] { "Channel", "Receiver", "Sender", "Membership",
                        "Interceptor,interceptorName=ThroughputInterceptor", "Interceptor,interceptorName=GzipInterceptor",
                        "Interceptor,interceptorName=MessageDispatchInterceptor",
                        "Interceptor,interceptorName=EncryptInterceptor",
                        "Interceptor,interceptorName=DomainFilterInterceptor",
                        "Interceptor,interceptorName=TcpFailureDetector",
                        "Interceptor,interceptorName=StaticMembershipInterceptor" }) {
                    assertTrue(server.isRegistered(new ObjectName(channel + component)), component + " is not among "
                            + server.queryNames(new ObjectName("ClusterChannel:*"), null));
                }
                Member member = a.channel().getMembers()[0];
                assertTrue(server.isRegistered(new ObjectName("A:type=Cluster")));
                assertTrue(server.isRegistered(new ObjectName("A:type=Cluster,component=Member,name="
                        + ObjectName.quote(member.getName()))), server.queryNames(new ObjectName("A:type=Cluster,*"), null) + "");
                // What monitoring asks for.
                assertEquals(a.channel().getLocalMember(false).getPort(), OneNode.jmx(channel + "Receiver", "Port"));
                assertEquals("127.0.0.1", OneNode.jmx(channel + "Receiver", "Address"));
                assertEquals(two.mcastPort, OneNode.jmx(channel + "Membership", "Port"));
                assertEquals(500L, OneNode.jmx(channel + "Membership", "DropTime"));
                // And the whole stack carries a session.
                Site.Visitor visitor = new Site.Visitor();
                visitor.get(a, "/each/attributes?v=1");
                assertEquals("1", ((RingtribeDeltaSession) b.context("localhost", "/each").getManager()
                        .findSession(visitor.session())).getAttribute("own"));
                long through = ((Number) OneNode.jmx(channel + "Interceptor,interceptorName=ThroughputInterceptor", "MsgTxCnt"))
                        .longValue();
                assertTrue(through > 1, through + " messages");
            }
            assertEquals(0, server.queryNames(new ObjectName(channel + "*,*"), null).size(), "all are gone with the node");
        }
    }
}
