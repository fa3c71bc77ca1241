package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.util.Arrays;
import java.util.Random;

import org.junit.jupiter.api.Test;

class SessionVersionTest {

    private static final long ONE = -1;
    private static final long TWO = 2;

    private static SessionVersion read(byte[] bytes) throws IOException {
        return SessionVersion.read(new DataInputStream(new ByteArrayInputStream(bytes)));
    }

    private static byte[] written(SessionVersion version) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        version.write(new DataOutputStream(bytes));
        return bytes.toByteArray();
    }

    @Test
    void oneHoldsTheOtherOrEachHoldsSomethingOfItsOwn() {
        SessionVersion common = SessionVersion.NONE.changedBy(ONE).changedBy(TWO);
        SessionVersion here = common.changedBy(ONE);
        SessionVersion there = common.changedBy(TWO);
        assertTrue(here.holds(common) && there.holds(common) && common.holds(SessionVersion.NONE));
        assertFalse(common.holds(here));
        assertFalse(here.holds(there) || there.holds(here));
        assertTrue(here.and(there).holds(here) && here.and(there).holds(there));
        assertEquals(here.and(there), there.and(here));
        assertEquals(common, here.beforeChangeBy(ONE));
        // Both nodes decide alike.
        assertTrue(here.prevailsOver(there, 2, 1) && !there.prevailsOver(here, 1, 2));
        assertTrue(here.prevailsOver(there, 1, 1) != there.prevailsOver(here, 1, 1));
    }

    @Test
    void itTravelsAndWhatIsNoneIsRefused() throws IOException {
        Random random = new Random(6);
        for (int round = 0; round < 1000; round++) {
            SessionVersion version = SessionVersion.NONE;
            int changes = 1 + random.nextInt(60);
            for (int n = 0; n < changes; n++) {
                version = version.changedBy(random.nextInt(40) - 20L << 58);
            }
            byte[] bytes = written(version);
            assertEquals(version, read(bytes));
            String marked = version.mark("id~changes:-123", 1_234_567);
            assertEquals(version, SessionVersion.ofMarked(marked));
            assertEquals(1_234_567, SessionVersion.at(marked, 9));
            for (int n = 0; n < bytes.length; n += 7) {
                byte[] part = Arrays.copyOf(bytes, n);
                assertThrows(IOException.class, () -> read(part));
            }
        }
        assertNull(SessionVersion.ofMarked("id-123"));
        assertNull(SessionVersion.ofMarked(null));
        assertNull(SessionVersion.ofMarked("id~changes:x:y"));
        assertNull(SessionVersion.ofMarked("id~changes:1:-5"));
        byte[] longest = new byte[1 + 255 * 16];
        longest[0] = -1;
        assertThrows(IOException.class, () -> read(longest), "too many");
        byte[] twice = new byte[1 + 2 * 16];
        twice[0] = 2;
        assertThrows(IOException.class, () -> read(twice), "out of order");
    }

    @Test
    void manyWhoChangedItDoNotMakeItLonger() throws IOException {
        SessionVersion version = SessionVersion.NONE;
        for (int n = 0; n < 1000; n++) {
            SessionVersion before = version;
            version = version.changedBy(n);
            assertTrue(version.total() > before.total());
            assertTrue(written(version).length < 300);
        }
    }
}
