package org.ringtribe.test;

import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

import jakarta.servlet.http.HttpSessionEvent;
import jakarta.servlet.http.HttpSessionListener;

/** Remembers which sessions have ended on this node. */
public class SessionEnds implements HttpSessionListener {

    private static final Set<String> ENDED = ConcurrentHashMap.newKeySet();

    /**
     * @param id of a session, with or without the route
     * @return whether it has ended here
     */
    static boolean has(String id) {
        return ENDED.contains(withoutRoute(id));
    }

    private static String withoutRoute(String id) {
        int dot = id.indexOf('.');
        return dot < 0 ? id : id.substring(0, dot);
    }

    @Override
    public void sessionDestroyed(HttpSessionEvent event) {
        ENDED.add(withoutRoute(event.getSession().getId()));
    }
}
