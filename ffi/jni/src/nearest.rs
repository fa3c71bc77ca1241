//! The nearest of several names, for error texts of the Java side.

use jni_sys::{JNIEnv, jbyteArray, jclass, jint};
use ringtribe_ffi::guard::guarded;

use crate::env::Env;

/// `int nearest(byte[] given, byte[] names, byte[] text)`: writes the one of the names, a line each,
/// that is most like `given`; its length, 0 if there is none.
///
/// # Safety
/// Called by the JVM as a native method.
#[unsafe(no_mangle)]
#[allow(unreachable_pub, reason = "the JVM finds it by its name")]
pub unsafe extern "system" fn Java_org_ringtribe_Bridge_nearest(
    env: *mut JNIEnv,
    _class: jclass,
    given: jbyteArray,
    names: jbyteArray,
    text: jbyteArray,
) -> jint {
    // SAFETY: the JVM's own pointer, for this call.
    let env = unsafe { Env::new(env) };
    guarded(0, || {
        let given = String::from_utf8_lossy(&env.bytes(given)).into_owned();
        let names = String::from_utf8_lossy(&env.bytes(names)).into_owned();
        let found = ringtribe::config::nearest(&given, names.lines());
        jint::try_from(env.write(text, found.as_bytes())).unwrap_or(0)
    })
}
