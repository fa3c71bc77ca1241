package org.ringtribe.tomcat;

import java.io.File;
import java.io.IOException;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.List;
import java.util.function.Consumer;

import javax.xml.parsers.ParserConfigurationException;
import javax.xml.parsers.SAXParser;
import javax.xml.parsers.SAXParserFactory;

import org.apache.catalina.Valve;
import org.apache.catalina.ha.ClusterDeployer;
import org.apache.catalina.ha.ClusterListener;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;
import org.apache.tomcat.util.IntrospectionUtils;
import org.xml.sax.Attributes;
import org.xml.sax.InputSource;
import org.xml.sax.Locator;
import org.xml.sax.SAXException;
import org.xml.sax.SAXParseException;
import org.xml.sax.helpers.DefaultHandler;

/**
 * Reads a Cluster element of Tomcat 5.5 as it stands, alone or in its server.xml. Tomcat's own reader
 * drops its Membership, Receiver and Sender with a warning and joins the default group.
 */
final class ClusterFile extends DefaultHandler {

    private static final Log log = LogFactory.getLog(ClusterFile.class);
    private static final long LONGEST_BYTES = 1 << 20;
    private static final String REMEDY = "config names a file with a Cluster element of Tomcat 5.5, relative to "
            + "catalina.base";

    private final String name;
    private final RingtribeCluster cluster;
    private final FlatWords words;
    private final List<String> errors;
    private final Deque<String> open = new ArrayDeque<>();
    private Locator locator;
    private int clusterLine;
    /** How deep the Cluster element that is read stands; 0 outside of it. */
    private int clusterDepth;

    private ClusterFile(String name, RingtribeCluster cluster, FlatWords words, List<String> errors) {
        this.name = name;
        this.cluster = cluster;
        this.words = words;
        this.errors = errors;
    }

    /**
     * @param name the file, relative to catalina.base
     * @param cluster gets the valves, the deployer and the listeners
     * @param words gets all attributes of the cluster's other elements
     * @param errors gets a sentence for each thing that is wrong
     */
    static void read(String name, RingtribeCluster cluster, FlatWords words, List<String> errors) {
        File file = new File(name);
        if (!file.isAbsolute()) {
            file = new File(System.getProperty("catalina.base", "."), name);
        }
        String refused = "config=\"" + name + "\" of Cluster is refused: " + file;
        if (!file.isFile() || !file.canRead()) {
            errors.add(refused + " is no file that can be read; " + REMEDY);
            return;
        }
        if (file.length() > LONGEST_BYTES) {
            errors.add(refused + " has " + file.length() + " bytes; at most " + LONGEST_BYTES + " are read");
            return;
        }
        ClusterFile handler = new ClusterFile(name, cluster, words, errors);
        try {
            SAXParserFactory factory = SAXParserFactory.newInstance();
            // A document type could define entities that grow without end, or name other files.
            factory.setFeature("http://apache.org/xml/features/disallow-doctype-decl", true);
            SAXParser parser = factory.newSAXParser();
            parser.parse(new InputSource(file.toURI().toASCIIString()), handler);
            if (handler.clusterLine == 0) {
                errors.add(refused + " has no Cluster element; is it commented out?");
            }
        } catch (SAXParseException e) {
            errors.add(refused + " is not XML at line " + e.getLineNumber() + ", column " + e.getColumnNumber() + ": "
                    + e.getMessage());
        } catch (SAXException | ParserConfigurationException | IOException e) {
            errors.add(refused + " cannot be read: " + e.getMessage());
        }
    }

    @Override
    public void setDocumentLocator(Locator locator) {
        this.locator = locator;
    }

    private String line() {
        return name + " line " + locator.getLineNumber();
    }

    @Override
    public void startElement(String uri, String localName, String element, Attributes attributes) {
        open.push(element);
        if (clusterDepth == 0) {
            if (element.equals("Cluster")) {
                beginCluster(attributes);
            }
        } else if (open.size() == clusterDepth + 1) {
            part(element, attributes);
        } else {
            errors.add("<" + element + "> at " + line() + " is refused: it stands deeper than Tomcat 5.5 had anything; "
                    + "today's form belongs into server.xml itself");
        }
    }

