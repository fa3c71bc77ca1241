package org.ringtribe;

import java.util.Map;

/** The stable numbers of outcomes, the same in Rust, C and Java. */
public final class Status {

    public static final int OK = 0;
    public static final int CLOSED = 101;
    public static final int STALE_MEMBER = 102;
    public static final int TOO_BIG = 104;
    public static final int UNSUPPORTED = 106;
    public static final int TIMEOUT = 201;
    public static final int REMOTE_FAILED = 202;
    public static final int GOODBYE = 205;
    public static final int BUG = 401;

    private static final Map<Integer,String> TEXTS = Map.ofEntries(
            Map.entry(OK, "accepted"),
            Map.entry(CLOSED, "the node is closed"),
            Map.entry(STALE_MEMBER, "no such member any more"),
            Map.entry(103, "an argument is out of its range"),
            Map.entry(TOO_BIG, "the message is longer than maxMessageBytes; raise it on every node"),
            Map.entry(105, "no members"),
            Map.entry(UNSUPPORTED, "not supported by this transport"),
            Map.entry(TIMEOUT, "no acknowledgement within ackTimeout; it may still be applied"),
            Map.entry(REMOTE_FAILED, "the listener of the member failed"),
            Map.entry(203, "connection refused: nothing listens at the member's address"),
            Map.entry(204, "the member was dropped from the cluster"),
            Map.entry(GOODBYE, "the member left the cluster"),
            Map.entry(206, "the member cannot be reached"),
            Map.entry(207, "the member broke the protocol"),
            Map.entry(208, "the member stalled: it accepted nothing for ackTimeout"),
            Map.entry(209, "another incarnation lives at the member's address"),
            Map.entry(301, "the queue to the member stayed full (maxQueueSize)"),
            Map.entry(302, "the operating system refused"),
            Map.entry(303, "this machine does not offer what is needed"),
            Map.entry(304, "the poller went away without reporting an outcome"),
            Map.entry(BUG, "a defect in the engine"));

    private Status() {
    }

    /**
     * @param status a number
     * @return a sentence for a log
     */
    public static String text(int status) {
        return TEXTS.getOrDefault(status, "unknown status") + " (" + status + ")";
    }
}
