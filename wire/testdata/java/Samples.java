import java.io.*;
import java.nio.file.*;
import org.apache.catalina.ha.session.SessionMessageImpl;
import org.apache.catalina.tribes.group.RpcMessage;
import org.apache.catalina.tribes.io.XByteBuffer;

/** Writes what stock Tomcat serializes, for the tests of {@code tribes::payload}. */
public class Samples {
    public static void main(String[] args) throws Exception {
        Path out = Paths.get(args[0]);
        byte[] delta = {1, 2, 3, 4, 5};
        write(out, "session-created", new SessionMessageImpl("localhost#/app", 1, null, "4711.node1", "4711-1"));
        write(out, "session-get-all", new SessionMessageImpl("localhost#/app", 4, null, "GET-ALL", "GET-ALL-localhost#/app"));
        write(out, "session-all-data", new SessionMessageImpl("localhost#/app", 12, new byte[3000], "SESSION-STATE", "SESSION-STATE-localhost#/app"));
        write(out, "session-delta", new SessionMessageImpl("localhost#/app", 13, delta, "4711.node1", "4711-2"));
        write(out, "rpc-request", new RpcMessage(new byte[] {9, 9}, new byte[16], "ask"));
        RpcMessage reply = new RpcMessage(new byte[] {9, 9}, new byte[16], "answer");
        java.lang.reflect.Field flag = RpcMessage.class.getDeclaredField("reply");
        flag.setAccessible(true);
        flag.setBoolean(reply, true);
        write(out, "rpc-reply", reply);
        write(out, "rpc-no-reply", new RpcMessage.NoRpcChannelReply(new byte[] {9}, new byte[16]));
        write(out, "string", "hello");
        write(out, "map", new java.util.TreeMap<>(java.util.Map.of("a", 1)));
    }

    private static void write(Path out, String name, Serializable object) throws IOException {
        Files.write(out.resolve(name + ".bin"), XByteBuffer.serialize(object));
    }
}
