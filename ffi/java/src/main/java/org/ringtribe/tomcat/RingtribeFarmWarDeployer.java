package org.ringtribe.tomcat;

import java.io.EOFException;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Predicate;

import org.apache.catalina.LifecycleException;
import org.apache.catalina.ha.ClusterMessage;
import org.apache.catalina.ha.deploy.FarmWarDeployer;
import org.apache.catalina.ha.deploy.FileMessage;
import org.apache.catalina.ha.deploy.UndeployMessage;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.MembershipListener;
import org.apache.catalina.util.ContextName;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * A {@link FarmWarDeployer} with the same attributes and the same messages, so that nodes of both kinds
 * are one farm, where
 *
 * <ul>
 * <li>a WAR of a whole number of 10240 bytes arrives, from a stock node too;
 * <li>a name with a path in it is refused, of the file as of the context;
 * <li>nothing is left of half a transfer: a WAR gets its name when it is complete and an archive, the
 * one before it stays until then; what its sender does not go on with is deleted after maxValidTime, or
 * when that member is gone, and what a killed node left, when it starts again;
 * <li>a WAR that is still being written into watchDir is not sent before it is complete;
 * <li>who failed is named to the sender, and gets no further pieces;
 * <li>attributes that are missing, or unknown, are refused at the start.
 * </ul>
 */
public class RingtribeFarmWarDeployer extends FarmWarDeployer implements MembershipListener {

    private static final Log log = LogFactory.getLog(RingtribeFarmWarDeployer.class);

    /** Each has an open file. */
    private static final int MOST_TRANSFERS = 64;
    private static final int MOST_TASKS = 256;
    private static final long IDLE_SECONDS = 10;
    /** Tomcat's deployer looks at a file a second after it was changed; what arrives here is not written any more. */
    private static final long SETTLED_MILLIS = 2000;

    private final List<String> errors = new ArrayList<>();
    /** By sender and name. */
    private final Map<List<Object>,ArrivingWar> transfers = new HashMap<>();
    private final List<Task> postponed = new ArrayList<>();
    private final AtomicLong numbers = new AtomicLong();
    /** By context, so that an older version never takes the place of a newer one. */
    private final Map<String,Long> lastDone = new ConcurrentHashMap<>();
    private final Set<File> unfinished = new LinkedHashSet<>();
    private ThreadPoolExecutor worker;

    /**
     * What has no setter, or no value of its kind.
     *
     * @return true: what is wrong is told at the start
     */
    public boolean setProperty(String name, String value) {
        errors.add(Settings.properties(this).contains(name)
                ? name + "=\"" + value + "\" of Deployer is refused: give a whole number"
                : Settings.unknown(name, value, "Deployer", Settings.properties(this)));
        return true;
    }

    /** @return one of ours with the attributes of stock's */
    static RingtribeFarmWarDeployer inThePlaceOf(FarmWarDeployer stock) {
        RingtribeFarmWarDeployer made = new RingtribeFarmWarDeployer();
        made.setTempDir(stock.getTempDir());
        made.setDeployDir(stock.getDeployDir());
        made.setWatchDir(stock.getWatchDir());
        made.setWatchEnabled(stock.getWatchEnabled());
        made.setProcessDeployFrequency(stock.getProcessDeployFrequency());
        made.setMaxValidTime(stock.getMaxValidTime());
        return made;
    }

    @Override
    public void start() throws Exception {
        if (started) {
            return;
        }
        List<String> wrong = new ArrayList<>(errors);
        directory("tempDir", getTempDir(), wrong);
        directory("deployDir", getDeployDir(), wrong);
        if (getWatchEnabled()) {
            directory("watchDir", getWatchDir(), wrong);
        }
        if (!wrong.isEmpty()) {
            String text = String.join("; ", wrong);
            log.error(text);
            throw new LifecycleException(text);
        }
        super.start();
        if (!started) {
            return;
        }
        WarFiles.removeLeft(getTempDirFile());
        WarFiles.removeLeft(getDeployDirFile());
        if (!getDeployDirFile().equals(host.getAppBaseFile())) {
            log.warn("deployDir=\"" + getDeployDir() + "\" of Deployer is not the appBase of its Host ("
                    + host.getAppBaseFile() + "): WARs are put there, and Tomcat does not run them");
        }
        worker = new ThreadPoolExecutor(1, 1, IDLE_SECONDS, TimeUnit.SECONDS, new LinkedBlockingQueue<>(MOST_TASKS), task -> {
            Thread thread = new Thread(task, "Ringtribe-farm[" + host.getName() + "]");
            thread.setDaemon(true);
            return thread;
        });
        worker.allowCoreThreadTimeOut(true);
        getCluster().getChannel().addMembershipListener(this);
    }

