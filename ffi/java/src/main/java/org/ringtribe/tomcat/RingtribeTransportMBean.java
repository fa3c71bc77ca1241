package org.ringtribe.tomcat;

import org.apache.catalina.tribes.transport.nio.PooledParallelSenderMBean;

/** The Sender's JMX bean: stock's attributes and what the engine says of itself. */
public interface RingtribeTransportMBean extends PooledParallelSenderMBean {

    /** @return what the engine counts, as lines name=value; empty when it is stopped */
    String getEngineStatistics();

    /** @return each value in force and where it came from; empty when it is stopped */
    String getEffectiveConfiguration();
}
