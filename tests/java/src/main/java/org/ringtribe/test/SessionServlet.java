package org.ringtribe.test;

import java.io.IOException;
import java.io.PrintWriter;
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.Collections;
import java.util.Map;
import java.util.StringJoiner;
import java.util.TreeMap;
import java.util.TreeSet;

import javax.management.JMException;
import javax.management.MBeanServer;
import javax.management.ObjectName;

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;

import org.apache.catalina.Manager;
import org.apache.catalina.Session;

/**
 * Sessions over HTTP, in plain text: /set?k=&v=[&maxInactive=s] answers the value that is stored,
 * /get?k= the value or 404, /append?k=&v= changes a value in place, /invalidate ends the session,
 * /ended?id= tells whether a session that was known here has ended, without touching it. And what
 * JMX has: /jmx?bean=&get= an attribute's value, /jmx?bean=&call= what an operation returns,
 * /copies?k= a line for each session of this node, its id and the value, /contents[?id=] a line for each
 * (or that) session, its id and all attributes in order, /manager?a=,... attributes of the manager's MBean:
 * none touches a session. /change?by=&turn= changes several attributes of a session that is there.
 */
public class SessionServlet extends HttpServlet {

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
        response.setContentType("text/plain");
        String path = request.getPathInfo() == null ? "" : request.getPathInfo();
        switch (path) {
            case "/set": {
                HttpSession session = request.getSession(true);
                String maxInactive = request.getParameter("maxInactive");
                if (maxInactive != null) {
                    session.setMaxInactiveInterval(Integer.parseInt(maxInactive));
                }
                session.setAttribute(request.getParameter("k"), request.getParameter("v"));
                response.getWriter().print(request.getParameter("v"));
                break;
            }
            case "/get": {
                HttpSession session = request.getSession(false);
                Object value = session == null ? null : session.getAttribute(request.getParameter("k"));
                if (value == null) {
                    response.setStatus(HttpServletResponse.SC_NOT_FOUND);
                } else {
                    response.getWriter().print(value);
                }
                break;
            }
            case "/append": {
                // In place: nobody calls setAttribute when it is there already.
                HttpSession session = request.getSession(true);
                String key = request.getParameter("k");
                synchronized (SessionServlet.class) {
                    if (session.getAttribute(key) == null) {
                        session.setAttribute(key, new StringBuffer());
                    }
                    StringBuffer text = (StringBuffer) session.getAttribute(key);
                    response.getWriter().print(text.append(request.getParameter("v")));
                }
                break;
            }
            case "/change": {
                HttpSession session = request.getSession(false);
                if (session == null) {
                    response.setStatus(HttpServletResponse.SC_NOT_FOUND);
                } else {
                    response.getWriter().print(change(session, request.getParameter("turn"), request.getParameter("by")));
                }
                break;
            }
            case "/invalidate": {
                HttpSession session = request.getSession(false);
                if (session == null) {
                    response.setStatus(HttpServletResponse.SC_NOT_FOUND);
                } else {
                    session.invalidate();
                    response.getWriter().print("gone");
                }
                break;
            }
            case "/copies":
                copies(request.getParameter("k"), response);
                break;
            case "/contents":
                contents(request.getParameter("id"), response);
                break;
            case "/manager":
                response.getWriter().print(ofManager(request.getParameter("a")));
                break;
            case "/ended":
                if (!SessionEnds.has(request.getParameter("id"))) {
                    response.setStatus(HttpServletResponse.SC_NOT_FOUND);
                }
                break;
            case "/jmx":
                try {
                    response.getWriter().print(managed(request));
                } catch (JMException e) {
                    response.setStatus(HttpServletResponse.SC_NOT_FOUND);
                    response.getWriter().print(e);
                }
                break;
            default:
                response.setStatus(HttpServletResponse.SC_NOT_FOUND);
        }
    }

    /**
     * What requests of one session fight for ("last", "some", which comes and goes), what is of one alone
     * ("of-" by), and how many there were ("count"), which the requests of one node cannot lose.
     */
    private static Object change(HttpSession session, String turn, String by) {
        session.setAttribute("last", turn + "-" + by);
        session.setAttribute("of-" + by, turn);
        if (by.hashCode() % 2 == 0) {
            session.setAttribute("some", by);
        } else {
            session.removeAttribute("some");
        }
        synchronized (SessionServlet.class) {
            Object count = session.getAttribute("count");
            Integer next = count == null ? 1 : (Integer) count + 1;
            session.setAttribute("count", next);
            return next;
        }
    }

    private static Object managed(HttpServletRequest request) throws JMException {
        MBeanServer server = ManagementFactory.getPlatformMBeanServer();
        ObjectName bean = new ObjectName(request.getParameter("bean"));
        String operation = request.getParameter("call");
        return operation == null ? server.getAttribute(bean, request.getParameter("get"))
                : server.invoke(bean, operation, new Object[0], new String[0]);
    }

    /** A line for each session of this node. */
    private static void copies(String key, HttpServletResponse response) throws IOException {
        try {
            MBeanServer beans = ManagementFactory.getPlatformMBeanServer();
            String ids = (String) beans.invoke(manager(beans), "listSessionIds", null, null);
            for (String id : new TreeSet<>(Arrays.asList(ids.trim().split(" ")))) {
                Object value = beans.invoke(manager(beans), "getSessionAttribute", new Object[] { id, key },
                        new String[] { "java.lang.String", "java.lang.String" });
                response.getWriter().print(id + " " + value + "\n");
            }
        } catch (JMException e) {
            throw new IOException(e);
        }
    }

    private static void contents(String only, HttpServletResponse response) throws IOException {
        Manager manager = manager();
        Map<String,String> lines = new TreeMap<>();
        for (Session session : only == null ? manager.findSessions() : new Session[] { manager.findSession(only) }) {
            if (session != null) {
                lines.put(session.getIdInternal(), attributes(session.getSession()));
            }
        }
        PrintWriter out = response.getWriter();
        lines.forEach((id, attributes) -> out.print(id + " " + attributes + "\n"));
    }

    private static String attributes(HttpSession session) {
        Map<String,Object> values = new TreeMap<>();
        try {
            for (String name : Collections.list(session.getAttributeNames())) {
                values.put(name, session.getAttribute(name));
            }
        } catch (IllegalStateException e) {
            return "has ended";
        }
        return values.toString();
    }

    private static Manager manager() throws IOException {
        try {
            MBeanServer beans = ManagementFactory.getPlatformMBeanServer();
            ObjectName application = new ObjectName("*:j2eeType=WebModule,name=//localhost/app,*");
            ObjectName context = beans.queryNames(application, null).iterator().next();
            return (Manager) beans.getAttribute(context, "manager");
        } catch (JMException e) {
            throw new IOException(e);
        }
    }

    private static String ofManager(String attributes) throws IOException {
        try {
            MBeanServer beans = ManagementFactory.getPlatformMBeanServer();
            StringJoiner values = new StringJoiner(",");
            for (String attribute : attributes.split(",")) {
                values.add(String.valueOf(beans.getAttribute(manager(beans), attribute)));
            }
            return values.toString();
        } catch (JMException e) {
            throw new IOException(e);
        }
    }

    private static ObjectName manager(MBeanServer beans) throws JMException {
        return beans.queryNames(new ObjectName("*:type=Manager,context=/app,*"), null).iterator().next();
    }
}