    private void directory(String attribute, String given, List<String> wrong) {
        if (given == null || given.trim().isEmpty()) {
            wrong.add(attribute + " of Deployer is missing; give a directory, relative to catalina.base");
            return;
        }
        File file = new File(given);
        File directory = file.isAbsolute() ? file : new File(getCluster().getContainer().getCatalinaBase(), given);
        try {
            Files.createDirectories(directory.toPath());
        } catch (IOException e) {
            wrong.add(attribute + "=\"" + given + "\" of Deployer is refused: " + directory + " is no directory and cannot "
                    + "be made one (" + e + ")");
            return;
        }
        if (!directory.canWrite() && !attribute.equals("watchDir")) {
            wrong.add(attribute + "=\"" + given + "\" of Deployer is refused: " + directory + " cannot be written by this user");
        }
    }

    @Override
    public void stop() throws LifecycleException {
        if (worker != null) {
            getCluster().getChannel().removeMembershipListener(this);
            worker.shutdown();
            worker = null;
        }
        synchronized (transfers) {
            transfers.values().forEach(war -> war.fail("this node stops"));
            transfers.clear();
        }
        synchronized (postponed) {
            postponed.forEach(Task::drop);
            postponed.clear();
        }
        super.stop();
    }

    /** {@inheritDoc} Its sender learns of what is refused. */
    @Override
    public void messageReceived(ClusterMessage message) {
        if (message instanceof FileMessage) {
            piece((FileMessage) message);
        } else if (message instanceof UndeployMessage) {
            String context = ((UndeployMessage) message).getContextName();
            refuse(WarFiles.whyNotContext(context), "The undeployment of \"" + context + "\"", message.getAddress());
            execute(new Task("The undeployment of \"" + context + "\"", context, null, null), message.getAddress());
        }
    }

    private static void refuse(String why, String what, Member sender) {
        if (why != null) {
            // Names come from the network: a line break in one would make two lines of one.
            String text = (what + " by " + (sender == null ? "?" : sender.getName()) + " is refused: " + why)
                    .replaceAll("\\p{Cntrl}", "?");
            log.error(text);
            throw new IllegalArgumentException(text);
        }
    }

    private void piece(FileMessage piece) {
        String name = piece.getFileName();
        Member sender = piece.getAddress();
        String what = "The WAR \"" + name + "\" for \"" + piece.getContextName() + "\"";
        refuse(WarFiles.whyNotName(name), what, sender);
        refuse(WarFiles.whyNotContext(piece.getContextName()), what, sender);
        refuse(ArrivingWar.whyNot(piece), what, sender);
        File complete = null;
        String why = null;
        synchronized (transfers) {
            List<Object> key = Arrays.asList(sender, name);
            ArrivingWar war = transfers.get(key);
            try {
                if (war != null && war.beginsAgain(piece)) {
                    forget(transfer -> transfer.getKey().equals(key), "its sender began again");
                    war = null;
                }
                if (war == null) {
                    if (transfers.size() >= MOST_TRANSFERS) {
                        throw new IOException(MOST_TRANSFERS + " others are on their way; try again later");
                    }
                    war = new ArrivingWar(piece, getTempDirFile());
                    transfers.put(key, war);
                }
                if (!war.hasFailed() && war.take(piece)) {
                    transfers.remove(key);
                    complete = war.close();
                }
            } catch (IOException e) {
                why = String.valueOf(e.getMessage());
            }
        }
        refuse(why, what, sender);
        if (complete != null) {
            arrived(complete, name, piece.getContextName(), what, sender);
        }
    }

