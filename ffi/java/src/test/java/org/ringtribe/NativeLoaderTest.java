package org.ringtribe;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.net.MalformedURLException;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What is refused is tried in fresh JVMs, since a JVM loads the library once. */
class NativeLoaderTest {

    private static final String LIBRARY = "native/linux-x86_64-gnu/libringtribe_jni.so";

    @TempDir
    Path directory;

    /** Loads the library as a user would; prints what happened and what is left of the copy. */
    public static final class Main {
        public static void main(String[] args) throws IOException {
            try {
                NativeLoader.ensureLoaded();
                System.out.println("loaded " + Bridge.abiVersion());
            } catch (UnsatisfiedLinkError e) {
                System.out.println("refused " + e.getMessage());
            }
        }
    }

    private String loadIn(Path classes, String... options) throws Exception {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.add("-D" + NativeLoader.WORK_PROPERTY + "=" + Files.createDirectories(directory.resolve("work")));
        command.addAll(List.of(options));
        command.addAll(List.of("-cp", classes + File.pathSeparator + testClasses(), Main.class.getName()));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String output = new String(process.getInputStream().readAllBytes());
        assertTrue(process.waitFor(60, TimeUnit.SECONDS));
        return output;
    }

    private static Path testClasses() throws Exception {
        return Path.of(Main.class.getProtectionDomain().getCodeSource().getLocation().toURI());
    }

    private static Path mainClasses() throws Exception {
        return Path.of(NativeLoader.class.getProtectionDomain().getCodeSource().getLocation().toURI());
    }

    /** The classes with a library of the test's own. */
    private Path classesWith(byte[] library, String digest) throws Exception {
        Path copy = directory.resolve("classes");
        Path from = mainClasses();
        try (Stream<Path> files = Files.walk(from.resolve("org/ringtribe"), 1)) {
            for (Path file : (Iterable<Path>) files.filter(Files::isRegularFile)::iterator) {
                Path to = copy.resolve(from.relativize(file).toString());
                Files.createDirectories(to.getParent());
                Files.copy(file, to);
            }
        }
        Path to = copy.resolve(LIBRARY);
        Files.createDirectories(to.getParent());
        Files.write(to, library);
        Files.writeString(copy.resolve(LIBRARY + ".sha256"), digest);
        return copy;
    }

    private static byte[] library() throws IOException {
        try (InputStream in = NativeLoader.class.getClassLoader().getResourceAsStream(LIBRARY)) {
            return in.readAllBytes();
        }
    }

    private static String digest() throws IOException {
        try (InputStream in = NativeLoader.class.getClassLoader().getResourceAsStream(LIBRARY + ".sha256")) {
            return new String(in.readAllBytes());
        }
    }

    private void assertNothingLeft() throws IOException {
        try (Stream<Path> left = Files.list(directory.resolve("work"))) {
            assertEquals(List.of(), left.collect(java.util.stream.Collectors.toList()));
        }
    }

    @Test
    void theJarsLibraryLoadsAndLeavesNothingBehind() throws Exception {
        assertEquals("loaded " + Bridge.ABI_VERSION, loadIn(mainClasses()).trim());
        assertNothingLeft();
    }

    @Test
    void aLibraryThatWasTamperedWithIsNotLoaded() throws Exception {
        byte[] tampered = library();
        tampered[tampered.length / 2] ^= 1;
        String output = loadIn(classesWith(tampered, digest()));
        assertTrue(output.startsWith("refused the native library is damaged: SHA-256 "), output);
        assertTrue(output.contains(digest().trim()), output);
        assertNothingLeft();
    }

    @Test
    void aJarWithoutALibraryNamesTheProperty() throws Exception {
        Path classes = classesWith(new byte[0], "");
        Files.delete(classes.resolve(LIBRARY));
        String output = loadIn(classes);
        assertTrue(output.startsWith("refused this jar holds no library for native/linux-x86_64-gnu/"), output);
        assertTrue(output.contains(NativeLoader.PATH_PROPERTY), output);
        Path library = directory.resolve("elsewhere.so");
        Files.write(library, library());
        output = loadIn(classes, "-D" + NativeLoader.PATH_PROPERTY + "=" + library);
        assertEquals("loaded " + Bridge.ABI_VERSION, output.trim());
    }

    /** As a jar in an application would: the same classes in a second class loader. */
    @Test
    void aSecondClassLoaderIsRefusedAndSaysWhereTheJarBelongs() throws Exception {
        NativeLoader.ensureLoaded();
        try (URLClassLoader second = new URLClassLoader(new URL[] { url(mainClasses()) }, null)) {
            Method ensureLoaded = second.loadClass(NativeLoader.class.getName()).getMethod("ensureLoaded");
            Throwable first = assertThrows(InvocationTargetException.class, () -> ensureLoaded.invoke(null)).getCause();
            assertTrue(first.getMessage().contains("loaded already by another class loader"), first.getMessage());
            assertTrue(first.getMessage().contains("Tomcat's lib directory"), first.getMessage());
            Throwable again = assertThrows(InvocationTargetException.class, () -> ensureLoaded.invoke(null)).getCause();
            assertSame(first, again);
        }
    }

    private static URL url(Path path) throws MalformedURLException {
        return path.toUri().toURL();
    }
}
