package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;

import javax.servlet.http.HttpServlet;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;

import org.apache.catalina.Engine;
import org.apache.catalina.authenticator.Constants;
import org.apache.catalina.connector.Request;
import org.apache.catalina.connector.Response;
import org.apache.catalina.valves.ValveBase;
import org.junit.jupiter.api.Test;

/** Who is logged in at one node is so at the other one, and a login that one begins the other one finishes. */
class LoginCopiesTest {

    static final String REALM = "<Realm className='org.apache.catalina.realm.MemoryRealm' pathname='conf/users.xml'/>";

    /** Says who asks, and what for. */
    public static final class Private extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
            response.getWriter().print(request.getMethod() + " item=" + request.getParameter("item") + " by "
                    + request.getRemoteUser() + " buyer=" + request.isUserInRole("buyer") + " seller="
                    + request.isUserInRole("seller"));
        }
    }

    /** The login page and the one for errors. */
    public static final class Page extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
            response.getWriter().print(request.getServletPath());
        }
    }

    /** Notes something that no other node can read. */
    public static final class NotingValve extends ValveBase {
        public NotingValve() {
            super(true);
        }

        @Override
        public void invoke(Request request, Response response) throws IOException {
            if ("noted".equals(request.getQueryString())) {
                request.getSessionInternal(true).setNote("only here", new Object());
            }
            try {
                getNext().invoke(request, response);
            } catch (javax.servlet.ServletException e) {
                throw new IOException(e);
            }
        }
    }

    static void writeUsers() throws IOException {
        OneNode.write("users.xml", "<tomcat-users><user username='ann' password='secret' roles='buyer'/></tomcat-users>");
    }

    /** @return elements for web.xml: /private is for who is logged in and has the role buyer */
    static String form() {
        return Site.servlet(Private.class, "/private") + Site.servlet(Page.class, "/page")
                + Site.servlet(Page.class, "/refused")
                + "<security-constraint><web-resource-collection><web-resource-name>all</web-resource-name>"
                + "<url-pattern>/private</url-pattern></web-resource-collection><auth-constraint><role-name>buyer</role-name>"
                + "</auth-constraint></security-constraint><login-config><auth-method>FORM</auth-method><form-login-config>"
                + "<form-login-page>/page</form-login-page><form-error-page>/refused</form-error-page></form-login-config>"
                + "</login-config><security-role><role-name>buyer</role-name></security-role>";
    }

    private static Site site() throws IOException {
        writeUsers();
        Site site = new Site();
        site.add("login", "", form());
        return site;
    }

    private static OneNode started(TwoNodes two, String name, String attributes) throws Exception {
        // Valves of the cluster are given, so that one of them can be a test's.
        String inside = "<Valve className='" + RingtribeReplicationValve.class.getName() + "' statistics='true'/>"
                + "<Valve className='org.apache.catalina.ha.session.JvmRouteBinderValve'/>";
        OneNode node = two.node(name, attributes, inside,
                REALM + "<Valve className='" + NotingValve.class.getName() + "'/>");
        ((Engine) node.host("localhost").getParent()).setJvmRoute(name);
        node.start();
        return node;
    }

    /** Tomcat sends the login page away before the valve sends the session. */
    private static void awaitKept(OneNode node, Site.Visitor visitor) throws Exception {
        RingtribeDeltaSession copy = (RingtribeDeltaSession) node.context("localhost", "/login").getManager()
                .findSession(visitor.session());
        TwoNodes.await("the request is kept", () -> copy.getNote(Constants.FORM_REQUEST_NOTE) != null);
    }

    @Test
    void aLoginThatOneNodeBeganTheOtherOneFinishesAndBothKnowWhoItIs() throws Exception {
        TwoNodes two = new TwoNodes();
        Site.Visitor ann = new Site.Visitor();
        try (Site site = site(); OneNode b = started(two, "B", "")) {
            try (OneNode a = started(two, "A", "manager.expireSessionsOnShutdown='false'")) {
                assertEquals("/page", ann.post(a, "/login/private", "item=bread"));
                assertTrue(ann.session().endsWith(".A"), ann.session());
                awaitKept(b, ann);
            }
            // A is gone, and the balancer sends what was typed to B.
            ann.post(b, "/login/j_security_check", "j_username=ann&j_password=secret");
            assertEquals("303 /login/private", ann.status + " " + ann.path(), ann.text);
            assertTrue(ann.session().endsWith(".B"), ann.session());
            // The request that A had kept.
            assertEquals("POST item=bread by ann buyer=true seller=false", ann.get(b, "/login/private"));

            try (OneNode again = started(two, "A", "")) {
                assertEquals("GET item=milk by ann buyer=true seller=false", ann.get(again, "/login/private?item=milk"));
                // Not with the state that came, but with a difference.
                Site.Visitor later = new Site.Visitor();
                assertEquals("/page", later.get(again, "/login/private?item=salt"));
                String before = later.session();
                later.post(again, "/login/j_security_check", "j_username=ann&j_password=secret");
                assertEquals(303, later.status, later.text);
                assertNotEquals(before, later.session());
                assertEquals("GET item=salt by ann buyer=true seller=false", later.get(again, later.path()));
                assertEquals("GET item=eggs by ann buyer=true seller=false", later.get(b, "/login/private?item=eggs"));
                assertEquals("FORM", b.context("localhost", "/login").getManager()
                        .findSession(later.session()).getAuthType());
                // A wrong password is one at the other node too.
                Site.Visitor eve = new Site.Visitor();
                eve.get(again, "/login/private");
                assertEquals("/refused", eve.post(b, "/login/j_security_check", "j_username=ann&j_password=guess"));
                assertEquals("/page", eve.get(again, "/login/private"));
            }
        }
    }

    @Test
    void aNoteThatNobodyElseCanReadCostsThatNote() throws Exception {
        TwoNodes two = new TwoNodes();
        try (Site site = site(); OneNode b = started(two, "B", ""); OneNode a = started(two, "A", "")) {
            Site.Visitor ann = new Site.Visitor();
            assertEquals("/page", ann.get(a, "/login/private?noted"));
            awaitKept(b, ann);
            ann.post(b, "/login/j_security_check", "j_username=ann&j_password=secret");
            assertEquals(303, ann.status, ann.text);
            assertEquals(0L, OneNode.jmx("A:type=Manager,host=localhost,context=/login", "counterFailedReplications"));
        }
    }

    @Test
    void tomcat9sAttributeIsObeyed() throws Exception {
        TwoNodes two = new TwoNodes();
        String off = "manager.persistAuthenticationNotes='false'";
        try (Site site = site(); OneNode b = started(two, "B", off); OneNode a = started(two, "A", off)) {
            Site.Visitor ann = new Site.Visitor();
            assertEquals("/page", ann.get(a, "/login/private"));
            ann.post(b, "/login/j_security_check", "j_username=ann&j_password=secret");
            assertEquals(408, ann.status, ann.text);
        }
    }

    @Test
    void theValvesStatisticsCountWhatIsSent() throws Exception {
        TwoNodes two = new TwoNodes();
        try (Site site = site(); OneNode b = started(two, "B", ""); OneNode a = started(two, "A", "")) {
            Site.Visitor ann = new Site.Visitor();
            ann.get(a, "/login/private");
            ann.post(a, "/login/j_security_check", "j_username=ann&j_password=secret");
            ann.get(a, "/login/private");
            String valve = "A:type=Valve,name=RingtribeReplicationValve";
            assertEquals(3L, OneNode.jmx(valve, "nrOfRequests"));
            long sent = (long) OneNode.jmx(valve, "nrOfSendRequests");
            assertEquals(OneNode.jmx("A:type=Manager,host=localhost,context=/login", "counterSend_EVT_SESSION_DELTA"), sent);
            assertEquals(3L, sent);
        }
    }
}
