package org.ringtribe.tomcat;

import javax.management.ObjectName;

import org.apache.catalina.tribes.Channel;
import org.apache.catalina.tribes.jmx.JmxRegistry;

/**
 * The MBean name of the stock interceptor whose place one of ours takes: whoever monitors it finds it there. Stock
 * registers each under the name of its own class.
 */
final class StockName {

    private final String name;
    private ObjectName registered;

    StockName(Class<?> stock) {
        name = stock.getSimpleName();
    }

    /** The channel starts. */
    void register(Channel channel, Object interceptor) {
        JmxRegistry registry = JmxRegistry.getRegistry(channel);
        if (registry != null) {
            registered = registry.registerJmx(",component=Interceptor,interceptorName=" + name, interceptor);
        }
    }

    /** The channel stops. */
    void unregister(Channel channel) {
        JmxRegistry registry = JmxRegistry.getRegistry(channel);
        if (registry != null && registered != null) {
            registry.unregisterJmx(registered);
        }
        registered = null;
    }
}
