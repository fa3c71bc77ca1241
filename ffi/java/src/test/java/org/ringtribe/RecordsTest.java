package org.ringtribe;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;

import org.junit.jupiter.api.Test;

/** The layout that the native side writes, byte by byte; the exchange tests see both sides together. */
class RecordsTest {

    private final ByteBuffer buffer = ByteBuffer.allocateDirect(4096).order(ByteOrder.nativeOrder());

    private void begin(int records) {
        buffer.putInt(records).putInt(0);
    }

    private int record(int type) {
        int at = buffer.position();
        buffer.putInt(0).putShort((short) type).putShort((short) 0);
        return at;
    }

    private void end(int at) {
        while (buffer.position() % 8 != 0) {
            buffer.put((byte) 0x55);
        }
        buffer.putInt(at, buffer.position() - at);
    }

    @Test
    void aMessageAndWhatFollowsIt() {
        begin(3);
        byte[] id = "0123456789abcdef".getBytes(StandardCharsets.US_ASCII);
        byte[] sender = { 1, 2, 3 };
        byte[] payload = { 9, 8, 7, 6, 5 };
        int at = record(Records.MESSAGE);
        buffer.putInt(0x8000_0006).putInt(sender.length).putLong(1_700_000_000_123L).put(id);
        buffer.putInt(payload.length).putInt(0).put(sender).put(payload);
        end(at);
        at = record(Records.COMPLETED);
        buffer.putInt(2).putInt(0).putLong(77);
        buffer.putLong(5).putInt(Status.TIMEOUT).putInt(0);
        buffer.putLong(1L << 33).putInt(Status.REMOTE_FAILED).putInt(0);
        end(at);
        at = record(Records.LOG);
        byte[] text = "größer als erlaubt".getBytes(StandardCharsets.UTF_8);
        buffer.putInt(2).putInt(text.length).put(text);
        end(at);

        Records records = new Records(buffer);
        assertTrue(records.advance());
        assertEquals(Records.MESSAGE, records.type());
        assertEquals(0x8000_0006, records.options());
        assertEquals(1_700_000_000_123L, records.timestamp());
        assertArrayEquals(id, records.uniqueId());
        assertArrayEquals(sender, records.sender());
        byte[] copy = new byte[8];
        records.payload(copy, 2);
        assertArrayEquals(new byte[] { 0, 0, 9, 8, 7, 6, 5, 0 }, copy);

        assertTrue(records.advance());
        assertEquals(Records.COMPLETED, records.type());
        assertEquals(77, records.token());
        assertEquals(2, records.failures());
        assertEquals(5, records.failedMember(0));
        assertEquals(Status.TIMEOUT, records.failedStatus(0));
        assertEquals(1L << 33, records.failedMember(1));
        assertEquals(Status.REMOTE_FAILED, records.failedStatus(1));

        assertTrue(records.advance());
        assertEquals(Records.LOG, records.type());
        assertEquals(2, records.logLevel());
        assertEquals("größer als erlaubt", records.logText());
        assertFalse(records.advance());
    }

    @Test
    void aMemberThatWent() {
        begin(2);
        byte[] bytes = { 4, 5, 6, 7 };
        int at = record(Records.MEMBER_GONE);
        buffer.putInt(Status.GOODBYE).putInt(bytes.length).putLong(3).put(bytes);
        end(at);
        at = record(Records.GAP);
        buffer.putLong(0).putLong(3).putLong(12);
        end(at);

        Records records = new Records(buffer);
        assertTrue(records.advance());
        assertEquals(Records.MEMBER_GONE, records.type());
        assertEquals(Status.GOODBYE, records.cause());
        assertEquals(3, records.member());
        assertArrayEquals(bytes, records.memberPackage());
        assertTrue(records.advance());
        assertEquals(Records.GAP, records.type());
        assertEquals(3, records.member());
        assertEquals(12, records.gapMessages());
    }
}
