package org.ringtribe.tomcat;

import java.io.IOException;
import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

import org.apache.catalina.Manager;
import org.apache.catalina.Session;
import org.apache.catalina.connector.Request;
import org.apache.catalina.connector.Response;
import org.apache.catalina.ha.ClusterManager;
import org.apache.catalina.ha.session.DeltaManager;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/** Takes a node out of service: how a balancer learns of it, and when it may be stopped. Thread-safe. */
final class Drain {

    static final String READY_PATH = "readyPath";
    static final String WHILE_NOT_ACCEPTING = "whileNotAccepting";

    private static final Log log = LogFactory.getLog(Drain.class);
    private static final String SERVE = "serve";
    private static final String REFUSE = "503";
    private static final int OK = 200;
    private static final int UNAVAILABLE = 503;
    /** A balancer that repeats the request elsewhere does so at once; this is for a client without one. */
    private static final String RETRY_AFTER_SECONDS = "5";

    private final RingtribeCluster cluster;
    private volatile boolean accepting = true;
    private volatile String readyPath;
    private volatile String whileNotAccepting = SERVE;

    Drain(RingtribeCluster cluster) {
        this.cluster = cluster;
    }

    void setReadyPath(String path) {
        readyPath = path;
    }

    String readyPath() {
        return readyPath;
    }

    void setWhileNotAccepting(String word) {
        whileNotAccepting = word == null ? "" : word.trim();
    }

    String whileNotAccepting() {
        return whileNotAccepting;
    }

    boolean isAccepting() {
        return accepting;
    }

    /** What is wrong with the attributes. */
    void check(List<String> errors) {
        String path = readyPath;
        if (path != null && !path.matches("/[^?#;\\s]*")) {
            errors.add(READY_PATH + "=\"" + path + "\" of Cluster is refused: give the path that the balancer asks for, "
                    + "which begins with / and has no space, ?, # or ;, as in /ringtribe-ready");
        }
        if (!whileNotAccepting.equals(SERVE) && !whileNotAccepting.equals(REFUSE)) {
            errors.add(WHILE_NOT_ACCEPTING + "=\"" + whileNotAccepting + "\" of Cluster is refused: it is one of " + SERVE
                    + ", " + REFUSE);
        }
    }

    void report(Configuration report) {
        if (readyPath != null) {
            report.report(READY_PATH, readyPath, "attribute of Cluster");
        }
        if (whileNotAccepting.equals(REFUSE)) {
            report.report(WHILE_NOT_ACCEPTING, whileNotAccepting, "attribute of Cluster");
        }
    }

    void stopAccepting() {
        accepting = false;
        String said = "This node is being taken out of service: ";
        List<String> ways = new ArrayList<>();
        if (readyPath != null) {
            ways.add(readyPath + " answers 503");
        }
        if (whileNotAccepting.equals(REFUSE)) {
            ways.add("requests without a session of this cluster are answered with 503");
        }
        if (ways.isEmpty()) {
            log.warn(said + "no balancer notices it by itself, since neither " + READY_PATH + " nor " + WHILE_NOT_ACCEPTING
                    + "=\"503\" is set; take the node out in the balancer, or set one of them");
        } else {
            log.info(said + String.join(", ", ways) + "; everything else is served, and copied, as before");
        }
    }

    void startAccepting() {
        accepting = true;
        log.info("This node is in service again");
    }

    /** @return whether the request is answered, in the place of any application */
    boolean answers(Request request, Response response) throws IOException {
        String path = readyPath;
        if (path != null && path.equals(request.getDecodedRequestURI())) {
            answer(response, accepting ? OK : UNAVAILABLE, accepting ? "ready" : "out of service");
            return true;
        }
        // A session that is known here is served to its end: every change of it is copied.
        if (!accepting && whileNotAccepting.equals(REFUSE) && request.getContext() != null
                && request.getSessionInternal(false) == null) {
            response.setHeader("Retry-After", RETRY_AFTER_SECONDS);
            answer(response, UNAVAILABLE, "This server begins no new sessions. Please try again.");
            return true;
        }
        return false;
    }

    private static void answer(Response response, int status, String text) throws IOException {
        response.setStatus(status);
        response.setHeader("Cache-Control", "no-store");
        response.setContentType("text/plain");
        response.setCharacterEncoding("UTF-8");
        PrintWriter out = response.getReporter();
        if (out != null) {
            out.println(text);
        }
    }

    /** @return sessions of this node without a copy elsewhere, and others of which that is not known */
    int underCopied() {
        Copies copies = settled();
        int count = 0;
        for (Map.Entry<String,ClusterManager> entry : cluster.getManagers().entrySet()) {
            count += underCopied(entry.getKey(), entry.getValue(), copies);
        }
        return count;
    }

    private static int underCopied(String context, Manager manager, Copies copies) {
        if (!(manager instanceof RingtribeDeltaManager)) {
            return manager.getActiveSessions();
        }
        int count = 0;
        for (Session session : manager.findSessions()) {
            RingtribeDeltaSession own = (RingtribeDeltaSession) session;
            if (own.isPrimarySession() && (copies == null || !copies.isCopied(context, own.copy()))) {
                count++;
            }
        }
        return count;
    }

    /** The copies, after what can be learned from the engine now; null where the channel keeps no record. */
    private Copies settled() {
        if (!(cluster.getChannel() instanceof RingtribeChannel)) {
            return null;
        }
        Copies copies = ((RingtribeChannel) cluster.getChannel()).copies();
        long number = copies.number();
        if (ChannelEngine.queuedBytes(cluster.getChannel()) == 0) {
            copies.settle(number);
        }
        return copies;
    }

    /** Now and then, so that a Gap later on costs only what was on the way then. */
    void backgroundProcess() {
        settled();
    }

    /** @return one sentence for each reason not to stop this node now; empty if there is none */
    List<String> reasonsNotToStop() {
        List<String> reasons = new ArrayList<>();
        Copies copies = settled();
        if (cluster.getChannel() == null || !cluster.getState().isAvailable()) {
            reasons.add("the cluster does not run");
            return reasons;
        }
        if (copies == null) {
            reasons.add("the Channel is a " + cluster.getChannel().getClass().getName() + ", which keeps no record of copies");
        }
        if (cluster.getMembers().length == 0) {
            reasons.add("there is no other member");
        }
        for (Map.Entry<String,ClusterManager> entry : cluster.getManagers().entrySet()) {
            ClusterManager manager = entry.getValue();
            int count = underCopied(entry.getKey(), manager, copies);
            if (count > 0) {
                reasons.add(count + " sessions of " + entry.getKey() + (manager instanceof RingtribeDeltaManager
                        ? " have no copy that another member acknowledged"
                        : " are kept by a " + manager.getClass().getName() + ", which does not say who has copies"));
            }
            if (manager instanceof DeltaManager && ((DeltaManager) manager).isExpireSessionsOnShutdown()
                    && manager.getActiveSessions() > 0) {
                reasons.add("the sessions of " + entry.getKey() + " end everywhere when this node stops, since "
                        + "expireSessionsOnShutdown is true");
            }
        }
        long queued = ChannelEngine.queuedBytes(cluster.getChannel());
        if (queued > 0) {
            reasons.add(queued + " bytes of messages are queued or not acknowledged");
        }
        return reasons;
    }
}
