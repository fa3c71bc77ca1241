package org.ringtribe;

import java.util.HashMap;
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

    private static final Map<Integer,String> TEXTS = new HashMap<>();

    static {
        TEXTS.put(OK, "accepted");
        TEXTS.put(CLOSED, "the node is closed");
        TEXTS.put(STALE_MEMBER, "no such member any more");
        TEXTS.put(103, "an argument is out of its range");
        TEXTS.put(TOO_BIG, "the message is longer than maxMessageBytes; raise it on every node");
        TEXTS.put(105, "no members");
        TEXTS.put(UNSUPPORTED, "not supported by this transport");
        TEXTS.put(TIMEOUT, "no acknowledgement within ackTimeout; it may still be applied");
        TEXTS.put(REMOTE_FAILED, "the listener of the member failed");
        TEXTS.put(203, "connection refused: nothing listens at the member's address");
        TEXTS.put(204, "the member was dropped from the cluster");
        TEXTS.put(GOODBYE, "the member left the cluster");
        TEXTS.put(206, "the member cannot be reached");
        TEXTS.put(207, "the member broke the protocol");
        TEXTS.put(208, "the member stalled: it accepted nothing for ackTimeout");
        TEXTS.put(209, "another incarnation lives at the member's address");
        TEXTS.put(301, "the queue to the member stayed full (maxQueueSize)");
        TEXTS.put(302, "the operating system refused");
        TEXTS.put(303, "this machine does not offer what is needed");
        TEXTS.put(304, "the poller went away without reporting an outcome");
        TEXTS.put(BUG, "a defect in the engine");
    }

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
