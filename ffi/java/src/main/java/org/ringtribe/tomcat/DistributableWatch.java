package org.ringtribe.tomcat;

import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.Set;

import org.apache.catalina.Container;
import org.apache.catalina.ContainerEvent;
import org.apache.catalina.ContainerListener;
import org.apache.catalina.Context;
import org.apache.catalina.Lifecycle;
import org.apache.catalina.LifecycleEvent;
import org.apache.catalina.LifecycleListener;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/** Says of each application under the cluster that is not distributable that nothing is copied. */
final class DistributableWatch implements ContainerListener, LifecycleListener {

    private static final Log log = LogFactory.getLog(DistributableWatch.class);

    private final Set<Container> watched = Collections.newSetFromMap(new IdentityHashMap<>());

    void begin(Container container) {
        if (container != null) {
            watch(container);
        }
    }

    synchronized void end() {
        for (Container container : watched) {
            container.removeContainerListener(this);
            container.removeLifecycleListener(this);
        }
        watched.clear();
    }

    private synchronized void watch(Container container) {
        if (!watched.add(container)) {
            return;
        }
        if (container instanceof Context) {
            container.addLifecycleListener(this);
            return;
        }
        container.addContainerListener(this);
        for (Container child : container.findChildren()) {
            watch(child);
        }
    }

    private synchronized void forget(Container container) {
        if (watched.remove(container)) {
            container.removeContainerListener(this);
            container.removeLifecycleListener(this);
        }
    }

    @Override
    public void containerEvent(ContainerEvent event) {
        if (event.getType().equals(Container.ADD_CHILD_EVENT)) {
            watch((Container) event.getData());
        } else if (event.getType().equals(Container.REMOVE_CHILD_EVENT)) {
            forget((Container) event.getData());
        }
    }

    @Override
    public void lifecycleEvent(LifecycleEvent event) {
        if (event.getType().equals(Lifecycle.AFTER_START_EVENT) && event.getLifecycle() instanceof Context) {
            Context context = (Context) event.getLifecycle();
            if (!context.getDistributable()) {
                log.warn("The sessions of the application \"" + context.getName() + "\" are not copied: its web.xml has "
                        + "no <distributable/>; add that element to have them on the other nodes");
            }
        }
    }
}
