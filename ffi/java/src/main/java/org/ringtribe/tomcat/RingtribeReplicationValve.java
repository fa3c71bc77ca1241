package org.ringtribe.tomcat;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.LongAdder;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;

import org.apache.catalina.Context;
import org.apache.catalina.LifecycleException;
import org.apache.catalina.Session;
import org.apache.catalina.connector.Request;
import org.apache.catalina.connector.Response;
import org.apache.catalina.ha.CatalinaCluster;
import org.apache.catalina.ha.ClusterManager;
import org.apache.catalina.ha.tcp.ReplicationValve;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * A {@link ReplicationValve} that takes the filter list of Tomcat 5.5 and refuses what is no regular
 * expression (stock logs that and goes on without a filter), and that knows whether the session of a
 * request was copied: {@code onReplicationFailure} says what happens if it was not.
 *
 * <p>It replicates where stock's does, after the application returned, and once more when a request completes
 * that went on after startAsync. What the application wrote is still in the response's buffer then, unless it
 * flushed or closed it or wrote more than the buffer holds (8 KiB, if the application did not change it): such
 * a response cannot be changed any more.
 */
public class RingtribeReplicationValve extends ReplicationValve {

    private static final Log log = LogFactory.getLog(RingtribeReplicationValve.class);

    private final LongAdder failures = new LongAdder();
    private final LongAdder tooLate = new LongAdder();
    private final LongAdder withoutCopy = new LongAdder();
    private String filterError;
    private String answerError;
    private volatile FailureAnswer answer = FailureAnswer.LOG;
    private boolean answerGiven;

    @Override
    public void setFilter(String filter) {
        String regex = filter;
        if (FilterList.isList(filter)) {
            regex = FilterList.toRegex(filter);
            log.info(FilterList.said(filter));
        }
        try {
            if (regex != null) {
                Pattern.compile(regex);
            }
            filterError = null;
            super.setFilter(regex);
        } catch (PatternSyntaxException e) {
            filterError = "filter=\"" + filter + "\" of Valve is refused: it is no regular expression ("
                    + e.getDescription() + " near index " + e.getIndex()
                    + "); give one that matches whole paths, as in .*\\.gif|.*\\.js";
        }
    }

    /**
     * @param word what happens to a request whose session could not be copied, where that is waited for:
     *        log (the default), header or 503; the log has it in any case; may be changed at any time
     * @throws IllegalArgumentException the valve runs and this is no such word; before, the start is refused
     */
    public void setOnReplicationFailure(String word) {
        FailureAnswer known = FailureAnswer.of(word);
        String refusal = known == null ? FailureAnswer.refusal(word, "Valve") : null;
        if (refusal != null && getState().isAvailable()) {
            throw new IllegalArgumentException(refusal);
        }
        answerError = refusal;
        if (known != null) {
            answer = known;
            answerGiven = true;
        }
    }

    public String getOnReplicationFailure() {
        return answer.word();
    }

    /** @return whether the element, or a program, said what happens */
    boolean answerGiven() {
        return answerGiven;
    }

    /** The cluster around it says what happens, where this element does not. */
    void answerWith(FailureAnswer decided) {
        answer = decided;
    }

    /** @return requests whose session is not on every member, though that was waited for */
    public long getReplicationFailures() {
        return failures.sum();
    }

    /** @return those of them whose client could not be told as onReplicationFailure says */
    public long getReplicationFailuresTooLate() {
        return tooLate.sum();
    }

    /** @return requests with a session that were served while there was no other member */
    public long getRequestsWithoutCopy() {
        return withoutCopy.sum();
    }

    /** @return what is wrong, a sentence each */
    List<String> errors() {
        List<String> errors = new ArrayList<>();
        if (filterError != null) {
            errors.add(filterError);
        }
        if (answerError != null) {
            errors.add(answerError);
        }
        return errors;
    }

    @Override
    protected void startInternal() throws LifecycleException {
        if (!errors().isEmpty()) {
            throw new LifecycleException(String.join("; ", errors()));
        }
        super.startInternal();
    }

    /**
     * {@inheritDoc} Stock's exceptions go on as they are: their class is another one in each line of
     * Tomcat and cannot be named here.
     */
    @Override
    public void invoke(Request request, Response response) throws IOException {
        if (getCluster() instanceof RingtribeCluster
                && ((RingtribeCluster) getCluster()).drain().answers(request, response)) {
            return;
        }
        Replication replication = Replication.begin();
        try {
            super.invoke(request, response);
        } catch (Exception e) {
            throw RingtribeReplicationValve.<IOException>asItIs(e);
        } finally {
            replication.end();
            if (!AsyncCompletion.await(request, () -> completed(replication, request, response))) {
                ended(replication, request, response);
            }
        }
    }

    /** What the application changed after its servlet had returned, with startAsync, is sent now. */
    private void completed(Replication replication, Request request, Response response) {
        Replication around = Replication.current();
        if (around != null) {
            // It was dispatched back to a servlet, and that passes here too.
            around.take(replication);
            return;
        }
        replication.resume();
        try {
            sendLater(request);
        } finally {
            replication.end();
            ended(replication, request, response);
        }
    }

    private void sendLater(Request request) {
        Context context = request.getContext();
        CatalinaCluster cluster = getCluster();
        if (context == null || cluster == null || !(context.getManager() instanceof ClusterManager)) {
            return;
        }
        ClusterManager manager = (ClusterManager) context.getManager();
        if (cluster.getManager(manager.getName()) == null) {
            return;
        }
        if (cluster.hasMembers()) {
            sendReplicationMessage(request, System.currentTimeMillis(), false, true, manager);
        } else {
            resetReplicationRequest(request, false);
        }
    }

    private void ended(Replication replication, Request request, Response response) {
        if (replication.wasAlone()) {
            withoutCopy.increment();
        }
        if (replication.hasFailed()) {
            failed(replication, request, response);
        }
    }

    @SuppressWarnings("unchecked")
    private static <E extends Exception> E asItIs(Exception e) throws E {
        throw (E) e;
    }

    private void failed(Replication replication, Request request, Response response) {
        FailureAnswer decided = answer;
        failures.increment();
        boolean inTime;
        try {
            inTime = decided.give(request, response);
        } catch (IOException | IllegalStateException e) {
            // Begun between the question and the answer.
            log.debug("The answer of a request could not be changed", e);
            inTime = false;
        }
        if (!inTime) {
            tooLate.increment();
        }
        log.error("A request of " + request.getContext().getName() + " is not replicated: " + replication + "; "
                + decided.said(inTime));
    }

    /** {@inheritDoc} What a manager throws, stock logs; what it sends itself, stock does not count. */
    @Override
    protected void send(ClusterManager manager, String sessionId) {
        Replication replication = Replication.current();
        int before = replication == null ? 0 : replication.sentCount();
        try {
            super.send(manager, sessionId);
            if (replication != null && doStatistics()) {
                nrOfSendRequests.add(replication.sentCount() - before);
            }
        } catch (RuntimeException e) {
            if (replication == null) {
                throw e;
            }
            replication.failed(RingtribeDeltaSession.hash(sessionId), e);
        }
    }

    /** {@inheritDoc} That is what stock does of a request when there is no member. */
    @Override
    protected void resetReplicationRequest(Request request, boolean isCrossContext) {
        Replication replication = Replication.current();
        Session session = request.getSessionInternal(false);
        if (replication != null && session != null && !isRequestWithoutSessionChange(request.getDecodedRequestURI())) {
            replication.noMember();
        }
        super.resetReplicationRequest(request, isCrossContext);
    }
}
