package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.Serializable;
import java.lang.management.ManagementFactory;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.zip.CRC32;
import java.util.zip.ZipEntry;
import java.util.zip.ZipOutputStream;

import javax.management.ObjectName;

import org.apache.catalina.ha.deploy.FarmWarDeployer;
import org.apache.catalina.ha.deploy.FileMessage;
import org.apache.catalina.ha.deploy.FileMessageFactory;
import org.apache.catalina.ha.deploy.UndeployMessage;
import org.apache.catalina.ha.tcp.SimpleTcpCluster;
import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelListener;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.membership.MemberImpl;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** WARs between a node and stock's own FileMessageFactory, to and fro, whole and broken. */
class FarmTest {

    private static final int PIECE = FileMessageFactory.READ_SIZE;
    private static final long LONGEST_WAIT_MS = 30000;
    private static final Path APPS = OneNode.BASE.resolve("farm-apps");
    private static final Path TEMP = OneNode.BASE.resolve("farm-temp");
    private static final Path WATCHED = OneNode.BASE.resolve("farm-watched");

    private Member stranger;
    @TempDir
    private Path sent;

    @BeforeEach
    void nothingIsThere() throws Exception {
        stranger = new MemberImpl("127.0.0.1", 4999, 1000);
        for (Path directory : new Path[] { APPS, TEMP, WATCHED }) {
            if (Files.exists(directory)) {
                try (java.util.stream.Stream<Path> all = Files.walk(directory)) {
                    all.sorted(java.util.Comparator.reverseOrder()).forEach(path -> path.toFile().delete());
                }
            }
        }
    }

    /** A node whose Host "farm" has the cluster. */
    private static OneNode node(int mcastPort, String deployer) throws Exception {
        OneNode node = new OneNode("<Host name='farm' appBase='farm-apps' unpackWARs='false' autoDeploy='false'>"
                + "<Cluster className='org.ringtribe.tomcat.RingtribeCluster' " + OneNode.HERE + "mcastPort='" + mcastPort
                + "' tcpListenAddress='127.0.0.1' tcpListenPort='@TCP@'>" + deployer + "</Cluster></Host>");
        return node;
    }

    private static OneNode started(int mcastPort) throws Exception {
        OneNode node = node(mcastPort, "<Deployer className='org.apache.catalina.ha.deploy.FarmWarDeployer' "
                + "tempDir='farm-temp' deployDir='farm-apps' watchDir='farm-watched' watchEnabled='true' maxValidTime='1' "
                + "processDeployFrequency='1'/>");
        node.start();
        return node;
    }

    private static SimpleTcpCluster cluster(OneNode node) {
        return (SimpleTcpCluster) node.host("farm").getCluster();
    }

    private static FarmWarDeployer deployer(OneNode node) {
        return (FarmWarDeployer) cluster(node).getClusterDeployer();
    }

    private static void await(String what, Callable<Boolean> condition) throws Exception {
        long until = System.nanoTime() + LONGEST_WAIT_MS * 1000000;
        while (!condition.call()) {
            assertTrue(System.nanoTime() < until, what);
            java.util.concurrent.locks.LockSupport.parkNanos(5000000);
        }
    }

    /** @return an archive of exactly so many bytes */
    private static byte[] war(int bytes, long seed) throws IOException {
        byte[] empty = archive(new byte[0]);
        byte[] content = new byte[bytes - empty.length];
        new Random(seed).nextBytes(content);
        byte[] whole = archive(content);
        assertEquals(bytes, whole.length);
        return whole;
    }

    private static byte[] archive(byte[] content) throws IOException {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        try (ZipOutputStream zip = new ZipOutputStream(out)) {
            ZipEntry entry = new ZipEntry("content.txt");
            CRC32 sum = new CRC32();
            sum.update(content);
            entry.setMethod(ZipEntry.STORED);
            entry.setSize(content.length);
            entry.setCrc(sum.getValue());
            zip.putNextEntry(entry);
            zip.write(content);
        }
        return out.toByteArray();
    }

