package org.ringtribe.test;

import org.apache.catalina.tribes.ChannelMessage;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.group.ChannelInterceptorBase;
import org.apache.catalina.tribes.group.InterceptorPayload;

/** Drops every message, as if the network were silent: the switch of the tests for stock Tomcats. */
public class DropInterceptor extends ChannelInterceptorBase {

    @Override
    public void sendMessage(Member[] destination, ChannelMessage msg, InterceptorPayload payload) {
        // Dropped.
    }
}
