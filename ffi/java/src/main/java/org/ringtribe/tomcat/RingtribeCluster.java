package org.ringtribe.tomcat;

import java.util.ArrayList;
import java.util.List;

import org.apache.catalina.LifecycleException;
import org.apache.catalina.Valve;
import org.apache.catalina.ha.ClusterDeployer;
import org.apache.catalina.ha.ClusterManager;
import org.apache.catalina.ha.tcp.ReplicationValve;
import org.apache.catalina.ha.deploy.FarmWarDeployer;
import org.apache.catalina.ha.session.JvmRouteBinderValve;
import org.apache.catalina.ha.tcp.SimpleTcpCluster;
import org.apache.catalina.tribes.Channel;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * The one-line way in: a {@link SimpleTcpCluster} whose channel is a {@link RingtribeChannel}, and
 * whose messages are acknowledged after they are applied (channelSendOptions 6) unless said otherwise.
 *
 * <p>The words of a Tomcat 5.5 cluster may stand on this one element (mcastAddr, tcpListenPort,
 * replicationMode, useDirtyFlag ...), today's with the element they belong to
 * ({@code receiver.port}, {@code membership.address}, {@code manager.maxActiveSessions}); or
 * {@code config} names a file with a Cluster element of Tomcat 5.5.
 */
public class RingtribeCluster extends SimpleTcpCluster {

    private static final Log log = LogFactory.getLog(RingtribeCluster.class);

    private final FlatWords words = new FlatWords(this);
    private final Drain drain = new Drain(this);
    private final DistributableWatch watch = new DistributableWatch();
    private String config;
    private boolean nativeRequired;
    private boolean configured;
    private boolean optionsGiven;
    private boolean managerGiven;
    private String onReplicationFailure;
    private String optionsOrigin = "default of RingtribeCluster";

    public RingtribeCluster() {
        super.setChannelSendOptions(SendMode.APPLIED);
        super.setManagerTemplate(ManagerWords.standard());
        setChannel(new RingtribeChannel());
    }

    @Override
    public void setChannelSendOptions(int options) {
        optionsGiven = true;
        optionsOrigin = "attribute channelSendOptions of Cluster";
        super.setChannelSendOptions(options);
    }

    boolean optionsGiven() {
        return optionsGiven;
    }

    /** The options that the sender's mode means. */
    void decideOptions(int options, String stated) {
        optionsOrigin = stated;
        super.setChannelSendOptions(options);
    }

    /** @param file a Cluster element of Tomcat 5.5, relative to catalina.base */
    public void setConfig(String file) {
        config = file;
    }

    public String getConfig() {
        return config;
    }

    /** @param required whether the cluster refuses to start where the native library cannot load */
    public void setNativeRequired(boolean required) {
        nativeRequired = required;
    }

    public boolean isNativeRequired() {
        return nativeRequired;
    }

    /**
     * @param word what happens to a request whose session could not be copied, where that is waited for:
     *        log (the default), header or 503; may be changed while the cluster runs
     * @throws IllegalArgumentException the cluster runs and this is no such word; before, the start is refused
     */
    public void setOnReplicationFailure(String word) {
        FailureAnswer known = FailureAnswer.of(word);
        if (configured && known == null) {
            throw new IllegalArgumentException(FailureAnswer.refusal(word, "Cluster"));
        }
        onReplicationFailure = word;
        if (configured) {
            replicationValves().forEach(valve -> valve.answerWith(known));
        }
    }

    public String getOnReplicationFailure() {
        List<RingtribeReplicationValve> valves = replicationValves();
        if (!valves.isEmpty()) {
            return valves.get(0).getOnReplicationFailure();
        }
        return onReplicationFailure == null ? FailureAnswer.LOG.word() : onReplicationFailure;
    }

    /** @return requests whose session is not on every member, though that was waited for */
    public long getReplicationFailures() {
        return replicationValves().stream().mapToLong(RingtribeReplicationValve::getReplicationFailures).sum();
    }

    /** @return those of them whose client could not be told as onReplicationFailure says */
    public long getReplicationFailuresTooLate() {
        return replicationValves().stream().mapToLong(RingtribeReplicationValve::getReplicationFailuresTooLate).sum();
    }

    /** @return requests with a session that were served while there was no other member */
    public long getRequestsWithoutCopy() {
        return replicationValves().stream().mapToLong(RingtribeReplicationValve::getRequestsWithoutCopy).sum();
    }