    /** @return the pieces that a stock node sends, by its own code */
    private List<FileMessage> stockPieces(String name, String context, byte[] content) throws IOException {
        Path file = sent.resolve("stock.war");
        Files.write(file, content);
        FileMessageFactory factory = FileMessageFactory.getInstance(file.toFile(), false);
        List<FileMessage> pieces = new ArrayList<>();
        for (FileMessage piece = new FileMessage(stranger, name, context); factory.readMessage(piece) != null;
                piece = new FileMessage(stranger, name, context)) {
            piece.setData(piece.getData().clone(), piece.getDataLength());
            pieces.add(piece);
        }
        return pieces;
    }

    private static void isDeployed(OneNode node, String name, byte[] content) throws Exception {
        await(name + " is deployed: " + node.log(), () -> node.context("farm", "/" + name) != null
                && node.context("farm", "/" + name).getState().isAvailable()
                && Arrays.equals(content, Files.readAllBytes(APPS.resolve(name + ".war"))));
        await("nothing else is left", () -> parts().isEmpty());
    }

    /** @return names of what is neither a WAR nor a directory */
    private static List<String> parts() {
        List<String> found = new ArrayList<>();
        for (Path directory : new Path[] { APPS, TEMP }) {
            for (File file : directory.toFile().listFiles()) {
                if (file.isFile() && !file.getName().endsWith(".war")) {
                    found.add(file.getName());
                }
            }
        }
        return found;
    }

    @Test
    void whatAStockNodeSendsArrivesWhateverItsSize() throws Exception {
        try (OneNode node = started(OneNode.freeUdpPort())) {
            assertEquals(RingtribeFarmWarDeployer.class, deployer(node).getClass());
            int[] sizes = { 300, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 5 * PIECE, 5 * PIECE + 7 };
            for (int n = 0; n < sizes.length; n++) {
                byte[] content = war(sizes[n], n);
                for (FileMessage piece : stockPieces("app" + n + ".war", "/app" + n, content)) {
                    deployer(node).messageReceived(piece);
                }
                isDeployed(node, "app" + n, content);
            }
            // A new version in the place of the old one, its pieces out of order and twice.
            byte[] content = war(7 * PIECE + 1, 99);
            List<FileMessage> pieces = stockPieces("app3.war", "/app3", content);
            Collections.swap(pieces, 1, 4);
            pieces.add(1, pieces.get(0));
            pieces.add(4, pieces.get(5));
            for (FileMessage piece : pieces) {
                deployer(node).messageReceived(piece);
            }
            isDeployed(node, "app3", content);
            deployer(node).messageReceived(new UndeployMessage(stranger, 0, "undeploy", "/app3"));
            await("it is undeployed", () -> node.context("farm", "/app3") == null);
            assertFalse(Files.exists(APPS.resolve("app3.war")));
            assertNotNull(node.context("farm", "/app4"));
        }
    }

    @Test
    void anArchiveWithinTheArchiveIsNotTakenForItsEnd() throws Exception {
        // Its first piece but one ends where the inner one does.
        byte[] empty = archive(new byte[0]);
        int header = 30 + "content.txt".length();
        byte[] inner = war(PIECE - header, 1);
        byte[] content = new byte[inner.length + 2000];
        System.arraycopy(inner, 0, content, 0, inner.length);
        byte[] outer = archive(content);
        assertEquals(empty.length + content.length, outer.length);
        try (OneNode node = started(OneNode.freeUdpPort())) {
            List<FileMessage> pieces = stockPieces("outer.war", "/outer", outer);
            assertEquals(2, pieces.size());
            deployer(node).messageReceived(pieces.get(0));
            assertEquals(1, parts().size());
            deployer(node).messageReceived(pieces.get(1));
            isDeployed(node, "outer", outer);
        }
    }

