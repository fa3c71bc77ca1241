//! Runs simulated histories.
fn main() {}
