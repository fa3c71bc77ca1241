package org.ringtribe.tomcat;

import java.util.ArrayList;
import java.util.List;

/**
 * A filter of Tomcat 5.5: regular expressions between semicolons. Today's is one expression, which
 * with a semicolon in it matches nothing, since paths are compared without their parameters.
 */
final class FilterList {

    private FilterList() {
    }

    static boolean isList(String filter) {
        return filter != null && filter.indexOf(';') >= 0;
    }

    /** @return one expression that matches what any of the list does */
    static String toRegex(String list) {
        List<String> parts = new ArrayList<>();
        for (String part : list.split(";")) {
            if (!part.trim().isEmpty()) {
                // A flag inside one part must not reach the next.
                parts.add(part.contains("(?") ? "(?:" + part.trim() + ")" : part.trim());
            }
        }
        return String.join("|", parts);
    }

    static String said(String list) {
        return "filter=\"" + list + "\" is a list of Tomcat 5.5 and is read as the one regular expression that it is "
                + "today: filter=\"" + toRegex(list) + "\"";
    }
}
