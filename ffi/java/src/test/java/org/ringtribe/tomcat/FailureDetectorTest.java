package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.net.InetAddress;
import java.net.ServerSocket;

import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.group.ChannelInterceptorBase;
import org.apache.catalina.tribes.group.interceptors.TcpFailureDetector;
import org.apache.catalina.tribes.membership.MemberImpl;
import org.apache.catalina.tribes.util.UUIDGenerator;
import org.junit.jupiter.api.Test;

/** Who listens at the address of a member that went. */
class FailureDetectorTest {

    /** What membership knows. */
    private static final class Known extends ChannelInterceptorBase {
        private Member[] members = { };

        @Override
        public Member[] getMembers() {
            return members;
        }

        @Override
        public Member getMember(Member wanted) {
            for (Member member : members) {
                if (member.equals(wanted)) {
                    return member;
                }
            }
            return null;
        }
    }

    private static MemberImpl life(int port) throws Exception {
        MemberImpl member = new MemberImpl("127.0.0.1", port, 0);
        member.setUniqueId(UUIDGenerator.randomUUID(false));
        return member;
    }

    @Test
    void aMemberThatWasStartedAgainIsNotTheOneThatWasKilled() throws Exception {
        try (ServerSocket listens = new ServerSocket(0, 5, InetAddress.getByName("127.0.0.1"))) {
            MemberImpl killed = life(listens.getLocalPort());
            MemberImpl again = life(listens.getLocalPort());
            Known known = new Known();
            RingtribeFailureDetector detector = new RingtribeFailureDetector(new TcpFailureDetector());
            detector.setPerformSendTest(false);
            detector.setNext(known);
            assertTrue(detector.memberAlive(killed), "somebody listens, and nobody knows of another");
            known.members = new Member[] { again };
            assertFalse(detector.memberAlive(killed), "another one has its address");
            assertTrue(detector.memberAlive(again));
            known.members = new Member[] { killed, again };
            assertTrue(detector.memberAlive(killed), "membership has not dropped it");
        }
    }
}
