package org.ringtribe.tomcat;

import java.io.IOException;
import java.io.ObjectInput;
import java.io.ObjectInputStream;
import java.io.Serializable;
import java.security.Principal;

import org.apache.catalina.SessionEvent;
import org.apache.catalina.SessionListener;

/**
 * Reads on past an object whose class is missing: Java's stream knows where it ends. The object is
 * replaced by one that stands for nothing, and the class is remembered.
 */
final class TolerantInput implements ObjectInput {

    private final ObjectInputStream in;
    private String missing;

    /** What takes the place of an object, wherever a session has one. */
    private static final class Nothing implements Principal, SessionListener, Serializable {
        private static final long serialVersionUID = 1L;

        @Override
        public String getName() {
            return "";
        }

        @Override
        public void sessionEvent(SessionEvent event) {
            // The session is discarded.
        }
    }

    TolerantInput(ObjectInputStream in) {
        this.in = in;
    }

    /** @return which class was missing since this was asked last, null if none */
    String takeMissing() {
        String found = missing;
        missing = null;
        return found;
    }

    @Override
    public Object readObject() throws IOException {
        try {
            return in.readObject();
        } catch (ClassNotFoundException e) {
            missing = "there is no class " + e.getMessage();
            return new Nothing();
        }
    }

    @Override
    public boolean readBoolean() throws IOException {
        return in.readBoolean();
    }

    @Override
    public byte readByte() throws IOException {
        return in.readByte();
    }

    @Override
    public int readUnsignedByte() throws IOException {
        return in.readUnsignedByte();
    }

    @Override
    public short readShort() throws IOException {
        return in.readShort();
    }

    @Override
    public int readUnsignedShort() throws IOException {
        return in.readUnsignedShort();
    }

    @Override
    public char readChar() throws IOException {
        return in.readChar();
    }

    @Override
    public int readInt() throws IOException {
        return in.readInt();
    }

    @Override
    public long readLong() throws IOException {
        return in.readLong();
    }

    @Override
    public float readFloat() throws IOException {
        return in.readFloat();
    }

    @Override
    public double readDouble() throws IOException {
        return in.readDouble();
    }

    @Override
    @Deprecated
    public String readLine() throws IOException {
        return in.readLine();
    }

    @Override
    public String readUTF() throws IOException {
        return in.readUTF();
    }

    @Override
    public void readFully(byte[] into) throws IOException {
        in.readFully(into);
    }

    @Override
    public void readFully(byte[] into, int offset, int length) throws IOException {
        in.readFully(into, offset, length);
    }

    @Override
    public int skipBytes(int count) throws IOException {
        return in.skipBytes(count);
    }

    @Override
    public int read() throws IOException {
        return in.read();
    }

    @Override
    public int read(byte[] into) throws IOException {
        return in.read(into);
    }

    @Override
    public int read(byte[] into, int offset, int length) throws IOException {
        return in.read(into, offset, length);
    }

    @Override
    public long skip(long count) throws IOException {
        return in.skip(count);
    }

    @Override
    public int available() throws IOException {
        return in.available();
    }

    @Override
    public void close() throws IOException {
        in.close();
    }
}
