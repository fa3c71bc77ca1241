package org.ringtribe;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Locale;

/**
 * Loads the native library, once in a process: from the path in {@value #PATH_PROPERTY}, else from
 * {@code java.library.path}, else from this jar. The copy from the jar lies in a fresh directory that
 * only this user can read, is compared with its digest, loaded, and unlinked at once.
 */
public final class NativeLoader {

    /** Absolute path of a library to load instead of the one in the jar. */
    public static final String PATH_PROPERTY = "org.ringtribe.native.path";

    /** Where the copy from the jar is made; default {@code catalina.base/temp}, else java.io.tmpdir. */
    public static final String WORK_PROPERTY = "org.ringtribe.native.workdir";

    /** Set to true to leave the copy where it is, for profilers. */
    public static final String KEEP_PROPERTY = "org.ringtribe.native.keep";

    /** Guards the process against a second copy of this class in another class loader. */
    private static final String LOADED_PROPERTY = "org.ringtribe.native.loaded";

    private static final String LIBRARY = "libringtribe_jni.so";

    private static UnsatisfiedLinkError failure;
    private static boolean loaded;

    private NativeLoader() {
    }

    /**
     * Loads the library if that was not tried yet.
     *
     * @throws UnsatisfiedLinkError with the cause and the remedy; the same one at each call
     */
    public static synchronized void ensureLoaded() {
        if (failure != null) {
            throw failure;
        }
        if (!loaded) {
            try {
                load();
                loaded = true;
            } catch (UnsatisfiedLinkError e) {
                failure = e;
                throw e;
            }
        }
    }

    /** @return why the library cannot be loaded, with the remedy; null if it is loaded */
    public static String whyNot() {
        try {
            ensureLoaded();
            return null;
        } catch (UnsatisfiedLinkError e) {
            return e.getMessage();
        }
    }

    private static void load() {
        String other = System.getProperty(LOADED_PROPERTY);
        if (other != null) {
            throw new UnsatisfiedLinkError("Ringtribe's native library is loaded already by another class loader ("
                    + other + "); put the jar once into Tomcat's lib directory, never into an application");
        }
        String path = System.getProperty(PATH_PROPERTY);
        if (path != null) {
            System.load(path);
        } else if (!loadFromLibraryPath()) {
            loadFromJar(resourceDirectory());
        }
        int version = Bridge.abiVersion();
        if (version != Bridge.ABI_VERSION) {
            throw new UnsatisfiedLinkError("the native library speaks version " + version + ", these classes "
                    + Bridge.ABI_VERSION + "; use a library and a jar of one release");
        }
        System.setProperty(LOADED_PROPERTY, String.valueOf(NativeLoader.class.getClassLoader()));
    }

    private static boolean loadFromLibraryPath() {
        for (String directory : System.getProperty("java.library.path", "").split(":")) {
            Path candidate = Paths.get(directory, LIBRARY);
            if (!directory.isEmpty() && Files.isRegularFile(candidate)) {
                System.load(candidate.toAbsolutePath().toString());
                return true;
            }
        }
        return false;
    }

    private static String resourceDirectory() {
        String os = System.getProperty("os.name", "").toLowerCase(Locale.ROOT);
        String arch = System.getProperty("os.arch", "").toLowerCase(Locale.ROOT);
        arch = arch.equals("amd64") ? "x86_64" : arch;
        if (!os.contains("linux")) {
            throw new UnsatisfiedLinkError("Ringtribe runs on Linux, not on " + os);
        }
        return "native/linux-" + arch + "-" + (isMusl() ? "musl" : "gnu") + "/";
    }

    private static boolean isMusl() {
        try {
            return new String(Files.readAllBytes(Paths.get("/proc/self/maps")), StandardCharsets.ISO_8859_1)
                    .contains("/ld-musl-");
        } catch (IOException e) {
            return false;
        }
    }

    private static void loadFromJar(String directory) {
        byte[] library = resource(directory + LIBRARY);
        byte[] digest = resource(directory + LIBRARY + ".sha256");
        if (library == null || digest == null) {
            throw new UnsatisfiedLinkError("this jar holds no library for " + directory + "; set -D" + PATH_PROPERTY
                    + " to one that was built here");
        }
        Path copy = null;
        try {
            Path parent = workDirectory();
            Path fresh = Files.createTempDirectory(parent, "ringtribe-",
                    PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
            copy = fresh.resolve(LIBRARY);
            Files.write(copy, library, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
            Files.setPosixFilePermissions(copy, PosixFilePermissions.fromString("r-x------"));
            checkDigest(Files.readAllBytes(copy), new String(digest, StandardCharsets.US_ASCII).trim());
            System.load(copy.toString());
        } catch (IOException e) {
            throw linkError("cannot unpack the native library (set -D" + WORK_PROPERTY + "): " + e, e);
        } catch (UnsatisfiedLinkError e) {
            String text = String.valueOf(e.getMessage());
            if (text.contains("failed to map segment") || text.contains("Operation not permitted")) {
                throw linkError("the file system of " + copy + " is mounted noexec; set -D" + WORK_PROPERTY
                        + " to a directory on one that is not: " + text, e);
            }
            throw e;
        } finally {
            if (copy != null && !Boolean.getBoolean(KEEP_PROPERTY)) {
                // The mapping survives; nothing is left behind even after a crash.
                copy.toFile().delete();
                copy.getParent().toFile().delete();
            }
        }
    }

    static void checkDigest(byte[] library, String expected) {
        try {
            byte[] digest = MessageDigest.getInstance("SHA-256").digest(library);
            StringBuilder hex = new StringBuilder();
            for (byte b : digest) {
                hex.append(String.format("%02x", b));
            }
            if (!hex.toString().equals(expected)) {
                throw new UnsatisfiedLinkError("the native library is damaged: SHA-256 " + hex + ", expected "
                        + expected + "; replace the jar");
            }
        } catch (NoSuchAlgorithmException e) {
            throw new AssertionError("every JRE has SHA-256", e);
        }
    }

    private static Path workDirectory() {
        String work = System.getProperty(WORK_PROPERTY);
        if (work != null) {
            return Paths.get(work);
        }
        String base = System.getProperty("catalina.base");
        Path temp = base == null ? null : Paths.get(base, "temp");
        return temp != null && Files.isDirectory(temp) ? temp : Paths.get(System.getProperty("java.io.tmpdir"));
    }

    private static byte[] resource(String name) {
        try (InputStream in = NativeLoader.class.getClassLoader().getResourceAsStream(name)) {
            return in == null ? null : readAll(in);
        } catch (IOException e) {
            throw linkError("cannot read " + name + " from the jar: " + e, e);
        }
    }

    private static byte[] readAll(InputStream in) throws IOException {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        byte[] part = new byte[64 << 10];
        for (int length = in.read(part); length >= 0; length = in.read(part)) {
            all.write(part, 0, length);
        }
        return all.toByteArray();
    }

    private static UnsatisfiedLinkError linkError(String text, Throwable cause) {
        UnsatisfiedLinkError error = new UnsatisfiedLinkError(text);
        error.initCause(cause);
        return error;
    }
}