    private void refused(OneNode node, FileMessage piece, String because) {
        RuntimeException refusal = assertThrows(IllegalArgumentException.class, () -> deployer(node).messageReceived(piece));
        assertTrue(refusal.getMessage().contains(because), refusal.getMessage());
        assertTrue(node.log().contains("SEVERE: " + refusal.getMessage()), node.log());
    }

    @Test
    void namesThatLeadElsewhereAndPiecesThatAreNoneAreRefused() throws Exception {
        try (OneNode node = started(OneNode.freeUdpPort())) {
            byte[] content = war(PIECE / 2, 1);
            for (String name : new String[] { "../x.war", "/tmp/x.war", "..", "a/x.war", "a\\x.war", ".war", "x\n.war" }) {
                refused(node, stockPieces(name, "/x", content).get(0), "its name is no plain file name");
            }
            refused(node, stockPieces("", "/x", content).get(0), "it has no name");
            refused(node, stockPieces("x.war", "/../x", content).get(0), "its context's name leads out");
            refused(node, stockPieces("x.war", "..#x", content).get(0), "its context's name leads out");
            assertThrows(IllegalArgumentException.class,
                    () -> deployer(node).messageReceived(new UndeployMessage(stranger, 0, "u", "../x")));
            FileMessage odd = stockPieces("x.war", "/x", content).get(0);
            odd.setMessageNumber(2);
            refused(node, odd, "a piece is number 2 of 1");
            odd.setMessageNumber(1);
            odd.setData(odd.getData(), odd.getData().length + 1);
            refused(node, odd, "a piece has " + (odd.getData().length + 1) + " bytes");
            // Complete, and nothing that could be deployed.
            FileMessage noise = stockPieces("x.war", "/x", new byte[100]).get(0);
            refused(node, noise, "it is no whole archive");
            for (File directory : new File[] { APPS.toFile(), TEMP.toFile() }) {
                assertEquals(0, directory.list().length, Arrays.toString(directory.list()));
            }
            assertFalse(Files.exists(OneNode.BASE.resolve("x.war")));
        }
    }

