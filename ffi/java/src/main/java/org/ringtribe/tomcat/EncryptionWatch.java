package org.ringtribe.tomcat;

import java.security.GeneralSecurityException;
import java.security.Key;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Consumer;

import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.IvParameterSpec;
import javax.crypto.spec.SecretKeySpec;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.UniqueId;
import org.apache.catalina.tribes.group.ChannelInterceptorBase;
import org.apache.catalina.tribes.group.interceptors.EncryptInterceptor;
import org.apache.catalina.tribes.io.XByteBuffer;
import org.apache.catalina.util.ServerInfo;

/**
 * Stands below an {@link EncryptInterceptor}, changes nothing, and names, once, a member whose encryption this node's
 * cannot read: of another generation, with another algorithm or key, or with none. Stock logs each such message as
 * failed or replayed, or as a broken stream, and never why. Thread-safe.
 */
final class EncryptionWatch extends ChannelInterceptorBase {

    private static final String CBC = "AES/CBC/PKCS5Padding";
    private static final String GCM = "AES/GCM/NoPadding";
    private static final String PLAIN = "the EncryptInterceptor of Tomcat 9.0.13 to 9.0.118, 10.1 up to 10.1.55 or 11.0 "
            + "up to 11.0.22 (without a timestamp)";
    private static final String STAMPED = "the EncryptInterceptor of Tomcat 9.0.119, 10.1.56, 11.0.23 or later (with a "
            + "timestamp)";
    private static final int GCM_IV_BYTES = 12;
    private static final int GCM_TAG_BITS = 128;
    private static final int TIMESTAMP_BYTES = 8;
    /** Messages of a member looked at until it is clear how it encrypts. */
    private static final int LOOKS = 16;
    private static final int MEMBERS = 1024;

    private final EncryptInterceptor encrypt;
    private final boolean isStamped;
    private final Consumer<String> named;
    private final Map<UniqueId,Integer> looks = new ConcurrentHashMap<>();

    /** @param named told what is said of a member */
    EncryptionWatch(EncryptInterceptor encrypt, Consumer<String> named) {
        this(encrypt, hasReplayWindow(), named);
    }

    /** @param isStamped whether messages here have a timestamp before them */
    EncryptionWatch(EncryptInterceptor encrypt, boolean isStamped, Consumer<String> named) {
        this.encrypt = encrypt;
        this.isStamped = isStamped;
        this.named = named;
    }

    private static boolean hasReplayWindow() {
        try {
            EncryptInterceptor.class.getMethod("getReplayWindowTime");
            return true;
        } catch (NoSuchMethodException e) {
            return false;
        }
    }

    @Override
    public void messageReceived(ChannelMessage message) {
        look(message);
        super.messageReceived(message);
    }

    @Override
    public void memberDisappeared(Member member) {
        looks.remove(new UniqueId(member.getUniqueId()));
        super.memberDisappeared(member);
    }

    private void look(ChannelMessage message) {
        Member sender = message.getAddress();
        if (sender == null || message.getMessage() == null) {
            return;
        }
        UniqueId id = new UniqueId(sender.getUniqueId());
        int count = looks.getOrDefault(id, 0);
        if (count >= LOOKS || looks.size() >= MEMBERS && count == 0) {
            return;
        }
        Verdict verdict = judge(message);
        boolean isDecided = verdict != Verdict.UNCLEAR;
        Integer former = looks.put(id, isDecided ? LOOKS : count + 1);
        // Of two messages at once one speaks.
        boolean isFirst = former == null || former < LOOKS;
        if (isDecided && verdict != Verdict.SAME && isFirst) {
            named.accept(said(sender.getName(), verdict));
        }
    }

    private enum Verdict {
        UNCLEAR, SAME, OTHER_GENERATION, OTHER_ALGORITHM, OTHER_KEY, NOT_ENCRYPTED
    }

