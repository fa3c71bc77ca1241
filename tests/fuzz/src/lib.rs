//! What hostile input is played to, and what has to hold then.
//!
//! The fuzzers (`fuzz_targets`) look for inputs that break it; the tests here and `fuzz_corpus` replay
//! those that reached something new, and the vectors of the wire formats.

pub mod c;
pub mod targets;

use targets::{TARGETS, Target};

/// The C entry points, beside the targets that the engine has.
pub const C_ENTRY: Target = Target { name: "c_entry", play: c::play };

/// Plays an input to the target of that name.
///
/// # Panics
/// A finding; or there is no such target.
pub fn play(name: &str, input: &[u8]) {
    let mut targets = TARGETS.iter().chain([&C_ENTRY]);
    let target = targets.find(|target| target.name == name).expect("a target");
    (target.play)(input);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_inputs_of_the_c_entry_points_are_taken_well() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/c_entry");
        let found = super::targets::seeds::files(&corpus);
        assert!(!found.is_empty(), "there are inputs");
        found.iter().for_each(|input| super::c::play(input));
    }
}
