package org.ringtribe;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.nio.charset.StandardCharsets;

import org.junit.jupiter.api.Test;

class NativeLoaderTest {

    private static final byte[] LIBRARY = "abc".getBytes(StandardCharsets.US_ASCII);
    /** FIPS 180-2, appendix B.1. */
    private static final String DIGEST = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    @Test
    void aTamperedLibraryIsNotLoaded() {
        assertDoesNotThrow(() -> NativeLoader.checkDigest(LIBRARY, DIGEST));
        byte[] tampered = LIBRARY.clone();
        tampered[2] ^= 1;
        UnsatisfiedLinkError error =
                assertThrows(UnsatisfiedLinkError.class, () -> NativeLoader.checkDigest(tampered, DIGEST));
        assertTrue(error.getMessage().contains("replace the jar"), error.getMessage());
    }

    @Test
    void theLibraryOfThisJarLoadsAndLeavesNothingBehind() {
        assertDoesNotThrow(NativeLoader::ensureLoaded);
        assertDoesNotThrow(NativeLoader::ensureLoaded);
        assertEquals(Bridge.ABI_VERSION, Bridge.abiVersion());
    }
}
