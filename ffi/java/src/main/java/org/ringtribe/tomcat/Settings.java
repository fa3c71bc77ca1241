package org.ringtribe.tomcat;

import java.beans.BeanInfo;
import java.beans.IntrospectionException;
import java.beans.Introspector;
import java.beans.PropertyDescriptor;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiConsumer;

import org.ringtribe.Engine;

/**
 * What was given to one element, by which name and where. Nothing is refused while server.xml is
 * read, since Tomcat logs what a setter throws and goes on; what is wrong is told when the element
 * starts. Thread-safe.
 */
final class Settings {

    /** A value, and where it came from. */
    static final class Given {
        final String name;
        final String value;
        final String where;
        private final boolean old;

        Given(String name, String value, String where, boolean old) {
            this.name = name;
            this.value = value;
            this.where = where;
            this.old = old;
        }

        /** @return whether the name is Tomcat 5.5's */
        boolean isOld() {
            return old;
        }

        String origin() {
            return (old ? "old word " : "attribute ") + name + " of " + where;
        }

        @Override
        public String toString() {
            return name + "=\"" + value + "\" of " + where;
        }
    }

    private final Words words;
    private final Object owner;
    private final BiConsumer<String,String> mirror;
    private final Map<String,Given> given = new LinkedHashMap<>();
    private final Map<String,String> withoutEffect = new LinkedHashMap<>();
    private final List<String> errors = new ArrayList<>();

    /**
     * @param words what may be given
     * @param owner the element, whose own setters count as known names
     * @param mirror told each attribute and its value, so that getters and JMX show it
     */
    Settings(Words words, Object owner, BiConsumer<String,String> mirror) {
        this.words = words;
        this.owner = owner;
        this.mirror = mirror;
    }

    /** A setter of the element was called. */
    void give(String name, String value) {
        give(name, value, words.element());
    }

    /**
     * @param name as the user wrote it
     * @param value as the user wrote it
     * @param where the element or the line that has it
     */
    synchronized void give(String name, String value, String where) {
        Words.Word word = words.word(name);
        if (word == null) {
            String why = words.whyWithoutEffect(name);
            if (why == null) {
                errors.add(unknown(name, value, where));
            } else {
                withoutEffect.put(name, name + "=\"" + value + "\" of " + where + " has no effect: " + why);
            }
            return;
        }
        Given now = new Given(name, value == null ? "" : value.trim(), where, word.isOld(name));
        Given before = given.get(word.attribute);
        boolean isTheSame = before == null || before.value.equals(now.value)
                || before.name.equals(name) && before.where.equals(where);
        if (!isTheSame) {
            errors.add(contradiction(before, now));
            return;
        }
        given.put(word.attribute, now);
        mirror.accept(word.attribute, now.value);
    }

    static String contradiction(Given one, Given other) {
        return one + " and " + other + " contradict each other: they are the same attribute; leave one of them out";
    }

    static String unknown(String name, String value, String where, Collection<String> names) {
        return name + "=\"" + value + "\" of " + where + " is refused: no such attribute; "
                + Engine.didYouMean(name, names);
    }

    /** @return a sentence about a name that the element has not */
    String unknown(String name, String value, String where) {
        return unknown(name, value, where, names());
    }

    /** @return what was given for an attribute, null if nothing */
    synchronized Given get(String attribute) {
        return given.get(attribute);
    }

    synchronized Map<String,Given> all() {
        return new LinkedHashMap<>(given);
    }

    /** @return what is wrong, a sentence each */
    synchronized List<String> errors() {
        return new ArrayList<>(errors);
    }

    /** @return sentences about names that have no effect any more; empty when asked again */
    synchronized List<String> takeWithoutEffect() {
        List<String> all = new ArrayList<>(withoutEffect.values());
        withoutEffect.clear();
        return all;
    }

    private Collection<String> names() {
        List<String> all = new ArrayList<>(words.names());
        all.addAll(properties(owner));
        return all;
    }

    /** @return the names of what can be set on a bean */
    static List<String> properties(Object bean) {
        List<String> names = new ArrayList<>();
        try {
            BeanInfo info = Introspector.getBeanInfo(bean.getClass());
            for (PropertyDescriptor property : info.getPropertyDescriptors()) {
                if (property.getWriteMethod() != null) {
                    names.add(property.getName());
                }
            }
        } catch (IntrospectionException e) {
            // Fewer names to choose from.
            names.clear();
        }
        return names;
    }

    /** For mirrors: a value that is no number is the engine's to refuse. */
    static Long number(String value) {
        try {
            return Long.valueOf(value);
        } catch (NumberFormatException e) {
            return null;
        }
    }

    /** As {@link #number}, where the element takes an int. */
    static Integer integer(String value) {
        try {
            return Integer.valueOf(value);
        } catch (NumberFormatException e) {
            return null;
        }
    }
}