    Drain drain() {
        return drain;
    }

    /**
     * @param path a path that answers 200 "ready" while this node is in service and 503 from
     *        {@link #stopAccepting} on, whatever applications there are: for the check of a balancer. By default there
     *        is none. A RingtribeReplicationValve of this Cluster answers it
     */
    public void setReadyPath(String path) {
        drain.setReadyPath(path);
    }

    public String getReadyPath() {
        return drain.readyPath();
    }

    /**
     * @param word what becomes, after {@link #stopAccepting}, of a request that has no session known here: serve (the
     *        default) serves it and begins sessions, all of which are copied, so that no request fails while balancers
     *        learn of it; 503 refuses it before any application sees it, with Retry-After, for balancers that repeat
     *        such a request elsewhere and have no check of their own (mod_jk's fail_on_status, nginx's
     *        proxy_next_upstream http_503, HAProxy's retry-on 503)
     */
    public void setWhileNotAccepting(String word) {
        drain.setWhileNotAccepting(word);
    }

    public String getWhileNotAccepting() {
        return drain.whileNotAccepting();
    }

    /**
     * Begins to take this node out of service: {@code readyPath} answers 503, and {@code whileNotAccepting} says what
     * becomes of requests without a session. What has a session here is served as before and its changes are copied;
     * the node stays a member, and what the others change is copied to it. May be called at any time.
     */
    public void stopAccepting() {
        drain.stopAccepting();
    }

    /** Takes {@link #stopAccepting} back. */
    public void startAccepting() {
        drain.startAccepting();
    }

    /** @return false from {@link #stopAccepting} on */
    public boolean isAccepting() {
        return drain.isAccepting();
    }

    /**
     * @return sessions that this node served last and whose last change no living member acknowledged; a member that
     *         fetched all sessions after the change, or was reconciled after it, counts too. What was sent without
     *         waiting counts as acknowledged once the engine had nothing unacknowledged at all, which under load may be
     *         late. Of sessions that another manager than RingtribeDeltaManager keeps nothing is known: all that are
     *         here count. Earlier changes that failed are in replicationFailures and do not count, nor do sessions of
     *         applications that are not distributable: those are lost in any case
     */
    public int getUnderCopied() {
        return drain.underCopied();
    }

    /**
     * @return whether no session is lost if this node stops now: {@link #getUnderCopied underCopied} is 0, nothing is
     *         queued or unacknowledged, there is another member, and no manager ends its sessions at the stop. A request
     *         that runs, or comes, may change that: call {@link #stopAccepting} first and wait until the balancer has
     *         noticed
     */
    public boolean isSafeToStop() {
        return drain.reasonsNotToStop().isEmpty();
    }

    /** @return why {@link #isSafeToStop safeToStop} is false, empty if it is true */
    public String getNotSafeToStopBecause() {
        return String.join("; ", drain.reasonsNotToStop());
    }

    @Override
    public void backgroundProcess() {
        super.backgroundProcess();
        drain.backgroundProcess();
    }

    private List<RingtribeReplicationValve> replicationValves() {
        List<RingtribeReplicationValve> found = new ArrayList<>();
        for (Valve valve : getValves()) {
            if (valve instanceof RingtribeReplicationValve) {
                found.add((RingtribeReplicationValve) valve);
            }
        }
        return found;
    }

    /**
     * The words that have no setter.
     *
     * @return true: what is wrong is told at the start
     */
    public boolean setProperty(String name, String value) {
        words.give(name, value, "Cluster");
        return true;
    }

    /** {@inheritDoc} A stock FarmWarDeployer, which loses WARs and obeys paths in names, is replaced. */
    @Override
    public void setClusterDeployer(ClusterDeployer deployer) {
        ClusterDeployer taken = deployer;
        if (deployer != null && deployer.getClass() == FarmWarDeployer.class) {
            taken = RingtribeFarmWarDeployer.inThePlaceOf((FarmWarDeployer) deployer);
            log.info(taken.getClass().getName() + " takes the place of " + deployer.getClass().getName());
        }
        super.setClusterDeployer(taken);
    }

    @Override
    public void setManagerTemplate(ClusterManager template) {
        managerGiven = true;
        super.setManagerTemplate(template);
    }

