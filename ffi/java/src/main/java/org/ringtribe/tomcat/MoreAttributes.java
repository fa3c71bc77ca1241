package org.ringtribe.tomcat;

import org.apache.tomcat.util.IntrospectionUtils;

/**
 * Attributes of a manager that not every line of Tomcat has, and that stock forgets when it makes the manager of an
 * application of the Manager element below Cluster.
 */
final class MoreAttributes {

    /** Tomcat 9.0 only; later lines always copy what a FORM login that is under way needs. */
    private static final String NOTES = "persistAuthenticationNotes";

    private static final String[] FORGOTTEN = { NOTES, "notifyAttributeListenerOnUnchangedValue",
            "notifyBindingListenerOnUnchangedValue", "sessionActivityCheck", "sessionLastAccessAtStart" };

    private MoreAttributes() {
    }

    /** A login that was begun at one node may be finished at another one. */
    static void setDefaults(RingtribeDeltaManager manager) {
        IntrospectionUtils.setProperty(manager, NOTES, "true", false);
    }

    static void copy(RingtribeDeltaManager template, RingtribeDeltaManager made) {
        for (String name : FORGOTTEN) {
            if (!has(template, name)) {
                continue;
            }
            Object value = IntrospectionUtils.getProperty(template, name);
            if (value != null) {
                IntrospectionUtils.setProperty(made, name, value.toString(), false);
            }
        }
    }

    private static boolean has(RingtribeDeltaManager manager, String name) {
        String setter = "set" + Character.toUpperCase(name.charAt(0)) + name.substring(1);
        for (java.lang.reflect.Method method : manager.getClass().getMethods()) {
            if (method.getName().equals(setter)) {
                return true;
            }
        }
        return false;
    }
}
