//! The library's soname, and that it stays mapped: its threads outlive a `dlclose`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The number is RINGTRIBE_ABI_VERSION; a test compares them.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libringtribe.so.0");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
