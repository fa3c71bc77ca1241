//! The few JNI functions that the bridge calls, with their lengths checked. No object is kept and
//! no exception is left pending; every call comes from a Java thread.

use jni_sys::{JNIEnv, jbyteArray, jint, jintArray, jlong, jlongArray, jobject};

/// The environment of the calling Java thread, valid for the call it came with.
#[derive(Clone, Copy)]
pub(crate) struct Env(*mut JNIEnv);

impl Env {
    /// # Safety
    /// `env` is the pointer that the JVM passed to the native method that is running.
    pub(crate) const unsafe fn new(env: *mut JNIEnv) -> Self {
        Self(env)
    }

    /// Length of a byte array; 0 for null.
    pub(crate) fn length(self, array: jbyteArray) -> usize {
        if array.is_null() {
            return 0;
        }
        // SAFETY: `self.0` is valid (see `new`), `array` is a live local reference that the JVM
        // passed to this call and it is not null.
        let length = unsafe { ((**self.0).v1_1.GetArrayLength)(self.0, array) };
        usize::try_from(length).unwrap_or(0)
    }

    /// Copies `into.len()` bytes from `offset` on; false if the array is shorter.
    pub(crate) fn read(self, array: jbyteArray, offset: usize, into: &mut [u8]) -> bool {
        let fits = offset.checked_add(into.len()).is_some_and(|end| end <= self.length(array));
        let (Ok(start), Ok(length)) = (jint::try_from(offset), jint::try_from(into.len())) else {
            return false;
        };
        if !fits {
            return false;
        }
        if !into.is_empty() {
            // SAFETY: the array is not null (its length is not 0), the region is inside it, and
            // `into` has room for it. The JVM copies and keeps nothing.
            unsafe {
                ((**self.0).v1_1.GetByteArrayRegion)(
                    self.0,
                    array,
                    start,
                    length,
                    into.as_mut_ptr().cast(),
                );
            }
        }
        true
    }

    /// A copy of a whole array.
    pub(crate) fn bytes(self, array: jbyteArray) -> Vec<u8> {
        let mut bytes = vec![0; self.length(array)];
        let whole = self.read(array, 0, &mut bytes);
        debug_assert!(whole, "its own length");
        bytes
    }

    /// Writes what fits of `bytes` to the start of an array; tells how many.
    pub(crate) fn write(self, array: jbyteArray, bytes: &[u8]) -> usize {
        let length = bytes.len().min(self.length(array));
        let Ok(count) = jint::try_from(length) else { return 0 };
        if count > 0 {
            // SAFETY: as in `read`, in the other direction: `count` bytes are in both.
            unsafe {
                ((**self.0).v1_1.SetByteArrayRegion)(
                    self.0,
                    array,
                    0,
                    count,
                    bytes.as_ptr().cast(),
                );
            }
        }
        length
    }

    /// Copies the first `count` longs; `None` if the array is shorter.
    pub(crate) fn longs(self, array: jlongArray, count: usize) -> Option<Vec<jlong>> {
        if count > self.length(array) {
            return None;
        }
        let mut longs = vec![0; count];
        if count > 0 {
            let length = jint::try_from(count).ok()?;
            // SAFETY: not null and long enough, both just checked; `longs` has the room.
            unsafe {
                ((**self.0).v1_1.GetLongArrayRegion)(self.0, array, 0, length, longs.as_mut_ptr());
            }
        }
        Some(longs)
    }

    /// Writes ints to the start of an array that has room for them all; else does nothing.
    pub(crate) fn write_ints(self, array: jintArray, ints: &[jint]) {
        let Ok(count) = jint::try_from(ints.len()) else { return };
        if count > 0 && ints.len() <= self.length(array) {
            // SAFETY: not null and long enough, both just checked.
            unsafe { ((**self.0).v1_1.SetIntArrayRegion)(self.0, array, 0, count, ints.as_ptr()) }
        }
    }

    /// Where a direct buffer lies, 0 if it is none.
    pub(crate) fn address(self, buffer: jobject) -> jlong {
        if buffer.is_null() {
            return 0;
        }
        // SAFETY: a live local reference, not null.
        let address = unsafe { ((**self.0).v1_4.GetDirectBufferAddress)(self.0, buffer) };
        address as jlong
    }
}
