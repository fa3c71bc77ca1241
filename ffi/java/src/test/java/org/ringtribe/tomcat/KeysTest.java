package org.ringtribe.tomcat;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;

import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.tribes.group.RpcMessage;
import org.junit.jupiter.api.Test;

class KeysTest {

    private static Long key(int event, String context, String session) {
        return Keys.of(new SessionMessageImpl(context, event, null, session, "unique"));
    }

    @Test
    void allThatConcernsOneSessionHasOneKey() {
        Long created = key(1, "ctx", "4711");
        for (int event : new int[] { 2, 3, 13, 15 }) {
            assertEquals(created, key(event, "ctx", "4711"), "event " + event);
        }
        assertNotEquals(created, key(13, "ctx", "4712"));
        assertNotEquals(created, key(13, "other", "4711"));
        assertNotEquals(key(13, "ab", "c"), key(13, "a", "bc"), "names do not run together");
        assertEquals(key(15, "ctx", "4711.node-a"), key(13, "ctx", "4711.node-b"), "before and after it moved");
    }

    @Test
    void aTransferKeepsItsOrderAndItsRequestHasNoKey() {
        assertEquals(key(12, "ctx", "SESSION-STATE"), key(14, "ctx", "SESSION-STATE-TRANSFERED"));
        assertEquals(key(12, "ctx", "x"), key(16, "ctx", "y"));
        assertNotNull(key(12, "ctx", "x"));
        assertNull(key(4, "ctx", "GET-ALL"));
    }

    @Test
    void whatHasNoNameHasNoKey() {
        assertNull(Keys.of("text"));
        assertNull(Keys.of(new RpcMessage(new byte[1], new byte[16], "ask")));
    }
}
