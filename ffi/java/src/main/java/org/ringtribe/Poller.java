package org.ringtribe;

import java.nio.ByteBuffer;

/**
 * The place of one thread that polls: its number, which the native side lets one thread use at a
 * time, and its buffer, which only that thread touches.
 */
final class Poller {

    /** The native side refuses less. */
    static final int LEAST_BUFFER_BYTES = 64 << 10;

    /** A larger buffer is given back after the message that needed it. */
    private static final int KEPT_BUFFER_BYTES = 4 << 20;
    private static final int MOST_SPARE_BYTES = 64 << 20;
    private static final long TIMEOUT_MILLIS = 1000;
    private static final int CLOSED = -1;
    private static final int NEED = -1024;

    private final long handle;
    private final int id;
    private final boolean reserved;
    private final int firstBytes;
    private volatile ByteBuffer buffer;
    private long address;
    private boolean closed;

    Poller(long handle, int id, boolean reserved, int firstBytes) {
        this.handle = handle;
        this.id = id;
        this.reserved = reserved;
        this.firstBytes = firstBytes;
        allocate(firstBytes);
    }

    private void allocate(int bytes) {
        // The old one may go first: there is not always room for both.
        buffer = null;
        buffer = ByteBuffer.allocateDirect(bytes);
        address = Bridge.address(buffer);
    }

    /**
     * Waits for something, a second at most. Outcomes of the last records that were not reported are
     * failures from here on.
     *
     * @return valid until the next call; null if nothing came or the engine {@link #isClosed()}
     * @throws OutOfMemoryError no direct memory for the next message, which stays queued; the poller
     *         can be used again
     */
    Records poll() {
        if (buffer == null || buffer.capacity() > KEPT_BUFFER_BYTES) {
            allocate(firstBytes);
        }
        while (true) {
            int result = Bridge.poll(handle, id, reserved, address, buffer.capacity(), TIMEOUT_MILLIS);
            // The native side wrote to the buffer's memory, which must not be collected meanwhile: this
            // read comes after the call, since the field is volatile, and needs this object and with it
            // the buffer until then. (Java 8 has no reachabilityFence.)
            ByteBuffer filled = buffer;
            if (result > 0) {
                return new Records(filled);
            }
            if (result == 0 || result == CLOSED) {
                closed = result == CLOSED;
                return null;
            }
            if (result >= NEED) {
                throw new IllegalStateException("poller " + id + " answers " + result);
            }
            allocate(Math.max(NEED - result, Math.min(2 * buffer.capacity(), MOST_SPARE_BYTES)));
        }
    }

    /** @return whether the engine is closed and everything was taken */
    boolean isClosed() {
        return closed;
    }

    int id() {
        return id;
    }

    /** Reports how the listener of the message at {@code index} of the last records ended. */
    void outcome(int index, int status) {
        Bridge.outcome(handle, id, index, status);
    }
}
