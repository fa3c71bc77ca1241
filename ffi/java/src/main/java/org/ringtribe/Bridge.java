package org.ringtribe;

import java.nio.ByteBuffer;

/**
 * The natives, and nothing else. Every crossing is a Java thread calling down; engine threads never
 * enter the JVM. Arguments and answers are described where they are implemented (ffi/jni).
 */
final class Bridge {

    /** Version of the border that this class was written for. */
    static final int ABI_VERSION = 2;

    /** Flags of {@link #send}. */
    static final int HAS_KEY = 1;
    static final int REPLY = 2;
    static final int SUBMIT = 4;
    static final int TOKEN = 8;

    private Bridge() {
    }

    static native int abiVersion();

    static native int nearest(byte[] given, byte[] names, byte[] text);

    static native long address(ByteBuffer direct);

    static native long open(byte[] config, byte[] error);

    static native int listen(long handle, byte[] text);

    static native void stopListening(long handle);

    static native int setLocalMember(long handle, byte[] memberPackage);

    static native int membership(long handle, int operation, byte[] error);

    static native long enter(long handle, byte[] memberPackage);

    static native int broadcast(long handle, byte[] bytes, int offset, int length, int options, long timestamp,
            byte[] uniqueId);

    static native int send(long handle, byte[] bytes, int offset, int length, int options, long timestamp,
            byte[] uniqueId, long[] members, int count, long key, int flags, long timeout, long token, int[] statuses);

    static native int poll(long handle, int poller, boolean reserved, long address, int capacity, long timeout);

    static native void outcome(long handle, int poller, int index, int status);

    static native void repaired(long handle, long member);

    static native int join(long handle, long timeout, byte[] text);

    static native int describe(long handle, byte[] text);

    static native int close(long handle, long grace);
}