    private Verdict judge(ChannelMessage message) {
        byte[] bytes = message.getMessage().getBytes();
        boolean isObject = (message.getOptions() & Channel.SEND_OPTIONS_BYTE_MESSAGE) == 0;
        if (isObject && isReadable(bytes, 0)) {
            return Verdict.NOT_ENCRYPTED;
        }
        String ours = encrypt.getEncryptionAlgorithm();
        boolean isUnclear = false;
        for (String algorithm : new LinkedHashSet<>(Arrays.asList(ours, CBC, GCM))) {
            byte[] plain = decrypt(bytes, algorithm);
            if (plain == null) {
                continue;
            }
            boolean hasStamp = plain.length >= TIMESTAMP_BYTES && XByteBuffer.toLong(plain, 0) == message.getTimestamp();
            if (hasStamp || isObject && isReadable(plain, 0)) {
                if (hasStamp != isStamped) {
                    return Verdict.OTHER_GENERATION;
                }
                return algorithm.equals(ours) ? Verdict.SAME : Verdict.OTHER_ALGORITHM;
            }
            // Bytes of an application, or of an interceptor above; or noise that looks padded.
            isUnclear = true;
        }
        return isUnclear ? Verdict.UNCLEAR : Verdict.OTHER_KEY;
    }

    /** @return whether an object begins there, or what the GzipInterceptor makes of one */
    private static boolean isReadable(byte[] bytes, int at) {
        if (bytes.length < at + 4) {
            return false;
        }
        boolean isObject = bytes[at] == (byte) 0xac && bytes[at + 1] == (byte) 0xed && bytes[at + 2] == 0
                && bytes[at + 3] == 5;
        return isObject || bytes[at] == 0x1f && bytes[at + 1] == (byte) 0x8b && bytes[at + 2] == 8;
    }

    /** @return null if it is not encrypted so */
    private byte[] decrypt(byte[] bytes, String algorithm) {
        try {
            Cipher cipher = encrypt.getProviderName() == null ? Cipher.getInstance(algorithm)
                    : Cipher.getInstance(algorithm, encrypt.getProviderName());
            boolean isGcm = algorithm.contains("/GCM/");
            int ivBytes = isGcm ? GCM_IV_BYTES : cipher.getBlockSize();
            if (bytes.length <= ivBytes) {
                return null;
            }
            Key key = new SecretKeySpec(encrypt.getEncryptionKey(), algorithm.split("/")[0]);
            cipher.init(Cipher.DECRYPT_MODE, key, isGcm ? new GCMParameterSpec(GCM_TAG_BITS, bytes, 0, ivBytes)
                    : new IvParameterSpec(bytes, 0, ivBytes));
            return cipher.doFinal(bytes, ivBytes, bytes.length - ivBytes);
        } catch (GeneralSecurityException e) {
            return null;
        }
    }

    private String said(String member, Verdict verdict) {
        String here = "this node " + ServerInfo.getServerInfo();
        String reads = ": neither reads what the other sends, as with stock Tribes; ";
        switch (verdict) {
            case OTHER_GENERATION:
                return "Member " + member + " encrypts as " + (isStamped ? PLAIN : STAMPED) + ", " + here + " as "
                        + (isStamped ? STAMPED : PLAIN) + reads + "run releases of one kind on all nodes, or take the "
                        + "EncryptInterceptor out of all of them, in a network that you trust, until they do";
            case OTHER_ALGORITHM:
                return "Member " + member + " encrypts with another encryptionAlgorithm than " + here + " ("
                        + encrypt.getEncryptionAlgorithm() + ")" + reads + "give encryptionAlgorithm the same value on all "
                        + "nodes: its default is " + GCM + " from Tomcat 9.0.121, 10.1.58 and 11.0.25 on, and " + CBC
                        + " before";
            case NOT_ENCRYPTED:
                return "Member " + member + " does not encrypt, " + here + " does" + reads + "give all nodes an "
                        + "EncryptInterceptor with the same encryptionKey, or none";
            default:
                return "Member " + member + " encrypts with another encryptionKey or encryptionAlgorithm than " + here + " ("
                        + encrypt.getEncryptionAlgorithm() + ")" + reads + "give all nodes the same";
        }
    }
}
