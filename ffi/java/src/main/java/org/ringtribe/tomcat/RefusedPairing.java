package org.ringtribe.tomcat;

import java.io.ObjectStreamClass;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.UniqueId;
import org.apache.catalina.tribes.io.XByteBuffer;
import org.apache.catalina.tribes.membership.MemberImpl;
import org.apache.catalina.util.ServerInfo;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * Names, once, a member whose Tomcat has another generation of {@link MemberImpl}: its messages that contain members
 * cannot be read here, nor ours there. Tribes alone logs a stack trace for each, and drops it. Thread-safe.
 */
final class RefusedPairing {

    private static final Log log = LogFactory.getLog(RefusedPairing.class);

    /** What a stream has before the number of a class: the mark of a description, and the class's name. */
    private static final byte[] OF_MEMBER = described(MemberImpl.class);
    /** Begins with a description, as a stream of one object does: magic, version, the mark of an object. */
    private static final byte[] OF_SESSIONS = concat(new byte[] { (byte) 0xac, (byte) 0xed, 0, 5, 0x73 },
            described(SessionMessageImpl.class));
    private static final int NUMBER_BYTES = 8;
    private final long ours;
    private final Set<UniqueId> decided = ConcurrentHashMap.newKeySet();

    RefusedPairing() {
        this(ObjectStreamClass.lookup(MemberImpl.class).getSerialVersionUID());
    }

    /** @param number that of MemberImpl here */
    RefusedPairing(long number) {
        ours = number;
    }

    /**
     * Looks at a message before it is read.
     *
     * @return what was said; null if there was nothing to say
     */
    String look(ChannelMessage message) {
        Member sender = message.getAddress();
        XByteBuffer buffer = message.getMessage();
        if (sender == null || buffer == null || (message.getOptions() & Channel.SEND_OPTIONS_BYTE_MESSAGE) != 0) {
            return null;
        }
        byte[] bytes = buffer.getBytesDirect();
        int length = buffer.getLength();
        if (startsWith(bytes, length, OF_SESSIONS) || decided.contains(new UniqueId(sender.getUniqueId()))) {
            return null;
        }
        Long theirs = memberNumber(bytes, length);
        if (theirs != null && decided.add(new UniqueId(sender.getUniqueId())) && theirs != ours) {
            String text = said(sender.getName(), theirs);
            log.error(text);
            return text;
        }
        return null;
    }

    /** Forgets a member that has gone. */
    void left(Member member) {
        decided.remove(new UniqueId(member.getUniqueId()));
    }

    private String said(String member, long theirs) {
        return "Member " + member + " runs Tomcat " + release(theirs)
                + " (its MemberImpl has the serialVersionUID " + theirs + "), this node " + ServerInfo.getServerInfo() + " ("
                + ours + "): messages that contain members are refused on both sides, so that BackupManager, "
                + "ClusterSingleSignOn, ReplicatedContext and undeployment in a farm do not work between them, as with stock "
                + "Tribes; use " + RingtribeDeltaManager.class.getSimpleName() + " or DeltaManager, whose messages both read, "
                + "until all nodes run the same";
    }

    /** MemberImpl states no number: it follows from the source, and has changed with it. */
    private static String release(long number) {
        if (number == -5400603719024120549L) {
            return "7.0";
        } else if (number == 3323947316117794076L) {
            return "8.5 or 9.0";
        } else if (number == 6004750745337223678L) {
            return "10.1 or 11.0 of an early release";
        }
        return number == -8901659902996040089L ? "10.1 or 11.0 of a later release" : "of an unknown release";
    }

    /** @return the number of the first MemberImpl in a stream; null if there is none */
    private static Long memberNumber(byte[] bytes, int length) {
        int end = Math.min(length, bytes.length) - OF_MEMBER.length - NUMBER_BYTES;
        for (int at = 0; at <= end; at++) {
            if (bytes[at] == OF_MEMBER[0] && matches(bytes, at, OF_MEMBER)) {
                long number = 0;
                for (int i = 0; i < NUMBER_BYTES; i++) {
                    number = number << 8 | bytes[at + OF_MEMBER.length + i] & 0xff;
                }
                return number;
            }
        }
        return null;
    }

    private static boolean startsWith(byte[] bytes, int length, byte[] start) {
        return Math.min(length, bytes.length) >= start.length && matches(bytes, 0, start);
    }

    private static boolean matches(byte[] bytes, int at, byte[] part) {
        for (int i = 0; i < part.length; i++) {
            if (bytes[at + i] != part[i]) {
                return false;
            }
        }
        return true;
    }

    private static byte[] described(Class<?> type) {
        byte[] name = type.getName().getBytes(StandardCharsets.US_ASCII);
        return concat(new byte[] { 0x72, (byte) (name.length >> 8), (byte) name.length }, name);
    }

    private static byte[] concat(byte[] first, byte[] second) {
        byte[] both = Arrays.copyOf(first, first.length + second.length);
        System.arraycopy(second, 0, both, first.length, second.length);
        return both;
    }
}
