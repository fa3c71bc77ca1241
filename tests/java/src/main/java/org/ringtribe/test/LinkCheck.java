package org.ringtribe.test;

import java.io.InputStream;
import java.lang.invoke.MethodType;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.Enumeration;
import java.util.List;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;

/**
 * Resolves every class, method and field that the classes of a jar refer to, against the Tomcat on the
 * class path, and looks for methods that a class had to implement and does not. Prints what is missing,
 * and how much there was.
 */
public final class LinkCheck {

    private final ClassLoader loader = LinkCheck.class.getClassLoader();
    private final List<String> missing = new ArrayList<>();
    private int checked;

    private LinkCheck() {
    }

    /** @param args the jar, and the newest version of class files that may be in it */
    public static void main(String[] args) throws Exception {
        LinkCheck check = new LinkCheck();
        int classes = 0;
        try (JarFile jar = new JarFile(args[0])) {
            for (Enumeration<JarEntry> all = jar.entries(); all.hasMoreElements();) {
                JarEntry entry = all.nextElement();
                if (entry.getName().endsWith(".class")) {
                    classes++;
                    try (InputStream in = jar.getInputStream(entry)) {
                        check.classFile(entry.getName(), new ClassFile(in), Integer.parseInt(args[1]));
                    }
                }
            }
        }
        check.missing.forEach(text -> System.out.println("MISSING " + text));
        System.out.println("CHECKED " + classes + " classes, " + check.checked + " references");
        System.exit(check.missing.isEmpty() ? 0 : 1);
    }

    private void classFile(String entry, ClassFile file, int newest) {
        String name = entry.substring(0, entry.length() - ".class".length());
        if (file.version > newest) {
            missing.add(name + " has version " + file.version + " of class files, newer than " + newest);
        }
        for (String referred : file.classes) {
            if (type(referred.startsWith("[") ? referred : "L" + referred + ";") == null) {
                missing.add(name + " needs the class " + referred);
            }
        }
        for (ClassFile.Reference reference : file.references) {
            checked++;
            if (!resolves(reference)) {
                missing.add(name + " needs " + reference);
            }
        }
        try {
            implementsAll(Class.forName(name.replace('/', '.'), false, loader));
        } catch (ClassNotFoundException | LinkageError e) {
            missing.add(name + " cannot be loaded: " + e);
        }
    }

    private Class<?> type(String descriptor) {
        try {
            return MethodType.fromMethodDescriptorString("()" + descriptor, loader).returnType();
        } catch (TypeNotPresentException | LinkageError e) {
            return null;
        }
    }

    private boolean resolves(ClassFile.Reference reference) {
        Class<?> owner = type(reference.owner.startsWith("[") ? reference.owner : "L" + reference.owner + ";");
        if (owner == null) {
            return false;
        }
        if (owner.isArray()) {
            return true;
        }
        try {
            if (reference.isField) {
                Class<?> wanted = type(reference.descriptor);
                return wanted != null && field(owner, reference.name, wanted);
            }
            MethodType wanted = MethodType.fromMethodDescriptorString(reference.descriptor, loader);
            if (owner.getName().startsWith("java.lang.invoke.") && reference.name.startsWith("invoke")) {
                // Its descriptor is the caller's.
                return true;
            }
            return reference.name.equals("<init>") ? constructor(owner, wanted) : method(owner, reference.name, wanted);
        } catch (TypeNotPresentException | LinkageError e) {
            return false;
        }
    }

    private static boolean field(Class<?> owner, String name, Class<?> type) {
        for (Class<?> place = owner; place != null; place = place.getSuperclass()) {
            for (Field field : place.getDeclaredFields()) {
                if (field.getName().equals(name) && field.getType() == type && reachable(field.getModifiers(), owner)) {
                    return true;
                }
            }
            for (Class<?> parent : place.getInterfaces()) {
                if (field(parent, name, type)) {
                    return true;
                }
            }
        }
        return false;
    }

    /** What is private can be reached by the class itself alone, and only our own classes do. */
    private static boolean reachable(int modifiers, Class<?> owner) {
        return !Modifier.isPrivate(modifiers) || owner.getName().startsWith("org.ringtribe.");
    }

    private static boolean constructor(Class<?> owner, MethodType type) {
        for (Constructor<?> constructor : owner.getDeclaredConstructors()) {
            if (MethodType.methodType(void.class, constructor.getParameterTypes()).equals(type)
                    && reachable(constructor.getModifiers(), owner)) {
                return true;
            }
        }
        return false;
    }

    private static boolean method(Class<?> owner, String name, MethodType type) {
        for (Class<?> place = owner; place != null; place = place.getSuperclass()) {
            for (Method method : place.getDeclaredMethods()) {
                if (is(method, name, type) && reachable(method.getModifiers(), place)) {
                    return true;
                }
            }
            for (Class<?> parent : place.getInterfaces()) {
                if (method(parent, name, type)) {
                    return true;
                }
            }
        }
        return owner.isInterface() && owner != Object.class && method(Object.class, name, type);
    }

    private static boolean is(Method method, String name, MethodType type) {
        return method.getName().equals(name)
                && MethodType.methodType(method.getReturnType(), method.getParameterTypes()).equals(type);
    }

    private void implementsAll(Class<?> own) {
        if (own.isInterface() || Modifier.isAbstract(own.getModifiers())) {
            return;
        }
        List<Method> wanted = new ArrayList<>();
        for (Class<?> place = own; place != null; place = place.getSuperclass()) {
            collectAbstract(place, wanted);
        }
        for (Method method : wanted) {
            if (!implemented(own, method)) {
                missing.add(own.getName() + " does not implement " + method);
            }
        }
    }

    private static void collectAbstract(Class<?> place, List<Method> found) {
        for (Method method : place.getDeclaredMethods()) {
            if (Modifier.isAbstract(method.getModifiers())) {
                found.add(method);
            }
        }
        for (Class<?> parent : place.getInterfaces()) {
            collectAbstract(parent, found);
        }
    }

    private static boolean implemented(Class<?> own, Method wanted) {
        MethodType type = MethodType.methodType(wanted.getReturnType(), wanted.getParameterTypes());
        for (Class<?> place = own; place != null; place = place.getSuperclass()) {
            for (Method method : place.getDeclaredMethods()) {
                if (is(method, wanted.getName(), type) && !Modifier.isAbstract(method.getModifiers())) {
                    return true;
                }
            }
            if (defaulted(place, wanted.getName(), type)) {
                return true;
            }
        }
        return false;
    }

    private static boolean defaulted(Class<?> place, String name, MethodType type) {
        for (Class<?> parent : place.getInterfaces()) {
            for (Method method : parent.getDeclaredMethods()) {
                if (method.isDefault() && is(method, name, type)) {
                    return true;
                }
            }
            if (defaulted(parent, name, type)) {
                return true;
            }
        }
        return false;
    }
}
