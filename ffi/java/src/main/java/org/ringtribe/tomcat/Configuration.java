package org.ringtribe.tomcat;

import java.util.LinkedHashMap;
import java.util.Map;

/** What the engine is given, and where each value came from. */
final class Configuration {

    private final Map<String,String> values = new LinkedHashMap<>();
    private final Map<String,String> report = new LinkedHashMap<>();
    private final Map<String,Settings.Given> given = new LinkedHashMap<>();

    /**
     * @param attribute the engine's name
     * @param value what the element has if nothing was given; null leaves it to the engine
     * @param standard what it has when it is new
     * @param settings what was given
     */
    void put(String attribute, Object value, Object standard, Settings settings) {
        Settings.Given found = settings.get(attribute);
        if (found != null) {
            values.put(attribute, found.value);
            given.put(attribute, found);
            report.put(attribute, found.value + " (" + found.origin() + ")");
        } else if (value != null) {
            values.put(attribute, String.valueOf(value));
            report.put(attribute, value + (value.equals(standard) ? " (default)" : " (set by a program)"));
        }
    }

    /** A value that is not the engine's. */
    void report(String attribute, Object value, String origin) {
        report.put(attribute, value + " (" + origin + ")");
    }

    /** A value that no element has an attribute for. */
    void put(String attribute, String value, String origin) {
        values.put(attribute, value);
        report(attribute, value, origin);
    }

    Map<String,String> values() {
        return values;
    }

    /** @return a refusal of the engine with the name that the user gave and its place, if they differ */
    String explained(String refusal) {
        for (Map.Entry<String,Settings.Given> entry : given.entrySet()) {
            if (refusal.startsWith(entry.getKey() + "=\"")) {
                return refusal + " (given as " + entry.getValue() + ")";
            }
        }
        return refusal;
    }

    /** @return one line: each value and where it came from */
    @Override
    public String toString() {
        StringBuilder line = new StringBuilder();
        report.forEach((name, text) -> line.append(line.length() == 0 ? "" : ", ").append(name).append('=').append(text));
        return line.toString();
    }
}
