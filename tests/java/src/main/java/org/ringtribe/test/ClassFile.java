package org.ringtribe.test;

import java.io.DataInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.List;

/** What a class file refers to: the part of it that names classes, methods and fields. */
final class ClassFile {

    private static final int MAGIC = 0xcafebabe;

    /** A method or a field of another class. */
    static final class Reference {
        final boolean isField;
        final String owner;
        final String name;
        final String descriptor;

        Reference(boolean isField, String owner, String name, String descriptor) {
            this.isField = isField;
            this.owner = owner;
            this.name = name;
            this.descriptor = descriptor;
        }

        @Override
        public String toString() {
            return owner.replace('/', '.') + "." + name + (isField ? " " : "") + descriptor;
        }
    }

    final int version;
    final List<Reference> references = new ArrayList<>();
    /** Internal names; arrays stand as they do in descriptors. */
    final List<String> classes = new ArrayList<>();

    ClassFile(InputStream bytes) throws IOException {
        DataInputStream in = new DataInputStream(bytes);
        if (in.readInt() != MAGIC) {
            throw new IOException("not a class file");
        }
        in.readUnsignedShort();
        version = in.readUnsignedShort();
        int count = in.readUnsignedShort();
        int[] tags = new int[count];
        int[] first = new int[count];
        int[] second = new int[count];
        String[] texts = new String[count];
        for (int n = 1; n < count; n++) {
            tags[n] = in.readUnsignedByte();
            switch (tags[n]) {
                case 1:
                    texts[n] = in.readUTF();
                    break;
                case 3:
                case 4:
                    in.readInt();
                    break;
                case 5:
                case 6:
                    // A long or a double takes two places.
                    in.readLong();
                    n++;
                    break;
                case 7:
                case 8:
                case 16:
                case 19:
                case 20:
                    first[n] = in.readUnsignedShort();
                    break;
                case 9:
                case 10:
                case 11:
                case 12:
                case 17:
                case 18:
                    first[n] = in.readUnsignedShort();
                    second[n] = in.readUnsignedShort();
                    break;
                case 15:
                    in.readUnsignedByte();
                    in.readUnsignedShort();
                    break;
                default:
                    throw new IOException("constant " + n + " has the unknown tag " + tags[n]);
            }
        }
        for (int n = 1; n < count; n++) {
            if (tags[n] == 7) {
                classes.add(texts[first[n]]);
            } else if (tags[n] >= 9 && tags[n] <= 11) {
                int nameAndType = second[n];
                references.add(new Reference(tags[n] == 9, texts[first[first[n]]], texts[first[nameAndType]],
                        texts[second[nameAndType]]));
            }
        }
    }
}
