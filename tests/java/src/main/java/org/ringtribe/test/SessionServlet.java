package org.ringtribe.test;

import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.TreeSet;

import javax.management.JMException;
import javax.management.MBeanServer;
import javax.management.ObjectName;

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;

/**
 * Sessions over HTTP, in plain text: /set?k=&v=[&maxInactive=s] answers the value that is stored,
 * /get?k= the value or 404, /append?k=&v= changes a value in place, /invalidate ends the session,
 * /ended?id= tells whether a session that was known here has ended, without touching it. And what
 * JMX has: /jmx?bean=&get= an attribute's value, /jmx?bean=&call= what an operation returns,
 * /copies?k= a line for each session of this node, its id and the value, /manager?a= an attribute of
 * the manager's MBean: none touches a session.
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

    private static Object ofManager(String attribute) throws IOException {
        try {
            MBeanServer beans = ManagementFactory.getPlatformMBeanServer();
            return beans.getAttribute(manager(beans), attribute);
        } catch (JMException e) {
            throw new IOException(e);
        }
    }

    private static ObjectName manager(MBeanServer beans) throws JMException {
        return beans.queryNames(new ObjectName("*:type=Manager,context=/app,*"), null).iterator().next();
    }
}
