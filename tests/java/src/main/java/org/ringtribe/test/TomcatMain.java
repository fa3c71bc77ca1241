package org.ringtribe.test;

import org.apache.catalina.startup.Catalina;

/** Starts the Tomcat of catalina.base from its conf/server.xml and says when HTTP is open. */
public final class TomcatMain {

    private TomcatMain() {
    }

    public static void main(String[] args) {
        Catalina catalina = new Catalina();
        // A DataSource is found by JNDI, nothing else here needs it.
        catalina.setUseNaming(Boolean.getBoolean("org.ringtribe.test.naming"));
        catalina.setAwait(true);
        Thread announcer = new Thread(() -> announce(catalina), "announcer");
        announcer.setDaemon(true);
        catalina.load();
        if (catalina.getServer() == null) {
            System.exit(2);
        }
        catalina.getServer().addLifecycleListener(event -> {
            if (event.getType().equals("after_start")) {
                announcer.start();
            }
        });
        catalina.start();
        System.exit(catalina.getServer() == null ? 2 : 0);
    }

    private static void announce(Catalina catalina) {
        System.out.println("READY " + ProcessHandle.current().pid());
        System.out.flush();
    }
}