    @Test
    void nothingIsLeftOfHalfATransferAndTheOldOneStays() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        byte[] old = war(2 * PIECE + 5, 1);
        byte[] content = war(5 * PIECE + 5, 2);
        try (OneNode node = started(mcastPort)) {
            for (FileMessage piece : stockPieces("shop.war", "/shop", old)) {
                deployer(node).messageReceived(piece);
            }
            isDeployed(node, "shop", old);
            List<FileMessage> pieces = stockPieces("shop.war", "/shop", content);
            deployer(node).messageReceived(pieces.get(0));
            deployer(node).messageReceived(pieces.get(1));
            assertEquals(1, parts().size());
            // Silent for longer than maxValidTime.
            await("it is forgotten", () -> {
                deployer(node).backgroundProcess();
                return parts().isEmpty();
            });
            assertTrue(node.log().contains("WARNING: The WAR shop.war (2 of 6 pieces) does not become complete, and is "
                    + "deleted: nothing came for maxValidTime=\"1\" seconds"), node.log());
            isDeployed(node, "shop", old);
            // Its sender begins again: what was there is not mixed with what comes.
            deployer(node).messageReceived(pieces.get(0));
            deployer(node).messageReceived(pieces.get(1));
            byte[] other = war(3 * PIECE + 5, 3);
            for (FileMessage piece : stockPieces("shop.war", "/shop", other)) {
                deployer(node).messageReceived(piece);
            }
            isDeployed(node, "shop", other);
            // One piece never comes, however many do.
            List<FileMessage> many = stockPieces("many.war", "/many", war(600 * PIECE, 4));
            String failed = null;
            for (FileMessage piece : many.subList(1, many.size())) {
                try {
                    deployer(node).messageReceived(piece);
                } catch (IllegalArgumentException e) {
                    assertNull(failed, "it is said once");
                    failed = e.getMessage();
                }
            }
            assertNotNull(failed);
            assertTrue(failed.contains("piece 1 of 601 did not come"), failed);
            assertEquals(Collections.emptyList(), parts());
            // The member goes.
            try (OtherMember leaving = new OtherMember((RingtribeChannel) cluster(node).getChannel(), mcastPort, null)) {
                leaving.send(pieces.get(0));
                assertEquals(1, parts().size());
            }
            await("it is forgotten", () -> parts().isEmpty());
            assertTrue(node.log().contains("(1 of 6 pieces) does not become complete, and is deleted: tcp:"), node.log());
        }
        // What a killed node left goes when it starts again; what another one writes now stays.
        Path left = Files.createFile(TEMP.resolve(WarFiles.PREFIX + "left.war-1" + WarFiles.SUFFIX));
        Path beside = Files.createFile(APPS.resolve(WarFiles.PREFIX + "left.war-2" + WarFiles.SUFFIX));
        Path written = Files.createFile(TEMP.resolve(WarFiles.PREFIX + "new.war-3" + WarFiles.SUFFIX));
        try (FileChannel writing = WarFiles.open(written.toFile()); OneNode node = started(mcastPort)) {
            assertFalse(Files.exists(left));
            assertFalse(Files.exists(beside));
            assertTrue(Files.exists(written));
        }
    }

    /** What a stock node does with pieces, by its own code. */
    private final class StockReceiver implements ChannelListener {
        private final File file = sent.resolve("received.war").toFile();
        private FileMessageFactory factory;
        private volatile boolean complete;
        private volatile int count;
        private volatile int failsAt;

        @Override
        public boolean accept(Serializable message, Member sender) {
            return message instanceof FileMessage;
        }

        @Override
        public void messageReceived(Serializable message, Member sender) {
            FileMessage piece = (FileMessage) message;
            count++;
            if (piece.getMessageNumber() == failsAt) {
                throw new IllegalStateException("told to fail");
            }
            try {
                if (piece.getMessageNumber() == 1) {
                    factory = FileMessageFactory.getInstance(file, true);
                    complete = false;
                }
                complete = factory.writeMessage(piece);
            } catch (IOException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    @Test
    void aStockNodeGetsWhatIsSentWhateverItsSize() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        StockReceiver receiver = new StockReceiver();
        try (OneNode node = started(mcastPort);
                OtherMember other = new OtherMember((RingtribeChannel) cluster(node).getChannel(), mcastPort, receiver)) {
            for (int size : new int[] { 300, PIECE, 4 * PIECE, 4 * PIECE + 1 }) {
                byte[] content = war(size, size);
                Path file = sent.resolve("mine.war");
                Files.write(file, content);
                receiver.count = 0;
                deployer(node).install("/mine", file.toFile());
                assertTrue(receiver.complete, size + " bytes");
                assertEquals((size + PIECE - 1) / PIECE, receiver.count, size + " bytes");
                assertArrayEquals(content, Files.readAllBytes(receiver.file.toPath()));
            }
            // Who fails is named, and spared the rest.
            receiver.failsAt = 2;
            receiver.count = 0;
            deployer(node).install("/mine", sent.resolve("mine.war").toFile());
            assertEquals(2, receiver.count);
            assertTrue(node.log().contains("mine.war is not deployed everywhere: piece 2 of 5 is not on " + other.name()),
                    node.log());
            assertThrows(IOException.class, () -> deployer(node).install("/mine", sent.resolve("none.war").toFile()));
            // And its own refusals reach a sender.
            ChannelException refusal = assertThrows(ChannelException.class,
                    () -> other.send(stockPieces("../x.war", "/x", war(300, 1)).get(0)));
            assertEquals(1, refusal.getFaultyMembers().length);
        }
    }

    @Test
    void whatIsPutIntoWatchDirIsDeployedHereAndThereWhenItIsWhole() throws Exception {
        int mcastPort = OneNode.freeUdpPort();
        StockReceiver receiver = new StockReceiver();
        try (OneNode node = started(mcastPort);
                OtherMember other = new OtherMember((RingtribeChannel) cluster(node).getChannel(), mcastPort, receiver)) {
            byte[] content = war(2 * PIECE, 5);
            Path watched = WATCHED.resolve("seen.war");
            Files.write(watched, Arrays.copyOf(content, PIECE));
            deployer(node).backgroundProcess();
            deployer(node).backgroundProcess();
            assertFalse(Files.exists(APPS.resolve("seen.war")));
            assertEquals(0, receiver.count);
            Files.write(watched, content);
            // As cp -p leaves it: nothing shows that it changed.
            assertTrue(watched.toFile().setLastModified(System.currentTimeMillis() - 3600000));
            deployer(node).backgroundProcess();
            isDeployed(node, "seen", content);
            assertTrue(receiver.complete);
            assertArrayEquals(content, Files.readAllBytes(receiver.file.toPath()));
            int count = receiver.count;
            deployer(node).backgroundProcess();
            assertEquals(count, receiver.count, "sent once");
            Files.delete(watched);
            deployer(node).backgroundProcess();
            assertNull(node.context("farm", "/seen"));
            assertFalse(Files.exists(APPS.resolve("seen.war")));
            assertEquals(other.name(), cluster(node).getMembers()[0].getName());
        }
    }

    @Test
    void attributesAreRefusedByName() throws Exception {
        Files.createDirectories(OneNode.BASE);
        Files.write(OneNode.BASE.resolve("a-file"), new byte[1]);
        try (OneNode node = node(OneNode.freeUdpPort(), "<Deployer className='org.ringtribe.tomcat.RingtribeFarmWarDeployer' "
                + "tempDir='a-file' watchEnabled='true' watchdir='x' maxValidTime='soon'/>")) {
            String refusal = node.refusal();
            for (String part : new String[] { "deployDir of Deployer is missing; give a directory", "watchDir of Deployer is "
                    + "missing", "tempDir=\"a-file\" of Deployer is refused:", "watchdir=\"x\" of Deployer is refused: no such "
                    + "attribute; did you mean watchDir?", "maxValidTime=\"soon\" of Deployer is refused: give a whole number" }) {
                assertTrue(refusal.contains(part), part + " in " + refusal + node.log());
            }
        }
    }

    private static Object ofTomcats(String operation, String context) throws Exception {
        return ManagementFactory.getPlatformMBeanServer().invoke(new ObjectName("Catalina:type=Deployer,host=farm"),
                operation, new Object[] { context }, new String[] { String.class.getName() });
    }

    @Test
    void whatFindsTheApplicationBusyWaitsAndTheNewestStays() throws Exception {
        try (OneNode node = started(OneNode.freeUdpPort())) {
            byte[] newest = war(700, 2);
            assertEquals(true, ofTomcats("tryAddServiced", "/busy"));
            for (byte[] content : new byte[][] { war(600, 1), newest }) {
                deployer(node).messageReceived(stockPieces("busy.war", "/busy", content).get(0));
            }
            deployer(node).messageReceived(stockPieces("idle.war", "/idle", newest).get(0));
            await("idle is deployed", () -> node.context("farm", "/idle") != null);
            assertFalse(Files.exists(APPS.resolve("busy.war")));
            assertEquals(2, parts().size());
            ofTomcats("removeServiced", "/busy");
            byte[] later = war(800, 3);
            deployer(node).messageReceived(stockPieces("busy.war", "/busy", later).get(0));
            await("the last one is deployed", () -> node.context("farm", "/busy") != null);
            deployer(node).backgroundProcess();
            isDeployed(node, "busy", later);
        }
    }
}