    private void arrived(File complete, String name, String context, String what, Member sender) {
        File war = new File(getDeployDirFile(), WarFiles.warName(name));
        File part = null;
        String why = null;
        try {
            if (WarFiles.isWhole(complete)) {
                part = WarFiles.moveBeside(complete, war);
            } else {
                why = "it is no whole archive";
            }
        } catch (IOException e) {
            why = String.valueOf(e.getMessage());
        }
        complete.delete();
        refuse(why, what, sender);
        execute(new Task(what, context, part, war), sender);
    }

    /** What is to be done with an application when Tomcat's deployer has time for it. */
    private final class Task implements Runnable {
        private final long number = numbers.incrementAndGet();
        private final String what;
        private final String context;
        /** Null to undeploy. */
        private final File part;
        private final File war;

        Task(String what, String context, File part, File war) {
            this.what = what;
            this.context = context;
            this.part = part;
            this.war = war;
        }

        @Override
        public void run() {
            try {
                if (lastDone.getOrDefault(context, 0L) > number) {
                    // It had to wait, and what came after it did not.
                    drop();
                } else if (!tryAddServiced(context)) {
                    postpone(this);
                } else {
                    perform();
                }
            } catch (Exception e) {
                log.error(what + " failed: " + e.getMessage(), e);
                drop();
            }
        }

        private void perform() throws Exception {
            try {
                if (part != null || host.findChild(context) != null) {
                    lastDone.put(context, number);
                }
                remove(context);
                if (part != null) {
                    if (!part.setLastModified(System.currentTimeMillis() - SETTLED_MILLIS)) {
                        log.debug("The time of " + part + " cannot be set: it is deployed a moment later");
                    }
                    WarFiles.rename(part, war);
                }
            } finally {
                removeServiced(context);
            }
            // Where it is undeployed, stock leaves the rest to autoDeploy, which may be off.
            check(context);
            if (part != null) {
                log.info("The WAR " + war + " has arrived and is deployed as \"" + context + "\"");
            }
        }

        /** Nothing becomes of it. */
        void drop() {
            if (part != null) {
                part.delete();
            }
        }
    }

    private void postpone(Task task) {
        synchronized (postponed) {
            if (postponed.size() < MOST_TASKS) {
                postponed.add(task);
                return;
            }
        }
        log.error(task.what + " is given up: the application is busy, and " + MOST_TASKS + " others wait");
        task.drop();
    }

    private void execute(Task task, Member sender) {
        ThreadPoolExecutor running = worker;
        try {
            if (running != null) {
                running.execute(task);
                return;
            }
        } catch (RejectedExecutionException e) {
            log.debug("Too much to do, or nothing any more", e);
        }
        task.drop();
        refuse(running == null ? "this node stops" : MOST_TASKS + " others wait", task.what, sender);
    }

    /** {@inheritDoc} Each member that fails is named once and gets no more; the others go on. */
    @Override
    public void install(String contextName, File webapp) throws IOException {
        List<Member> members = new ArrayList<>(Arrays.asList(getCluster().getMembers()));
        if (members.isEmpty()) {
            return;
        }
        long length = webapp.length();
        if (length == 0) {
            throw new IOException(webapp + " is empty, or is not there");
        }
        long pieces = (length + ArrivingWar.PIECE_BYTES - 1) / ArrivingWar.PIECE_BYTES;
        if (pieces > Integer.MAX_VALUE) {
            throw new IOException(webapp + " has " + length + " bytes, more than the messages of a farm can count");
        }
        try (InputStream in = new FileInputStream(webapp)) {
            for (int number = 1; number <= pieces && !members.isEmpty(); number++) {
                long left = length - (number - 1L) * ArrivingWar.PIECE_BYTES;
                byte[] data = new byte[(int) Math.min(left, ArrivingWar.PIECE_BYTES)];
                fill(in, data, webapp);
                FileMessage piece = new FileMessage(getCluster().getLocalMember(), webapp.getName(), contextName);
                piece.setData(data, data.length);
                piece.setTotalNrOfMsgs(pieces);
                piece.setMessageNumber(number);
                members.removeAll(send(piece, members, webapp, pieces));
            }
        }
    }

    private static void fill(InputStream in, byte[] data, File file) throws IOException {
        for (int at = 0; at < data.length;) {
            int length = in.read(data, at, data.length - at);
            if (length < 0) {
                throw new EOFException(file + " became shorter while it was sent");
            }
            at += length;
        }
    }

