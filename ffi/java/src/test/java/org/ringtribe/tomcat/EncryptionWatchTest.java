package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.Serializable;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.IvParameterSpec;
import javax.crypto.spec.SecretKeySpec;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.group.ChannelInterceptorBase;
import org.apache.catalina.tribes.group.interceptors.EncryptInterceptor;
import org.apache.catalina.tribes.io.ChannelData;
import org.apache.catalina.tribes.io.XByteBuffer;
import org.apache.catalina.tribes.membership.MemberImpl;
import org.junit.jupiter.api.Test;

/** A member that encrypts otherwise is named, once, with what differs. */
class EncryptionWatchTest {

    private static final String CBC = "AES/CBC/PKCS5Padding";
    private static final String GCM = "AES/GCM/NoPadding";
    private static final byte[] KEY = new byte[16];
    private static final byte[] OTHER_KEY = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
    private static final long SENT = 1_790_000_000_000L;

    private final MemberImpl member = new MemberImpl("127.0.0.1", 4000, 1000);
    private final List<String> said = new ArrayList<>();
    private final List<byte[]> passed = new ArrayList<>();

    EncryptionWatchTest() throws Exception {
        member.setUniqueId(new byte[16]);
    }

    private EncryptionWatch watch(boolean isStamped, String algorithm) {
        EncryptInterceptor encrypt = new EncryptInterceptor();
        encrypt.setEncryptionAlgorithm(algorithm);
        encrypt.setEncryptionKey(KEY);
        EncryptionWatch watch = new EncryptionWatch(encrypt, isStamped, said::add);
        watch.setPrevious(new ChannelInterceptorBase() {
            @Override
            public void messageReceived(ChannelMessage message) {
                passed.add(message.getMessage().getBytes());
            }
        });
        return watch;
    }

    private static byte[] encrypted(byte[] plain, String algorithm, byte[] key, boolean isStamped) throws Exception {
        boolean isGcm = algorithm.equals(GCM);
        byte[] iv = new byte[isGcm ? 12 : 16];
        Cipher cipher = Cipher.getInstance(algorithm);
        cipher.init(Cipher.ENCRYPT_MODE, new SecretKeySpec(key, "AES"),
                isGcm ? new GCMParameterSpec(128, iv) : new IvParameterSpec(iv));
        byte[] stamp = isStamped ? ByteBuffer.allocate(8).putLong(SENT).array() : new byte[0];
        ByteBuffer all = ByteBuffer.allocate(stamp.length + plain.length).put(stamp).put(plain);
        byte[] body = cipher.doFinal(all.array());
        return ByteBuffer.allocate(iv.length + body.length).put(iv).put(body).array();
    }

    private ChannelMessage message(byte[] bytes, int options) {
        ChannelData data = new ChannelData(false);
        data.setAddress(member);
        data.setTimestamp(SENT);
        data.setOptions(options);
        data.setMessage(new XByteBuffer(bytes, bytes.length, false));
        return data;
    }

    private static byte[] object() throws Exception {
        return XByteBuffer.serialize((Serializable) Arrays.asList("an", "object"));
    }

    private void names(EncryptionWatch watch, byte[] bytes, String... parts) {
        said.clear();
        for (int i = 0; i < 3; i++) {
            watch.messageReceived(message(bytes, 0));
        }
        assertEquals(parts.length == 0 ? 0 : 1, said.size(), String.valueOf(said));
        for (String part : parts) {
            assertTrue(said.get(0).contains(part), said.get(0));
        }
        assertArrayEquals(bytes, passed.get(passed.size() - 1), "nothing is changed");
        watch.memberDisappeared(member);
    }

    @Test
    void eachDifferenceIsNamedOnce() throws Exception {
        for (boolean isStamped : new boolean[] { false, true }) {
            EncryptionWatch watch = watch(isStamped, CBC);
            names(watch, encrypted(object(), CBC, KEY, isStamped));
            names(watch, encrypted(object(), CBC, KEY, !isStamped), member.getName(),
                    isStamped ? "encrypts as the EncryptInterceptor of Tomcat 9.0.13 to" : "encrypts as the EncryptInterceptor of Tomcat 9.0.119",
                    "this node Apache Tomcat/", "run releases of one kind");
            names(watch, encrypted(object(), GCM, KEY, isStamped), "another encryptionAlgorithm", CBC);
            names(watch, encrypted(object(), GCM, KEY, !isStamped), "run releases of one kind");
            names(watch, encrypted(object(), GCM, OTHER_KEY, isStamped), "another encryptionKey or");
            names(watch, object(), "does not encrypt, this node");
            assertEquals(18, passed.size() - (isStamped ? 18 : 0));
        }
        names(watch(true, GCM), encrypted(object(), GCM, KEY, true));
        names(watch(true, GCM), encrypted(object(), CBC, KEY, true), "another encryptionAlgorithm", GCM);
    }

    @Test
    void bytesOfAnApplicationDecideNothing() throws Exception {
        EncryptionWatch watch = watch(false, CBC);
        byte[] text = "some bytes of an application".getBytes();
        for (int i = 0; i < 10; i++) {
            watch.messageReceived(message(encrypted(text, CBC, KEY, false), Channel.SEND_OPTIONS_BYTE_MESSAGE));
        }
        assertTrue(said.isEmpty(), String.valueOf(said));
        watch.messageReceived(message(encrypted(text, CBC, KEY, true), Channel.SEND_OPTIONS_BYTE_MESSAGE));
        assertEquals(1, said.size());
    }
}
