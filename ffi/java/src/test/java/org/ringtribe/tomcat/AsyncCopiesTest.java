package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

import javax.servlet.AsyncContext;
import javax.servlet.AsyncEvent;
import javax.servlet.AsyncListener;
import javax.servlet.http.HttpServlet;
import javax.servlet.http.HttpServletRequest;
import javax.servlet.http.HttpServletResponse;
import javax.servlet.http.HttpSession;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What a request changes after startAsync, when its servlet has returned and the valve has sent the difference. */
class AsyncCopiesTest {

    private static final String CLUSTER_BEAN = "A:type=Cluster";
    private static volatile CountDownLatch goOn;

    /** Goes on, as the query says, when the test lets it. */
    public static final class Later extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
            HttpSession session = request.getSession();
            String how = request.getQueryString();
            if (how.startsWith("end")) {
                session.setAttribute("late", "dispatched");
                response.getWriter().print("end");
                return;
            }
            session.setAttribute("early", how);
            AsyncContext later = request.startAsync();
            if (how.equals("timeout")) {
                later.setTimeout(200);
                later.addListener(new Ends());
                return;
            }
            if (how.equals("listener")) {
                later.addListener(new Ends());
            }
            Thread thread = new Thread(() -> goesOn(session, later, how), "later");
            thread.setDaemon(true);
            thread.start();
        }

        private static void goesOn(HttpSession session, AsyncContext later, String how) {
            try {
                assertTrue(goOn.await(30, TimeUnit.SECONDS));
                if (how.equals("dispatch")) {
                    later.dispatch("/later?end");
                    return;
                }
                if (how.equals("again")) {
                    later.dispatch("/later?thread");
                    return;
                }
                if (how.equals("inplace")) {
                    ((StringBuffer) session.getAttribute("text")).append("late");
                } else if (!how.equals("listener")) {
                    session.setAttribute("late", how);
                }
                later.getResponse().getWriter().print("end");
                later.complete();
            } catch (IOException | InterruptedException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    /** Something that is changed in place later. */
    public static final class Text extends HttpServlet {
        private static final long serialVersionUID = 1L;

        @Override
        protected void doGet(HttpServletRequest request, HttpServletResponse response) {
            request.getSession().setAttribute("text", new StringBuffer("early "));
        }
    }

    /** The application's own listener may be the last to change something. */
    private static final class Ends implements AsyncListener {
        @Override
        public void onComplete(AsyncEvent event) throws IOException {
            ((HttpServletRequest) event.getSuppliedRequest()).getSession().setAttribute("late", "listener");
        }

        @Override
        public void onTimeout(AsyncEvent event) throws IOException {
            event.getAsyncContext().getResponse().getWriter().print("end");
            event.getAsyncContext().complete();
        }

        @Override
        public void onError(AsyncEvent event) {
            // It does not come to that.
        }

        @Override
        public void onStartAsync(AsyncEvent event) {
            // It does not come to that.
        }
    }

    private static Site site() throws IOException {
        Site site = new Site();
        site.add("later", "", Site.servlet(Later.class, "/later") + Site.servlet(Text.class, "/text"));
        return site;
    }

    private static RingtribeDeltaSession copy(OneNode node, String id) throws IOException {
        return (RingtribeDeltaSession) node.context("localhost", "/later").getManager().findSession(id);
    }

    @Test
    void whatIsChangedAfterTheServletReturnedIsCopiedBeforeTheAnswerEnds() throws Exception {
        TwoNodes two = new TwoNodes();
        try (Site site = site(); OneNode a = two.started("A", "useDirtyFlag='false'"); OneNode b = two.started("B", "")) {
            for (String how : new String[] { "thread", "listener", "timeout", "dispatch", "inplace" }) {
                Site.Visitor visitor = new Site.Visitor();
                visitor.get(a, "/later/text");
                RingtribeDeltaSession copy = copy(b, visitor.session());
                CountDownLatch wait = new CountDownLatch(1);
                goOn = wait;
                Thread letsGo = new Thread(() -> {
                    try {
                        // The valve has sent what there was when the servlet returned.
                        TwoNodes.await("the first part is there", () -> how.equals(copy.getAttribute("early")));
                    } catch (InterruptedException e) {
                        Thread.currentThread().interrupt();
                    }
                    wait.countDown();
                });
                letsGo.start();
                visitor.get(a, "/later/later?" + how);
                assertEquals("200 end", visitor.status + " " + visitor.text, how);
                // Nothing is awaited: the answer is there, so the copy is.
                if (how.equals("inplace")) {
                    assertEquals("early late", copy.getAttribute("text").toString());
                } else {
                    String late = how.equals("dispatch") ? "dispatched" : how.equals("timeout") ? "listener" : how;
                    assertEquals(late, copy.getAttribute("late"), how);
                }
                letsGo.join();
            }
            assertEquals(0L, OneNode.jmx(CLUSTER_BEAN, "replicationFailures"));
            assertEquals(0L, OneNode.jmx(CLUSTER_BEAN, "requestsWithoutCopy"));
        }
    }

    @ParameterizedTest
    @ValueSource(strings = { "thread", "dispatch", "again" })
    void oneRequestIsOneFailureAndItsClientIsTold(String how) throws Exception {
        TwoNodes two = new TwoNodes();
        goOn = new CountDownLatch(0);
        try (Site site = site(); OneNode a = two.started("A", "onReplicationFailure='503'");
                OtherMember other = new OtherMember(a, two.mcastPort)) {
            other.failFor(event -> true);
            Site.Visitor visitor = new Site.Visitor();
            visitor.get(a, "/later/later?" + how);
            assertEquals(503, visitor.status, visitor.text);
            assertEquals(1L, OneNode.jmx(CLUSTER_BEAN, "replicationFailures"), a.log());
            assertEquals(0L, OneNode.jmx(CLUSTER_BEAN, "replicationFailuresTooLate"));
        }
        try (Site site = site(); OneNode a = two.started("A", "")) {
            new Site.Visitor().get(a, "/later/later?" + how);
            assertEquals(1L, OneNode.jmx(CLUSTER_BEAN, "requestsWithoutCopy"));
        }
    }
}
