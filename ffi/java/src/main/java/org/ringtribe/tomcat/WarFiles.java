package org.ringtribe.tomcat;

import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.AtomicMoveNotSupportedException;
import java.nio.file.Files;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;

/** What a farm does with files: unfinished ones have another name, finished ones appear at once. */
final class WarFiles {

    /** Of files that are being written; no part of Tomcat takes such a file for an application. */
    static final String PREFIX = ".ringtribe-";
    static final String SUFFIX = ".part";

    private static final int LONGEST_NAME = 200;
    private static final int END_BYTES = 22;
    private static final int END_MARK = 0x06054b50;
    private static final int END64_LOCATOR_BYTES = 20;
    private static final int END64_LOCATOR_MARK = 0x07064b50;
    private static final int LONGEST_COMMENT = 0xffff;
    private static final long IN_END64 = 0xffffffffL;
    private static final int SIZE_AT = 12;
    private static final int OFFSET_AT = 16;
    private static final int COMMENT_AT = 20;

    private WarFiles() {
    }

    /** @return why a file of this name must not be written, null if it may */
    static String whyNotName(String name) {
        if (name == null || name.isEmpty()) {
            return "it has no name";
        }
        boolean isOdd = name.chars().anyMatch(c -> c == '/' || c == '\\' || c < ' ');
        if (isOdd || name.startsWith(".") || !new File(name).getName().equals(name)) {
            return "its name is no plain file name";
        }
        return name.length() > LONGEST_NAME ? "its name is longer than " + LONGEST_NAME + " characters" : null;
    }

    /** @return why a context must not have this name, null if it may */
    static String whyNotContext(String name) {
        if (name == null) {
            return "its context has no name";
        }
        if (name.chars().anyMatch(c -> c == '\\' || c < ' ')) {
            return "its context's name has a \\ or a control character";
        }
        for (String part : name.split("[/#]")) {
            if (part.equals("..") || part.equals(".")) {
                return "its context's name leads out of the directory";
            }
        }
        return null;
    }

    /** @return the name of a deployed WAR: as stock does, with its ending */
    static String warName(String name) {
        return name.endsWith(".war") ? name : name + ".war";
    }

    /**
     * @return a new file of another name, open for writing and locked as long as it is: after a crash {@link
     *         #removeLeft} knows that nobody writes it
     */
    static FileChannel open(File part) throws IOException {
        FileChannel channel = FileChannel.open(part.toPath(), StandardOpenOption.WRITE, StandardOpenOption.TRUNCATE_EXISTING);
        try {
            channel.tryLock();
        } catch (IOException e) {
            channel.close();
            throw e;
        }
        return channel;
    }

    static File newPart(String name, File directory) throws IOException {
        return File.createTempFile(PREFIX + name + "-", SUFFIX, directory);
    }

    /** Deletes what a process that was killed left in a directory. */
    static void removeLeft(File directory) {
        File[] left = directory.listFiles((where, name) -> name.startsWith(PREFIX) && name.endsWith(SUFFIX));
        for (File part : left == null ? new File[0] : left) {
            try (FileChannel channel = FileChannel.open(part.toPath(), StandardOpenOption.WRITE)) {
                FileLock lock = channel.tryLock();
                if (lock != null) {
                    Files.deleteIfExists(part.toPath());
                }
            } catch (OverlappingFileLockException | IOException e) {
                // Somebody writes it, or removed it just now.
                continue;
            }
        }
    }

    /** @return a file of another name in the directory of {@code to}, with the content; the caller renames or deletes it */
    static File beside(File from, File to) throws IOException {
        File part = newPart(to.getName(), to.getParentFile());
        try {
            Files.copy(from.toPath(), part.toPath(), StandardCopyOption.REPLACE_EXISTING);
            return part;
        } catch (IOException e) {
            Files.deleteIfExists(part.toPath());
            throw e;
        }
    }

    /** Renames within a directory: at no moment half a file has the new name. */
    static void rename(File part, File to) throws IOException {
        Files.move(part.toPath(), to.toPath(), StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    }

    /** As {@link #beside}, and the first one is gone; copied only if it is on another file system. */
    static File moveBeside(File from, File to) throws IOException {
        File part = newPart(to.getName(), to.getParentFile());
        try {
            rename(from, part);
            return part;
        } catch (AtomicMoveNotSupportedException e) {
            Files.deleteIfExists(part.toPath());
            File copied = beside(from, to);
            Files.deleteIfExists(from.toPath());
            return copied;
        } catch (IOException e) {
            Files.deleteIfExists(part.toPath());
            throw e;
        }
    }

    /** @return whether the file is a ZIP archive from its first byte to its last, by its directory */
    static boolean isWhole(File file) throws IOException {
        try (RandomAccessFile in = new RandomAccessFile(file, "r")) {
            long length = in.length();
            if (length < END_BYTES) {
                return false;
            }
            byte[] tail = new byte[(int) Math.min(length, END_BYTES + LONGEST_COMMENT + END64_LOCATOR_BYTES)];
            long start = length - tail.length;
            in.seek(start);
            in.readFully(tail);
            for (int at = tail.length - END_BYTES; at >= 0; at--) {
                if (number(tail, at, 4) == END_MARK && at + END_BYTES + number(tail, at + COMMENT_AT, 2) == tail.length
                        && isAfterDirectory(tail, at, start)) {
                    return true;
                }
            }
            return false;
        }
    }

    /** An archive within an archive has an end too, but its directory is not where it says. */
    private static boolean isAfterDirectory(byte[] tail, int at, long start) {
        long size = number(tail, at + SIZE_AT, 4);
        long offset = number(tail, at + OFFSET_AT, 4);
        if (size == IN_END64 || offset == IN_END64) {
            int locator = at - END64_LOCATOR_BYTES;
            return locator >= 0 && number(tail, locator, 4) == END64_LOCATOR_MARK;
        }
        return offset + size == start + at;
    }

    private static long number(byte[] bytes, int at, int length) {
        long value = 0;
        for (int n = length - 1; n >= 0; n--) {
            value = value << 8 | bytes[at + n] & 0xff;
        }
        return value;
    }
}
