package org.ringtribe.tomcat;

import java.util.Arrays;

import org.apache.catalina.tribes.ChannelException;
import org.apache.catalina.tribes.ChannelInterceptor;
import org.apache.catalina.tribes.Member;
import org.apache.catalina.tribes.group.interceptors.TcpFailureDetector;

/**
 * A TcpFailureDetector that is not deceived by a process that was killed and started again under its
 * address: what listens there is another member then, and the former one has gone. Stock takes it for
 * alive and keeps it as long as somebody listens there.
 */
public class RingtribeFailureDetector extends TcpFailureDetector {

    private final StockName stockName = new StockName(TcpFailureDetector.class);

    public RingtribeFailureDetector() {
    }

    /** Takes the place of a stock interceptor that server.xml names. */
    RingtribeFailureDetector(TcpFailureDetector stock) {
        setOptionFlag(stock.getOptionFlag());
        setPerformSendTest(stock.getPerformSendTest());
        setPerformReadTest(stock.getPerformReadTest());
        setReadTestTimeout(stock.getReadTestTimeout());
        setConnectTimeout(stock.getConnectTimeout());
        setRemoveSuspectsTimeout(stock.getRemoveSuspectsTimeout());
    }

    @Override
    public void start(int service) throws ChannelException {
        super.start(service);
        stockName.register(getChannel(), this);
    }

    @Override
    public void stop(int service) throws ChannelException {
        stockName.unregister(getChannel());
        super.stop(service);
    }

    @Override
    protected boolean memberAlive(Member member) {
        return !isSucceeded(member) && super.memberAlive(member);
    }

    /** Whether membership knows another member at the address of this one, and not this one. */
    private boolean isSucceeded(Member member) {
        ChannelInterceptor next = getNext();
        if (next == null || next.getMember(member) != null) {
            return false;
        }
        for (Member other : next.getMembers()) {
            if (other.getPort() == member.getPort() && Arrays.equals(other.getHost(), member.getHost())
                    && !Arrays.equals(other.getUniqueId(), member.getUniqueId())) {
                return true;
            }
        }
        return false;
    }
}
