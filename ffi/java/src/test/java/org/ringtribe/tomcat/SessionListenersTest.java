package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

import javax.servlet.http.HttpServlet;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;
import javax.servlet.http.HttpSession;
import javax.servlet.http.HttpSessionAttributeListener;
import javax.servlet.http.HttpSessionBindingEvent;
import javax.servlet.http.HttpSessionEvent;
import javax.servlet.http.HttpSessionIdListener;
import javax.servlet.http.HttpSessionListener;

import org.apache.catalina.Context;
import org.apache.catalina.Session;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What the copy of a session is told of, and what of it is copied: the attributes of the manager that say so. */
class SessionListenersTest {

    /** Of node B, in their order. */
    private static final List<String> HEARD = Collections.synchronizedList(new ArrayList<>());

    /** Does as the query says: set=NAME:VALUE, number=NAME:VALUE, remove=NAME, newid, end, each once, in that order. */
    public static final class Actions extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            HttpSession session = request.getSession();
            for (String query : request.getQueryString().split("&")) {
                String[] words = query.split("[=:]");
                switch (words[0]) {
                    case "set":
                        session.setAttribute(words[1], words[2]);
                        break;
                    case "number":
                        session.setAttribute(words[1], Long.valueOf(words[2]));
                        break;
                    case "remove":
                        session.removeAttribute(words[1]);
                        break;
                    case "newid":
                        request.changeSessionId();
                        break;
                    default:
                        session.invalidate();
                        break;
                }
            }
        }
    }

    /** Of the application: all that an application may learn of sessions. */
    public static final class Listener implements HttpSessionListener, HttpSessionAttributeListener, HttpSessionIdListener {

        private static void heard(HttpSession session, String what) {
            if (session.getServletContext().getVirtualServerName().startsWith("B/")) {
                HEARD.add(what);
            }
        }

        @Override
        public void sessionCreated(HttpSessionEvent event) {
            heard(event.getSession(), "created");
        }

        @Override
        public void sessionDestroyed(HttpSessionEvent event) {
            heard(event.getSession(), "destroyed");
        }

        @Override
        public void sessionIdChanged(HttpSessionEvent event, String old) {
            heard(event.getSession(), "id");
        }

        @Override
        public void attributeAdded(HttpSessionBindingEvent event) {
            heard(event.getSession(), "+" + event.getName());
        }

        @Override
        public void attributeRemoved(HttpSessionBindingEvent event) {
            heard(event.getSession(), "-" + event.getName());
        }

        @Override
        public void attributeReplaced(HttpSessionBindingEvent event) {
            heard(event.getSession(), "=" + event.getName());
        }
    }

    private static Site site() throws IOException {
        Site site = new Site();
        site.add("heard", "", "<listener><listener-class>" + Listener.class.getName() + "</listener-class></listener>"
                + Site.servlet(Actions.class, "/do"));
        return site;
    }

    private static Object copy(OneNode node, String id, String name) throws IOException {
        return ((RingtribeDeltaSession) node.context("localhost", "/heard").getManager().findSession(id)).getAttribute(name);
    }

    @ParameterizedTest
    @ValueSource(strings = { "", "notifyListenersOnReplication='false'", "manager.notifySessionListenersOnReplication='false'",
            "manager.notifyContainerListenersOnReplication='false'" })
    void theOtherNodesListenersHearWhatTheAttributesSay(String attribute) throws Exception {
        TwoNodes two = new TwoNodes();
        try (Site site = site(); OneNode b = two.started("B", attribute); OneNode a = two.started("A", "")) {
            HEARD.clear();
            List<String> container = Collections.synchronizedList(new ArrayList<>());
            b.context("localhost", "/heard").addContainerListener(event -> {
                if (event.getType().equals(Context.CHANGE_SESSION_ID_EVENT)) {
                    container.add(event.getType());
                }
            });
            Site.Visitor visitor = new Site.Visitor();
            visitor.get(a, "/heard/do?set=x:1&set=y:1");
            visitor.get(a, "/heard/do?set=x:2");
            String before = visitor.session();
            visitor.get(a, "/heard/do?newid&remove=y&set=z:3");
            assertNull(b.context("localhost", "/heard").getManager().findSession(before));
            assertEquals("2", copy(b, visitor.session(), "x"));
            assertNull(copy(b, visitor.session(), "y"), "removed");
            assertEquals("3", copy(b, visitor.session(), "z"), "what follows an id change");
            visitor.get(a, "/heard/do?end");
            assertNull(b.context("localhost", "/heard").getManager().findSession(visitor.session()));

            boolean attributes = !attribute.startsWith("notifyListeners");
            boolean sessions = !attribute.contains("notifySessionListeners");
            List<String> expected = new ArrayList<>();
            expected.addAll(sessions ? Arrays.asList("created") : Arrays.asList());
            expected.addAll(attributes ? Arrays.asList("+x", "+y", "=x") : Arrays.asList());
            expected.addAll(sessions ? Arrays.asList("id") : Arrays.asList());
            expected.addAll(attributes ? Arrays.asList("-y", "+z") : Arrays.asList());
            expected.addAll(sessions ? Arrays.asList("destroyed") : Arrays.asList());
            // The end of a session takes its attributes with it, in no order.
            List<String> heard = new ArrayList<>(HEARD);
            heard.removeAll(Arrays.asList("-x", "-z"));
            assertEquals(expected, heard);
            assertEquals(attribute.contains("Container") ? 0 : 1, container.size());
        }
    }

    @Test
    void anAttributeOutsideOfTheFiltersStaysWhereItIs() throws Exception {
        TwoNodes two = new TwoNodes();
        String words = "useDirtyFlag='false' manager.sessionAttributeNameFilter='user.*' "
                + "manager.sessionAttributeValueClassNameFilter='java\\.lang\\.(String|Integer)'";
        try (Site site = site(); OneNode b = two.started("B", words)) {
            Site.Visitor visitor = new Site.Visitor();
            try (OneNode a = two.started("A", words)) {
                visitor.get(a, "/heard/do?set=user.name:ann&set=other:1&number=user.age:33");
                assertEquals("ann", copy(a, visitor.session(), "user.name"));
                assertEquals("1", copy(a, visitor.session(), "other"));
                assertEquals(33L, copy(a, visitor.session(), "user.age"));
                assertEquals("ann", copy(b, visitor.session(), "user.name"));
                assertNull(copy(b, visitor.session(), "other"), "its name");
                assertNull(copy(b, visitor.session(), "user.age"), "its class");
                // The same for all sessions at once, and for one that is taken over.
                try (OneNode c = two.started("C", words)) {
                    assertNotNull(c.context("localhost", "/heard").getManager().findSession(visitor.session()));
                    assertEquals("ann", copy(c, visitor.session(), "user.name"));
                    assertNull(copy(c, visitor.session(), "other"));
                    assertNull(copy(c, visitor.session(), "user.age"));
                }
                // B changes it: what A has for itself stays there.
                visitor.get(b, "/heard/do?set=user.name:bob&remove=user.none");
                assertEquals("bob", copy(a, visitor.session(), "user.name"));
                assertEquals("1", copy(a, visitor.session(), "other"));
                assertEquals(33L, copy(a, visitor.session(), "user.age"));
            }
        }
    }

    @Test
    void severalChangesOfTheIdInARowLeaveOneSession() throws Exception {
        TwoNodes two = new TwoNodes();
        // Where nobody waits, what follows must not overtake the change.
        String mode = "replicationMode='asynchronous'";
        try (Site site = site(); OneNode b = two.started("B", mode); OneNode a = two.started("A", mode)) {
            Site.Visitor visitor = new Site.Visitor();
            visitor.get(a, "/heard/do?set=n:0");
            for (int n = 1; n <= 50; n++) {
                visitor.get(a, "/heard/do?newid&set=n:" + n);
            }
            TwoNodes.await("the last change", () -> {
                Session[] there = b.context("localhost", "/heard").getManager().findSessions();
                return there.length == 1 && there[0].getIdInternal().equals(visitor.session())
                        && "50".equals(((RingtribeDeltaSession) there[0]).getAttribute("n"));
            });
        }
    }
}
