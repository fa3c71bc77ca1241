//! The library stays mapped: its threads may outlive the class loader that loaded it.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
