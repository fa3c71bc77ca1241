package org.ringtribe.tomcat;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

import org.apache.catalina.ha.ClusterManager;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;
import org.apache.tomcat.util.IntrospectionUtils;

/** The words of the Cluster element that are its session manager's. */
final class ManagerWords {

    private static final Log log = LogFactory.getLog(ManagerWords.class);

    private final RingtribeCluster cluster;
    private final Map<String,Settings.Given> given = new LinkedHashMap<>();
    private final List<String> errors = new ArrayList<>();

    ManagerWords(RingtribeCluster cluster) {
        this.cluster = cluster;
    }

    /** @return the manager of a cluster that names none */
    static ClusterManager standard() {
        return new RingtribeDeltaManager();
    }

    /**
     * @param attribute the manager's name of it
     * @param name as the user wrote it, with or without prefix
     */
    void give(String attribute, String value, String where, String name) {
        Settings.Given now = new Settings.Given(name, value == null ? "" : value.trim(), where, name.equals(attribute));
        Settings.Given before = given.get(attribute);
        if (before != null && !before.value.equals(now.value)) {
            errors.add(Settings.contradiction(before, now));
            return;
        }
        given.put(attribute, now);
    }

    /** Makes the manager that is named and sets its attributes. */
    void apply(List<String> found) {
        found.addAll(errors);
        Settings.Given className = given.get("managerClassName");
        if (className != null) {
            choose(className, found);
        }
        ClusterManager template = cluster.getManagerTemplate();
        Object fresh = fresh(template);
        for (Map.Entry<String,Settings.Given> entry : given.entrySet()) {
            if (!entry.getKey().equals("managerClassName")) {
                set(template, fresh, entry.getKey(), entry.getValue(), found);
            }
        }
    }

    private void set(ClusterManager template, Object fresh, String attribute, Settings.Given value, List<String> found) {
        if (attribute.equals("useDirtyFlag") && !Settings.properties(template).contains("useDirtyFlag")) {
            if (!value.value.equals("true")) {
                found.add(value + " is refused: a " + template.getClass().getName() + " sends only what was set with "
                        + "setAttribute, which is useDirtyFlag=\"true\"; set that, or use another manager");
            }
            return;
        }
        Object own = IntrospectionUtils.getProperty(template, attribute);
        boolean isOwn = cluster.managerGiven() && own != null && fresh != null
                && !Objects.equals(own, IntrospectionUtils.getProperty(fresh, attribute));
        if (isOwn && !String.valueOf(own).equals(value.value)) {
            found.add(Settings.contradiction(
                    new Settings.Given(attribute, String.valueOf(own), "Manager", false), value));
            return;
        }
        if (own instanceof Boolean && !value.value.equals("true") && !value.value.equals("false")) {
            found.add(value + " is refused: give true or false");
        } else if (own instanceof Number && Settings.number(value.value) == null) {
            found.add(value + " is refused: give a whole number");
        } else if (!IntrospectionUtils.setProperty(template, attribute, value.value)) {
            found.add(Settings.unknown(value.name, value.value, value.where, Settings.properties(template)));
        }
    }

    private static Object fresh(ClusterManager template) {
        try {
            return template.getClass().getConstructor().newInstance();
        } catch (ReflectiveOperationException e) {
            // Without one nothing can be compared with its default.
            return null;
        }
    }

    private void choose(Settings.Given className, List<String> found) {
        String name = OldClasses.today(className.value);
        if (cluster.managerGiven()) {
            if (!cluster.getManagerTemplate().getClass().getName().equals(name)) {
                found.add(className + " and the element <Manager className=\""
                        + cluster.getManagerTemplate().getClass().getName()
                        + "\"> contradict each other: there is one manager; leave one of them out");
            }
            return;
        }
        if (!name.equals(className.value)) {
            log.info(className + " is " + name + " today");
        }
        try {
            Object made = OldClasses.make(name, cluster);
            if (made instanceof ClusterManager) {
                cluster.useManager((ClusterManager) made);
                return;
            }
            found.add(className + " is refused: it is no session manager of a cluster; " + remedy());
        } catch (ReflectiveOperationException e) {
            found.add(className + " is refused: there is no such class (" + e + "); " + remedy());
        }
    }

    private static String remedy() {
        return "give " + standard().getClass().getName() + " or org.apache.catalina.ha.session.BackupManager";
    }

    void report(Configuration report) {
        Settings.Given className = given.get("managerClassName");
        report.report("manager", cluster.getManagerTemplate().getClass().getName(),
                className != null ? className.origin() : cluster.managerGiven() ? "element Manager" : "default");
        String[] always = { "expireSessionsOnShutdown", "notifyListenersOnReplication", "useDirtyFlag" };
        for (String attribute : always) {
            Object value = IntrospectionUtils.getProperty(cluster.getManagerTemplate(), attribute);
            if (!given.containsKey(attribute) && value != null) {
                report.report(attribute, value, cluster.managerGiven() ? "Manager, given or default" : "default");
            }
        }
        given.forEach((attribute, value) -> {
            if (!attribute.equals("managerClassName")) {
                report.report(attribute, value.value, value.origin());
            }
        });
    }
}
