package org.ringtribe.test;

import java.io.IOException;
import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.List;

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;

/**
 * A shop for a browser: its login page, and the basket of who has logged in. A POST puts an item into the
 * basket and answers with where the basket is. The item {@value #HELD_IN_SERVLET} holds its request here,
 * {@value HoldValve#HELD_AFTER_COPYING} in {@link HoldValve}.
 */
public class BasketServlet extends HttpServlet {

    static final String HELD_IN_SERVLET = "held-in-servlet";
    private static final String BASKET = "basket";

    @Override
    protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
        response.setContentType("text/html;charset=UTF-8");
        response.setHeader("Cache-Control", "no-store");
        PrintWriter page = response.getWriter();
        page.print("<!DOCTYPE html><meta charset=utf-8><title>Ringtribe shop</title>"
                + "<style>body{font:20px sans-serif;margin:2em}</style>"
                + "<p>served by <b id=node>" + System.getProperty("route") + "</b>");
        String path = request.getServletPath();
        if (path.equals("/login") || path.equals("/refused")) {
            page.print("<h1 id=login>" + (path.equals("/login") ? "Who are you?" : "Nobody we know") + "</h1>"
                    + "<form method=post action=j_security_check><input name=j_username>"
                    + "<input name=j_password type=password><button id=go>Log in</button></form>");
            return;
        }
        HttpSession session = request.getSession(true);
        if (request.getMethod().equals("POST")) {
            put(request, session);
            response.sendRedirect("basket");
            return;
        }
        page.print("<h1>Basket of <span id=user>" + request.getRemoteUser() + "</span></h1><ul id=basket>");
        for (Object item : items(session)) {
            page.print("<li class=item>" + item.toString().replace("&", "&amp;").replace("<", "&lt;"));
        }
        page.print("</ul><form method=post action=basket><input name=item autofocus>"
                + "<button id=go>Into the basket</button></form>");
    }

    private static void put(HttpServletRequest request, HttpSession session) {
        List<Object> items = items(session);
        String item = request.getParameter("item");
        items.add(item);
        session.setAttribute(BASKET, items);
        if (item.equals(HELD_IN_SERVLET)) {
            HoldValve.hold(item);
        }
    }

    /** A copy of what is in the basket. */
    private static List<Object> items(HttpSession session) {
        Object items = session.getAttribute(BASKET);
        return items == null ? new ArrayList<>() : new ArrayList<>((List<?>) items);
    }
}
