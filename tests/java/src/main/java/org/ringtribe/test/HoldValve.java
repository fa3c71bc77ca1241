package org.ringtribe.test;

import java.io.IOException;
import java.util.concurrent.CountDownLatch;

import jakarta.servlet.ServletException;

import org.apache.catalina.connector.Request;
import org.apache.catalina.connector.Response;
import org.apache.catalina.valves.ValveBase;

/**
 * Stands before the cluster's valves: a POST of the item {@value #HELD_AFTER_COPYING} comes back to it when
 * the session has been copied, and goes no further, so that the client has no answer.
 */
public class HoldValve extends ValveBase {

    static final String HELD_AFTER_COPYING = "held-after-copying";

    public HoldValve() {
        super(true);
    }

    @Override
    public void invoke(Request request, Response response) throws IOException, ServletException {
        getNext().invoke(request, response);
        if (request.getMethod().equals("POST") && HELD_AFTER_COPYING.equals(request.getParameter("item"))) {
            hold(HELD_AFTER_COPYING);
        }
    }

    /** Says so, and never returns: whoever waits for this kills the node. */
    static void hold(String what) {
        System.out.println("HELD " + what);
        System.out.flush();
        try {
            new CountDownLatch(1).await();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
