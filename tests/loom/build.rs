//! Builds the engine's source with loom's atomics in the place of the standard ones.

fn main() {
    println!("cargo:rustc-cfg=ringtribe_loom");
}
