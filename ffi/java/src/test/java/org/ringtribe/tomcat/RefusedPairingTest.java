package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.Serializable;

import org.apache.catalina.ha.session.SessionMessage;
import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.io.ChannelData;
import org.apache.catalina.tribes.io.XByteBuffer;
import org.apache.catalina.tribes.membership.MemberImpl;
import org.apache.catalina.tribes.tipis.AbstractReplicatedMap.MapMessage;
import org.junit.jupiter.api.Test;

/** A member of another generation of Tomcat is named, once, by the first message that shows it. */
class RefusedPairingTest {

    private static final long OF_NOBODY = 1;

    private final MemberImpl member = new MemberImpl("127.0.0.1", 4000, 1000);

    RefusedPairingTest() throws Exception {
        member.setUniqueId(new byte[16]);
    }

    private ChannelMessage message(Serializable content, int options) throws Exception {
        byte[] bytes = XByteBuffer.serialize(content);
        ChannelData data = new ChannelData(true);
        data.setAddress(member);
        data.setMessage(new XByteBuffer(bytes, bytes.length, false));
        data.setOptions(options);
        return data;
    }

    private Serializable ofBackupManager() throws Exception {
        return new MapMessage("map".getBytes(), MapMessage.MSG_START, false, null, null, null, member,
                new Member[] { member });
    }

    @Test
    void aMemberOfAnotherGenerationIsNamedOnce() throws Exception {
        RefusedPairing pairing = new RefusedPairing(OF_NOBODY);
        String said = pairing.look(message(ofBackupManager(), 0));
        assertNotNull(said);
        // Of the classes on this class path, whatever line that is.
        long here = java.io.ObjectStreamClass.lookup(MemberImpl.class).getSerialVersionUID();
        for (String part : new String[] { member.getName(), " " + here + ")", "(1)", "BackupManager", "RingtribeDeltaManager" }) {
            assertTrue(said.contains(part), said);
        }
        assertNull(pairing.look(message(ofBackupManager(), 0)));
        pairing.left(member);
        assertNotNull(pairing.look(message(ofBackupManager(), 0)));
    }

    @Test
    void nothingIsSaidOfTheSameGenerationNorOfOtherMessages() throws Exception {
        assertNull(new RefusedPairing().look(message(ofBackupManager(), 0)));
        RefusedPairing pairing = new RefusedPairing(OF_NOBODY);
        assertNull(pairing.look(message(new SessionMessageImpl("/app", SessionMessage.EVT_GET_ALL_SESSIONS, null, "all",
                "/app"), 0)));
        assertNull(pairing.look(message("a text", 0)));
        // What an application sends as bytes is nobody's object.
        assertNull(pairing.look(message(ofBackupManager(), Channel.SEND_OPTIONS_BYTE_MESSAGE)));
        assertNull(pairing.look(message("", 0)));
        assertNotNull(pairing.look(message(ofBackupManager(), 0)), "those decided nothing");
    }
}
