//! What the skins over the engine share: handles that cannot dangle, a guard that no panic passes,
//! and the version of the border. The JNI bridge is the first skin; the C library is the next.
#![forbid(unsafe_code)]

pub mod guard;
pub mod handle;

/// Version of the border between the native library and what calls it; both sides compare it.
pub const ABI_VERSION: i32 = 2;
