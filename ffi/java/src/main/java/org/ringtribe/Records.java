package org.ringtribe;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;

/**
 * Walks the records of one poll in the poller's own buffer. Valid until the next poll; not thread-safe.
 */
public final class Records {

    public static final int MESSAGE = 1;
    public static final int MEMBER_ADDED = 2;
    public static final int MEMBER_CHANGED = 3;
    public static final int MEMBER_GONE = 4;
    public static final int COMPLETED = 5;
    public static final int GAP = 6;
    public static final int LOG = 7;

    private static final int HEADER_BYTES = 8;
    private static final int MESSAGE_HEAD_BYTES = 48;

    private final ByteBuffer buffer;
    private int left;
    private int next = HEADER_BYTES;
    private int at;

    Records(ByteBuffer buffer) {
        this.buffer = buffer.order(ByteOrder.nativeOrder());
        this.left = buffer.getInt(0);
    }

    boolean advance() {
        if (left == 0) {
            return false;
        }
        left--;
        at = next;
        next = at + buffer.getInt(at);
        return true;
    }

    int type() {
        return buffer.getShort(at + 4);
    }

    /** @return option bits of the message */
    public int options() {
        return buffer.getInt(at + 8);
    }

    /** @return the sender's wall clock, ms since 1970 */
    public long timestamp() {
        return buffer.getLong(at + 16);
    }

    /** @return the message's unique id */
    public byte[] uniqueId() {
        return copy(at + 24, 16);
    }

    /** @return the sender's member package */
    public byte[] sender() {
        return copy(at + MESSAGE_HEAD_BYTES, buffer.getInt(at + 12));
    }

    /** @return length of the message, bytes */
    public int payloadLength() {
        return buffer.getInt(at + 40);
    }

    /**
     * Copies the message.
     *
     * @param into has room for {@link #payloadLength()} bytes from {@code offset} on
     * @param offset where to start
     */
    public void payload(byte[] into, int offset) {
        ByteBuffer view = buffer.duplicate();
        view.position(at + MESSAGE_HEAD_BYTES + buffer.getInt(at + 12));
        view.get(into, offset, payloadLength());
    }

    int cause() {
        return buffer.getInt(at + 8);
    }

    long member() {
        return buffer.getLong(at + 16);
    }

    byte[] memberPackage() {
        return copy(at + 24, buffer.getInt(at + 12));
    }

    long token() {
        return buffer.getLong(at + 16);
    }

    int failures() {
        return buffer.getInt(at + 8);
    }

    long failedMember(int index) {
        return buffer.getLong(at + 24 + 16 * index);
    }

    int failedStatus(int index) {
        return buffer.getInt(at + 24 + 16 * index + 8);
    }

    boolean gapHere() {
        return buffer.getInt(at + 8) != 0;
    }

    long gapMessages() {
        return buffer.getLong(at + 24);
    }

    int logLevel() {
        return buffer.getInt(at + 8);
    }

    String logText() {
        return new String(copy(at + 16, buffer.getInt(at + 12)), StandardCharsets.UTF_8);
    }

    private byte[] copy(int from, int length) {
        byte[] bytes = new byte[length];
        ByteBuffer view = buffer.duplicate();
        view.position(from);
        view.get(bytes);
        return bytes;
    }
}
