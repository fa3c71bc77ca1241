package org.ringtribe.tomcat;

import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;

import org.apache.catalina.connector.Request;
import org.apache.catalina.core.AsyncContextImpl;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * Waits for the end of a request that began asynchronous work: its completion, or that it begins such work once more.
 * It is an AsyncListener, whose package is another one in each line of Tomcat and cannot be named here.
 */
final class AsyncCompletion implements InvocationHandler {

    private static final Log log = LogFactory.getLog(AsyncCompletion.class);
    private static final Method ADD = find();

    private final Runnable completed;

    private AsyncCompletion(Runnable completed) {
        this.completed = completed;
    }

    /** @return null if this Tomcat has none */
    private static Method find() {
        for (Method method : AsyncContextImpl.class.getMethods()) {
            if (method.getName().equals("addListener") && method.getParameterCount() == 1
                    && method.getParameterTypes()[0].isInterface()) {
                return method;
            }
        }
        return null;
    }

    /**
     * Called by the thread that served the request, after the application's servlet returned: the application may add
     * no listener of its own any more then, so that this one is called after all of them.
     *
     * @param completed called before the response is finished, by a thread of the connector
     * @return false: the request is not asynchronous, and nobody is called
     */
    static boolean await(Request request, Runnable completed) {
        AsyncContextImpl context = request.getAsyncContextInternal();
        if (context == null || ADD == null || !request.isAsync()) {
            return false;
        }
        Class<?> type = ADD.getParameterTypes()[0];
        try {
            ADD.invoke(context, Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] { type },
                    new AsyncCompletion(completed)));
            return true;
        } catch (InvocationTargetException | IllegalAccessException e) {
            // It ended just now, by an error.
            log.debug("The completion of a request cannot be awaited", e);
            return false;
        }
    }

    @Override
    public Object invoke(Object proxy, Method method, Object[] arguments) {
        switch (method.getName()) {
            case "onComplete":
            case "onStartAsync":
                completed.run();
                return null;
            case "equals":
                return proxy == arguments[0];
            case "hashCode":
                return System.identityHashCode(proxy);
            case "toString":
                return AsyncCompletion.class.getName();
            default:
                // A timeout or an error ends in a completion too.
                return null;
        }
    }
}