    /** @return whether server.xml has a Manager element here */
    boolean managerGiven() {
        return managerGiven;
    }

    /** The manager that the words name, which is no element of its own. */
    void useManager(ClusterManager template) {
        super.setManagerTemplate(template);
    }

    /** @return each value in force and where it came from; empty when it is stopped */
    public String getEffectiveConfiguration() {
        return getChannel() == null ? "" : ChannelEngine.effective(getChannel());
    }

    /** What the line of effective values says of the cluster and its manager. */
    void report(Configuration report) {
        report.report("channelSendOptions", getChannelSendOptions(), optionsOrigin);
        report.report(FailureAnswer.ATTRIBUTE, getOnReplicationFailure(), answerOrigin());
        drain.report(report);
        words.report(report);
    }

    @Override
    protected void startInternal() throws LifecycleException {
        if (!configured) {
            configure();
            configured = true;
        }
        super.startInternal();
        watch.begin(getContainer());
    }

    @Override
    protected void stopInternal() throws LifecycleException {
        watch.end();
        super.stopInternal();
    }

    private void configure() throws LifecycleException {
        List<String> errors = new ArrayList<>();
        if (config != null) {
            ClusterFile.read(config, this, words, errors);
        }
        Channel channel = getChannel();
        if (channel instanceof RingtribeChannel) {
            if (nativeRequired) {
                ((RingtribeChannel) channel).setNativeRequired(true);
            }
        } else if (nativeRequired) {
            errors.add("nativeRequired=\"true\" is refused: the Channel is a " + channel.getClass().getName()
                    + ", which has no native library; use " + RingtribeChannel.class.getName());
        }
        words.apply(channel, errors);
        checkFilters(errors);
        decideAnswer(errors);
        drain.check(errors);
        if (!errors.isEmpty()) {
            String text = String.join("; ", errors);
            log.error(text);
            throw new LifecycleException(text);
        }
    }

    /** Whether there are valves at all decides whether the defaults are added; ours are the same, with checks. */
    @Override
    protected void checkDefaults() {
        if (getValves().length == 0) {
            addValve(new JvmRouteBinderValve());
            RingtribeReplicationValve valve = new RingtribeReplicationValve();
            if (onReplicationFailure != null) {
                valve.answerWith(FailureAnswer.of(onReplicationFailure));
            }
            addValve(valve);
        }
        super.checkDefaults();
    }

    private String answerOrigin() {
        boolean isOfValve = replicationValves().stream().anyMatch(RingtribeReplicationValve::answerGiven);
        return isOfValve ? "attribute of Valve" : onReplicationFailure == null ? "default" : "attribute of Cluster";
    }

    /** What this element says of a failure is the valves' to do. */
    private void decideAnswer(List<String> errors) {
        if (onReplicationFailure == null) {
            return;
        }
        FailureAnswer decided = FailureAnswer.of(onReplicationFailure);
        if (decided == null) {
            errors.add(FailureAnswer.refusal(onReplicationFailure, "Cluster"));
            return;
        }
        Settings.Given here = new Settings.Given(FailureAnswer.ATTRIBUTE, decided.word(), "Cluster", false);
        for (RingtribeReplicationValve valve : replicationValves()) {
            if (valve.answerGiven() && !valve.getOnReplicationFailure().equals(decided.word())) {
                errors.add(Settings.contradiction(here, new Settings.Given(FailureAnswer.ATTRIBUTE,
                        valve.getOnReplicationFailure(), "Valve", false)));
            }
            valve.answerWith(decided);
        }
        if (getValves().length > 0 && replicationValves().isEmpty() && decided != FailureAnswer.LOG) {
            errors.add(here + " is refused: no Valve of this Cluster can do it; take "
                    + RingtribeReplicationValve.class.getName() + " in the place of " + ReplicationValve.class.getName());
        }
    }

    private void checkFilters(List<String> errors) {
        for (Valve valve : getValves()) {
            if (valve instanceof RingtribeReplicationValve) {
                errors.addAll(((RingtribeReplicationValve) valve).errors());
            } else if (valve instanceof ReplicationValve) {
                String filter = ((ReplicationValve) valve).getFilter();
                if (FilterList.isList(filter)) {
                    ((ReplicationValve) valve).setFilter(FilterList.toRegex(filter));
                    log.info(FilterList.said(filter));
                }
            }
        }
    }
}