    @Override
    public void endElement(String uri, String localName, String element) {
        if (open.size() == clusterDepth) {
            clusterDepth = 0;
        }
        open.pop();
    }

    private void beginCluster(Attributes attributes) {
        if (clusterLine != 0) {
            errors.add("config=\"" + name + "\" of Cluster is refused: it has two Cluster elements, at line " + clusterLine
                    + " and at line " + locator.getLineNumber() + "; a node is in one cluster, take one out");
            return;
        }
        clusterLine = locator.getLineNumber();
        clusterDepth = open.size();
        for (int n = 0; n < attributes.getLength(); n++) {
            String attribute = attributes.getQName(n);
            String value = value(attributes, n);
            if (attribute.equals("className")) {
                // Whatever cluster it was: this one takes its place.
                continue;
            }
            if (attribute.equals("clusterName")) {
                cluster.setClusterName(value);
            } else {
                words.give(attribute, value, line());
            }
        }
    }

    private void part(String element, Attributes attributes) {
        switch (element) {
            case "Membership":
                words(Words.MEMBERSHIP, attributes);
                break;
            case "Receiver":
                words(Words.RECEIVER, attributes);
                break;
            case "Sender":
                words(Words.SENDER, attributes);
                break;
            case "Manager":
                manager(attributes);
                break;
            case "Valve":
                made(element, attributes, Valve.class, cluster::addValve);
                break;
            case "Deployer":
                made(element, attributes, ClusterDeployer.class, cluster::setClusterDeployer);
                break;
            case "ClusterListener":
                if (OldClasses.ROUTE_LISTENER.equals(attributes.getValue("className"))) {
                    log.info(OldClasses.ROUTE_LISTENER + " of " + line()
                            + " has no effect: the JvmRouteBinderValve needs no listener today");
                } else {
                    made(element, attributes, ClusterListener.class, cluster::addClusterListener);
                }
                break;
            default:
                errors.add("<" + element + "> at " + line() + " is refused: a Cluster of Tomcat 5.5 has Membership, "
                        + "Receiver, Sender, Valve, Deployer and ClusterListener; today's form belongs into server.xml");
        }
    }

    private void words(Words part, Attributes attributes) {
        for (int n = 0; n < attributes.getLength(); n++) {
            String attribute = attributes.getQName(n);
            if (!attribute.equals("className")) {
                words.give(part, attribute, value(attributes, n), line());
            }
        }
    }

    private void manager(Attributes attributes) {
        for (int n = 0; n < attributes.getLength(); n++) {
            String attribute = attributes.getQName(n);
            words.give(attribute.equals("className") ? "managerClassName" : "manager." + attribute,
                    value(attributes, n), line());
        }
    }

    /** Makes the object that an element names and hands it over; if that is impossible, says why. */
    private <T> void made(String element, Attributes attributes, Class<T> kind, Consumer<T> taker) {
        String given = attributes.getValue("className");
        String place = "className=\"" + given + "\" of <" + element + "> at " + line();
        if (given == null) {
            errors.add("<" + element + "> at " + line() + " is refused: it has no className");
            return;
        }
        String className = OldClasses.today(given);
        try {
            Object made = OldClasses.make(className, cluster);
            if (!kind.isInstance(made)) {
                errors.add(place + " is refused: it is no " + kind.getName());
                return;
            }
            for (int n = 0; n < attributes.getLength(); n++) {
                String attribute = attributes.getQName(n);
                String value = value(attributes, n);
                if (!attribute.equals("className") && !IntrospectionUtils.setProperty(made, attribute, value)) {
                    errors.add(Settings.unknown(attribute, value, line(), Settings.properties(made)));
                }
            }
            if (!className.equals(given)) {
                log.info(place + " is " + className + " today");
            }
            taker.accept(kind.cast(made));
        } catch (ReflectiveOperationException e) {
            errors.add(place + " is refused: there is no such class (" + e + "); give its name of today");
        }
    }

    /** The value with its placeholders replaced by system properties, as Tomcat does. */
    private static String value(Attributes attributes, int index) {
        return IntrospectionUtils.replaceProperties(attributes.getValue(index), System.getProperties(), null,
                ClusterFile.class.getClassLoader());
    }
}
