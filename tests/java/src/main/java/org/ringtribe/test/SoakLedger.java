package org.ringtribe.test;

import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * Who acknowledged what, carried by the messages themselves: those of one sender to one receiver under
 * one key are numbered, and each says which of the 64 before it the receiver has acknowledged. Those
 * must have been delivered. Used under its own lock.
 */
final class SoakLedger {

    static final int ENTRY_BYTES = 32;
    private static final int HEAD_BYTES = 8;
    private static final long SILENT_NANOS = TimeUnit.MINUTES.toNanos(10);

    /** The sender's side of one course. */
    private static final class Outgoing {
        private long last;
        /** Bit n: message last - n. */
        private long acknowledged;
    }

    /** The receiver's side. */
    private static final class Seen {
        private long highest;
        /** Bit n: message highest - n. */
        private long window;
        private long at;
    }

    private final long life;
    private final Map<String,Outgoing> outgoing = new HashMap<>();
    private final Map<String,Seen> incoming = new HashMap<>();
    private long taken;
    long received;
    long checked;
    long lost;
    long duplicates;
    long disorder;
    long damaged;

    SoakLedger(long life) {
        this.life = life;
    }

    static long life(byte[] uniqueId) {
        return ByteBuffer.wrap(uniqueId).getLong();
    }

    /**
     * Writes the next message of a key.
     *
     * @param numbers receives its number at each receiver
     */
    synchronized byte[] write(int key, int size, long[] receivers, long[] numbers) {
        byte[] bytes = new byte[Math.max(size, HEAD_BYTES + receivers.length * ENTRY_BYTES)];
        ByteBuffer out = ByteBuffer.wrap(bytes);
        out.putInt(key).putInt(receivers.length);
        for (int n = 0; n < receivers.length; n++) {
            Outgoing course = outgoing.computeIfAbsent(receivers[n] + "/" + key, name -> new Outgoing());
            out.putLong(receivers[n]).putLong(life).putLong(course.last + 1).putLong(course.acknowledged);
            course.acknowledged <<= 1;
            numbers[n] = ++course.last;
        }
        for (int n = out.position(); n < bytes.length; n++) {
            bytes[n] = (byte) numbers[0];
        }
        return bytes;
    }

    synchronized void acknowledged(int key, long receiver, long number) {
        Outgoing course = outgoing.get(receiver + "/" + key);
        if (course != null && course.last - number < 64) {
            course.acknowledged |= 1L << (course.last - number);
        }
    }

    /** What is sent to somebody who went begins anew if he comes back. */
    synchronized void gone(long receiver) {
        outgoing.keySet().removeIf(name -> name.startsWith(receiver + "/"));
    }

    /** @param ordered messages of this kind come in the order of their numbers */
    synchronized void read(byte[] bytes, boolean ordered) {
        received++;
        ByteBuffer in = ByteBuffer.wrap(bytes);
        if (bytes.length < HEAD_BYTES) {
            damaged += bytes.length == 0 ? 0 : 1;
            return;
        }
        int key = in.getInt();
        int count = in.getInt();
        boolean found = false;
        byte fill = 0;
        if (count < 1 || count > (bytes.length - HEAD_BYTES) / ENTRY_BYTES) {
            damaged++;
            return;
        }
        for (int n = 0; n < count; n++) {
            long receiver = in.getLong();
            long sender = in.getLong();
            long number = in.getLong();
            long said = in.getLong();
            fill = n == 0 ? (byte) number : fill;
            if (receiver == life) {
                found = true;
                take(sender + "/" + key, number, said, ordered);
            }
        }
        boolean whole = found;
        while (in.hasRemaining()) {
            whole &= in.get() == fill;
        }
        damaged += whole ? 0 : 1;
    }

    private void take(String name, long number, long said, boolean ordered) {
        long now = System.nanoTime();
        if (++taken % 4096 == 0) {
            incoming.values().removeIf(seen -> now - seen.at > SILENT_NANOS);
        }
        Seen seen = incoming.computeIfAbsent(name, n -> new Seen());
        seen.at = now;
        if (number == 1 && seen.highest > 1000) {
            // Its sender took this one for gone, and began anew.
            seen.highest = 0;
            seen.window = 0;
        }
        if (number > seen.highest) {
            long by = number - seen.highest;
            seen.window = by < 64 ? seen.window << by | 1 : 1;
            seen.highest = number;
        } else {
            long back = seen.highest - number;
            if (back < 64 && (seen.window & 1L << back) != 0) {
                duplicates++;
            } else if (ordered) {
                disorder++;
            }
            if (back < 64) {
                seen.window |= 1L << back;
            }
        }
        for (int bit = 0; bit < 64; bit++) {
            long back = seen.highest - (number - bit - 1);
            if ((said & 1L << bit) != 0 && number - bit - 1 > 0 && back < 64) {
                checked++;
                lost += (seen.window & 1L << back) == 0 ? 1 : 0;
            }
        }
    }

    synchronized String figures() {
        return "app_received=" + received + " app_checked=" + checked + " app_lost=" + lost + " app_duplicates="
                + duplicates + " app_disorder=" + disorder + " app_damaged=" + damaged + " app_courses="
                + incoming.size();
    }
}
