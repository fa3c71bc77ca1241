package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;

import javax.servlet.ServletContext;
import javax.servlet.ServletException;
import javax.servlet.http.HttpServlet;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;

import org.apache.catalina.session.StandardSession;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A page of one application that another one includes changes a session of its own. */
class CrossContextTest {

    /** Includes the basket of the other application, or sends the visitor's request on to it. */
    public static final class Frame extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws ServletException, IOException {
            request.getSession().setAttribute("frame", request.getParameter("v"));
            ServletContext other = getServletContext().getContext("/inner");
            if (request.getParameter("forward") != null) {
                other.getRequestDispatcher("/basket").forward(request, response);
            } else {
                // Twice: it is to be sent once.
                other.getRequestDispatcher("/basket").include(request, response);
                other.getRequestDispatcher("/basket").include(request, response);
            }
        }
    }

    /** In the other application. */
    public static final class Basket extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            request.getSession().setAttribute("basket", request.getParameter("v"));
            response.getWriter().print("+");
        }
    }

    private static Site site() throws IOException {
        Site site = new Site();
        site.add("outer", "crossContext='true'", Site.servlet(Frame.class, "/frame"));
        site.add("inner", "", Site.servlet(Basket.class, "/basket"));
        return site;
    }

    private static Object copy(OneNode node, String context, String id, String name) throws IOException {
        StandardSession session = (StandardSession) node.context("localhost", context).getManager().findSession(id);
        return session == null ? null : session.getAttribute(name);
    }

    @ParameterizedTest
    @ValueSource(strings = { "", "&forward" })
    void bothSessionsOfTheRequestAreCopied(String how) throws Exception {
        TwoNodes two = new TwoNodes();
        String inside = "<Valve className='" + RingtribeReplicationValve.class.getName() + "' statistics='true'/>";
        try (Site site = site(); OneNode b = two.node("B", "", inside, ""); OneNode a = two.node("A", "", inside, "")) {
            b.start();
            a.start();
            Site.Visitor visitor = new Site.Visitor();
            for (String value : new String[] { "1", "2" }) {
                visitor.get(a, "/outer/frame?v=" + value + how);
                assertEquals(200, visitor.status, visitor.text);
                assertEquals(value, copy(b, "/outer", visitor.session(), "frame"));
                assertEquals(value, copy(b, "/inner", visitor.session(), "basket"));
            }
            String valve = "A:type=Valve,name=RingtribeReplicationValve";
            assertEquals(2L, OneNode.jmx(valve, "nrOfCrossContextSendRequests"));
            assertEquals(4L, OneNode.jmx(valve, "nrOfSendRequests"));
            assertEquals(2L, OneNode.jmx("B:type=Manager,host=localhost,context=/inner", "counterReceive_EVT_SESSION_DELTA"));
        }
    }

    @Test
    void withoutTheAttributeThereIsNoOtherContext() throws Exception {
        TwoNodes two = new TwoNodes();
        try (Site site = site(); OneNode b = two.started("B", "")) {
            site.add("outer", "", Site.servlet(Frame.class, "/frame"));
            try (OneNode a = two.started("A", "")) {
                Site.Visitor visitor = new Site.Visitor();
                visitor.get(a, "/outer/frame?v=1");
                assertEquals(500, visitor.status);
                // Tomcat's own error page is with the client before the valve sends what a failed request has changed.
                RingtribeDeltaSession copy = (RingtribeDeltaSession) b.context("localhost", "/outer").getManager()
                        .findSession(visitor.session());
                TwoNodes.await("it is copied all the same", () -> "1".equals(copy.getAttribute("frame")));
                assertEquals(0, b.context("localhost", "/inner").getManager().findSessions().length);
            }
        }
    }
}