    /** @return who failed */
    private List<Member> send(FileMessage piece, List<Member> members, File file, long pieces) {
        List<Member> failed = new ArrayList<>();
        String why;
        try {
            getCluster().getChannel().send(members.toArray(new Member[0]), piece, SendMode.APPLIED);
            return failed;
        } catch (ChannelException e) {
            for (ChannelException.FaultyMember faulty : e.getFaultyMembers()) {
                failed.add(faulty.getMember());
            }
            if (failed.isEmpty()) {
                failed.addAll(members);
            }
            why = Replication.why(e);
        }
        log.error(file + " is not deployed everywhere: piece " + piece.getMessageNumber() + " of " + pieces + " is not " + why);
        return failed;
    }

    /** {@inheritDoc} What is still being written is looked at again. */
    @Override
    public void fileModified(File war) {
        try {
            if (!WarFiles.isWhole(war)) {
                if (unfinished.add(war)) {
                    log.info(war + " is no whole archive yet, and is sent when it is one");
                }
                return;
            }
            unfinished.remove(war);
            String context = new ContextName(war.getName(), true).getName();
            File deployed = new File(getDeployDirFile(), war.getName());
            if (deployed.exists() && deployed.lastModified() > war.lastModified()) {
                log.info(war + " is deployed already as \"" + context + "\"");
                return;
            }
            if (!tryAddServiced(context)) {
                unfinished.add(war);
                return;
            }
            boolean isCopied;
            try {
                isCopied = copy(war, deployed);
            } finally {
                removeServiced(context);
            }
            if (isCopied) {
                check(context);
                install(context, deployed);
            }
        } catch (Exception e) {
            log.error(war + " is not deployed everywhere: " + e.getMessage(), e);
        }
    }

    @Override
    public void fileRemoved(File war) {
        unfinished.remove(war);
        super.fileRemoved(war);
    }

    /** {@inheritDoc} Half a copy never has the name of a WAR. */
    @Override
    protected boolean copy(File from, File to) {
        File part = null;
        try {
            part = WarFiles.beside(from, to);
            WarFiles.rename(part, to);
            return true;
        } catch (IOException e) {
            log.error(from + " cannot be copied to " + to + ": " + e.getMessage(), e);
            if (part != null) {
                part.delete();
            }
            return false;
        }
    }

    @Override
    public void backgroundProcess() {
        super.backgroundProcess();
        if (!started || worker == null) {
            return;
        }
        for (File war : unfinished.toArray(new File[0])) {
            if (war.exists()) {
                fileModified(war);
            } else {
                unfinished.remove(war);
            }
        }
        List<Task> again;
        synchronized (postponed) {
            again = new ArrayList<>(postponed);
            postponed.clear();
        }
        ThreadPoolExecutor running = worker;
        for (Task task : again) {
            try {
                running.execute(task);
            } catch (RejectedExecutionException e) {
                postpone(task);
            }
        }
    }

    /** {@inheritDoc} The background process of the container does this. */
    @Override
    protected void removeInvalidFileFactories() {
        super.removeInvalidFileFactories();
        if (getMaxValidTime() <= 0) {
            return;
        }
        synchronized (transfers) {
            forget(transfer -> transfer.getValue().secondsIdle() >= getMaxValidTime(),
                    "nothing came for maxValidTime=\"" + getMaxValidTime() + "\" seconds");
        }
    }

    private void forget(Predicate<Map.Entry<List<Object>,ArrivingWar>> which, String why) {
        for (Iterator<Map.Entry<List<Object>,ArrivingWar>> all = transfers.entrySet().iterator(); all.hasNext();) {
            Map.Entry<List<Object>,ArrivingWar> one = all.next();
            if (which.test(one)) {
                all.remove();
                if (!one.getValue().hasFailed()) {
                    log.warn("The WAR " + one.getValue() + " does not become complete, and is deleted: " + why);
                    one.getValue().fail(why);
                }
            }
        }
    }

    @Override
    public void memberAdded(Member member) {
        // It gets what is installed from now on, as in stock.
    }

    @Override
    public void memberDisappeared(Member member) {
        synchronized (transfers) {
            forget(transfer -> member.equals(transfer.getKey().get(0)), member.getName() + " is gone");
        }
    }
}
