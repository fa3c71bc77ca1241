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
        String context = "localhost#/app";
        write(out, "session-created", new SessionMessageImpl(context, 1, null, "4711.node1", "4711-1"));
        write(out, "session-expired", new SessionMessageImpl(context, 2, null, "4711.node1", "4711-2"));
        write(out, "session-accessed", new SessionMessageImpl(context, 3, null, "4711.node1", "4711-3"));
        write(out, "session-get-all", new SessionMessageImpl(context, 4, null, "GET-ALL", "GET-ALL-localhost#/app"));
        write(out, "session-all-data", new SessionMessageImpl(context, 12, new byte[3000], "SESSION-STATE", "SESSION-STATE-localhost#/app"));
        write(out, "session-delta", new SessionMessageImpl(context, 13, delta, "4711.node1", "4711-2"));
        SessionMessageImpl complete = new SessionMessageImpl(context, 14, null, "SESSION-STATE-TRANSFERED", "STATE");
        complete.setTimestamp(1190000000000L);
        write(out, "session-transfer-complete", complete);
        write(out, "session-change-id-long", new SessionMessageImpl("c".repeat(300), 15, delta, "i".repeat(300), "u".repeat(300)));
        write(out, "session-no-context-manager", new SessionMessageImpl(context, 16, null, "SESSION-STATE", "STATE"));
        write(out, "rpc-request", new RpcMessage(new byte[] {9, 9}, new byte[16], "ask"));
        write(out, "rpc-reply", reply(new RpcMessage(new byte[] {9, 9}, new byte[16], "answer")));
        // An RPC id is the name of a map, so of a context; from 231 bytes on the block data is long.
        write(out, "rpc-request-long-id", new RpcMessage(new byte[300], new byte[16], "ask"));
        write(out, "rpc-reply-long-id", reply(new RpcMessage(new byte[300], new byte[16], "answer")));
        // From 1000 bytes on the block is cut in several.
        write(out, "rpc-reply-blocks", reply(new RpcMessage(new byte[2000], new byte[16], "answer")));
        write(out, "rpc-no-reply", new RpcMessage.NoRpcChannelReply(new byte[] {9}, new byte[16]));
        write(out, "string", "hello");
        write(out, "map", new java.util.TreeMap<>(java.util.Map.of("a", 1)));
    }

    private static RpcMessage reply(RpcMessage message) throws Exception {
        java.lang.reflect.Field flag = RpcMessage.class.getDeclaredField("reply");
        flag.setAccessible(true);
        flag.setBoolean(message, true);
        return message;
    }

    private static void write(Path out, String name, Serializable object) throws IOException {
        Files.write(out.resolve(name + ".bin"), XByteBuffer.serialize(object));
    }
}
