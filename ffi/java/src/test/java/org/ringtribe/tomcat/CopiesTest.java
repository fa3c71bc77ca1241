package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.membership.MemberImpl;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Who has the last change of a session, in orders that no real cluster can be told to take. */
class CopiesTest {

    private static final String SHOP = "/shop";

    private final Copies copies = new Copies();
    private final Copies.Copy session = new Copies.Copy();
    private final Member a;
    private final Member b;
    private final Member[] both;

    CopiesTest() throws Exception {
        a = member(1);
        b = member(2);
        both = new Member[] { a, b };
    }

    private static Member member(int number) throws Exception {
        MemberImpl made = new MemberImpl("127.0.0.1", 4000 + number, 1000);
        byte[] id = new byte[16];
        id[0] = (byte) number;
        made.setUniqueId(id);
        return made;
    }

    @BeforeEach
    void bothAreThere() {
        copies.joined(a);
        copies.joined(b);
    }

    private boolean isCopied() {
        return copies.isCopied(SHOP, session);
    }

    private static ChannelException failed(Member... members) {
        ChannelException e = new ChannelException("failed");
        for (Member member : members) {
            e.addFaultyMember(member, new IllegalStateException("failed"));
        }
        return e;
    }

    private void acknowledged() {
        copies.begin(session, both, false).acknowledged(null);
    }

    @Test
    void oneOfTwoIsEnoughAndHeMustLive() {
        assertFalse(isCopied());
        copies.begin(session, both, false).acknowledged(failed(a));
        assertTrue(isCopied());
        copies.left(a);
        assertTrue(isCopied());
        copies.left(b);
        assertFalse(isCopied());
        // The same member, but what it had may have been changed while it was away.
        copies.joined(b);
        assertFalse(isCopied());
        acknowledged();
        assertTrue(isCopied());
        copies.begin(session, both, false).acknowledged(failed(a, b));
        assertFalse(isCopied());
        copies.begin(session, both, false).acknowledged(new ChannelException("nobody knows who"));
        assertFalse(isCopied());
    }

    @Test
    void theLastChangeCountsWhicheverEndsLast() {
        Copies.Change first = copies.begin(session, both, false);
        assertFalse(isCopied());
        Copies.Change last = copies.begin(session, both, false);
        last.acknowledged(failed(a, b));
        first.acknowledged(null);
        assertFalse(isCopied());
        first = copies.begin(session, both, false);
        last = copies.begin(session, both, false);
        last.acknowledged(null);
        assertFalse(isCopied(), "one is on its way");
        first.acknowledged(failed(a, b));
        assertTrue(isCopied());
    }

    @Test
    void whatIsNotAwaitedIsThereWhenNothingIsOnTheWay() {
        // Where there is no engine, nobody can tell.
        assertTrue(ChannelEngine.queuedBytes(new RingtribeChannel()) < 0);
        long before = copies.number();
        copies.begin(session, both, false).handedOver(null);
        copies.settle(before);
        assertFalse(isCopied());
        copies.settle(copies.number());
        assertTrue(isCopied());
        copies.begin(session, both, false).handedOver(failed(a, b));
        copies.settle(copies.number());
        assertFalse(isCopied());
    }

    @Test
    void aGapTakesWhatWasOnTheWayAndNothingElse() {
        Copies.Copy settled = new Copies.Copy();
        copies.begin(settled, new Member[] { a }, false).handedOver(null);
        copies.settle(copies.number());
        Copies.Copy awaited = new Copies.Copy();
        copies.begin(awaited, new Member[] { a }, false).acknowledged(null);
        copies.begin(session, new Member[] { a }, false).handedOver(null);
        copies.missed(a);
        copies.settle(copies.number());
        assertFalse(isCopied());
        assertTrue(copies.isCopied(SHOP, settled));
        assertTrue(copies.isCopied(SHOP, awaited));
        // Another one covers the first as well, and what comes later is there again.
        copies.missed(a);
        assertFalse(isCopied());
        copies.begin(session, new Member[] { a }, false).handedOver(null);
        copies.settle(copies.number());
        assertTrue(isCopied());
    }

    @Test
    void whoHasAllHasWhatWasThereWhenItWasRead() {
        copies.begin(session, both, false).acknowledged(failed(a, b));
        long before = copies.number();
        copies.hasAll(a, SHOP, before - 1);
        assertFalse(isCopied(), "changed since it was read");
        copies.hasAll(a, SHOP, before);
        assertTrue(isCopied());
        assertFalse(copies.isCopied("/other", session));
        copies.hasAll(a, SHOP, before - 1);
        assertTrue(isCopied(), "an answer that was begun earlier may end later");
        copies.begin(session, both, false).acknowledged(failed(a, b));
        assertFalse(isCopied(), "changed since");
        copies.hasAll(a, SHOP, copies.number());
        assertTrue(isCopied());
        copies.left(a);
        assertFalse(isCopied());
        copies.hasAll(a, SHOP, copies.number());
        copies.joined(a);
        assertFalse(isCopied(), "it was told of one that is gone");
    }

    @Test
    void whatCouldNotBeWrittenIsNotAmongAll() {
        copies.begin(session, both, true).acknowledged(failed(a, b));
        Copies.Copy other = new Copies.Copy();
        copies.begin(other, both, true).acknowledged(failed(a, b));
        long before = copies.number();
        copies.notWritten(session, a);
        copies.hasAll(a, SHOP, before);
        assertFalse(isCopied());
        assertTrue(copies.isCopied(SHOP, other));
        acknowledged();
        assertFalse(isCopied(), "a change of something that it does not know");
        copies.hasAll(a, SHOP, copies.number());
        assertTrue(isCopied());
        acknowledged();
        assertTrue(isCopied());
    }

    @Test
    void whoFailedWhenHeWasToldOfItHasNothingToApplyChangesTo() {
        Member[] toA = { a };
        copies.begin(session, both, true).acknowledged(failed(a));
        assertTrue(isCopied());
        copies.begin(session, toA, false).acknowledged(null);
        assertFalse(isCopied());
        copies.hasAll(a, SHOP, copies.number());
        copies.begin(session, toA, false).acknowledged(null);
        assertTrue(isCopied());
        // Another id of it.
        copies.begin(session, both, true).acknowledged(failed(a));
        copies.begin(session, toA, false).acknowledged(null);
        assertFalse(isCopied());
        copies.begin(session, both, false).acknowledged(null);
        assertTrue(isCopied());
    }
}
