package org.ringtribe.tomcat;

import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

import org.apache.catalina.ha.deploy.FileMessage;

/**
 * A WAR that comes from a member, piece by piece, into a file of another name. Pieces that come early
 * wait, up to a bound. Not thread-safe.
 */
final class ArrivingWar {

    /** Stock's, which every node sends. */
    static final int PIECE_BYTES = 10240;
    /** A node may be configured to have larger ones some day. */
    private static final int LARGEST_PIECE_BYTES = 1 << 20;
    private static final int MOST_EARLY_BYTES = 4 << 20;

    private final String name;
    private final long total;
    private final File part;
    private final FileChannel out;
    private final Map<Long,byte[]> early = new HashMap<>();
    private int earlyBytes;
    private long written;
    private byte[] first;
    private long lastNanos = System.nanoTime();
    private long lastLength;
    private String failure;

    /** @throws IOException no file can be made */
    ArrivingWar(FileMessage piece, File directory) throws IOException {
        name = piece.getFileName();
        total = piece.getTotalNrOfMsgs();
        part = WarFiles.newPart(name, directory);
        FileChannel opened = null;
        try {
            opened = WarFiles.open(part);
        } finally {
            if (opened == null) {
                part.delete();
            }
        }
        out = opened;
    }

    /** @return whether this piece begins the file anew: its sender gave up and tries again */
    boolean beginsAgain(FileMessage piece) {
        return piece.getMessageNumber() == 1 && (failure != null || written > 1
                || written == 1 && !Arrays.equals(first, bytes(piece)));
    }

    /** @return whether it failed before: its other pieces are not worth a word */
    boolean hasFailed() {
        return failure != null;
    }

    /**
     * Takes a piece.
     *
     * @return whether the file is complete, and closed
     * @throws IOException it cannot become complete; nothing of it is left
     */
    boolean take(FileMessage piece) throws IOException {
        try {
            return took(piece);
        } catch (IOException | RuntimeException e) {
            fail(String.valueOf(e.getMessage()));
            throw e instanceof IOException ? (IOException) e : new IOException(e);
        }
    }

    private boolean took(FileMessage piece) throws IOException {
        long number = piece.getMessageNumber();
        byte[] data = bytes(piece);
        if (piece.getTotalNrOfMsgs() != total) {
            throw new IOException("it has " + total + " pieces by one message and " + piece.getTotalNrOfMsgs()
                    + " by another");
        }
        if (number <= written || early.containsKey(number)) {
            // It came twice.
            return false;
        }
        lastNanos = System.nanoTime();
        if (number != written + 1) {
            earlyBytes += data.length;
            if (earlyBytes > MOST_EARLY_BYTES) {
                throw new IOException("piece " + (written + 1) + " of " + total + " did not come, and " + early.size()
                        + " later ones did");
            }
            early.put(number, data);
            return false;
        }
        write(data);
        for (byte[] next = early.remove(written + 1); next != null; next = early.remove(written + 1)) {
            earlyBytes -= next.length;
            write(next);
        }
        return written == total || isStocksOddEnd();
    }

    private void write(byte[] data) throws IOException {
        if (written == 0) {
            first = data;
        }
        for (ByteBuffer left = ByteBuffer.wrap(data); left.hasRemaining();) {
            out.write(left);
        }
        lastLength = data.length;
        written++;
    }

    /**
     * Stock announces one piece too many where a file has a whole number of them, and never sends it. That
     * the file is all there, its own directory says.
     */
    private boolean isStocksOddEnd() throws IOException {
        return written == total - 1 && lastLength == PIECE_BYTES && WarFiles.isWhole(part);
    }

    /** @return the data; {@link #whyNot} has looked at it */
    private static byte[] bytes(FileMessage piece) {
        return Arrays.copyOf(piece.getData(), piece.getDataLength());
    }

    /** @return why a piece is none, null if it is one */
    static String whyNot(FileMessage piece) {
        int length = piece.getDataLength();
        if (piece.getData() == null || length < 1 || length > piece.getData().length || length > LARGEST_PIECE_BYTES) {
            return "a piece has " + length + " bytes";
        }
        if (piece.getMessageNumber() < 1 || piece.getMessageNumber() > piece.getTotalNrOfMsgs()) {
            return "a piece is number " + piece.getMessageNumber() + " of " + piece.getTotalNrOfMsgs();
        }
        return null;
    }

    /** @return the complete file, under another name; the caller's from now on */
    File close() throws IOException {
        out.close();
        return part;
    }

    /** It does not become complete: what is there of it goes. */
    void fail(String why) {
        failure = why;
        early.clear();
        try {
            out.close();
        } catch (IOException e) {
            // Deleted in any case.
            failure += ", and " + e.getMessage();
        }
        part.delete();
    }

    long secondsIdle() {
        return (System.nanoTime() - lastNanos) / 1_000_000_000L;
    }

    @Override
    public String toString() {
        return name + " (" + written + " of " + total + " pieces)";
    }
}
