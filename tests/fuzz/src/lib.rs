//! What hostile input is played to, and what has to hold then.
//!
//! Each target takes any bytes. A panic is a finding; so is more memory than the input can ask for,
//! and a broken rule of the seam. The fuzzers (`fuzz_targets`) look for such inputs; the test
//! `fuzz_corpus` replays those that reached something new, and the vectors of the wire formats.

pub mod allocations;
pub mod c;
pub mod config;
pub mod kernel;
pub mod membership;
pub mod native;
pub mod script;
pub mod seeds;
pub mod tribes;
pub mod world;

/// Something that takes hostile input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the fuzzer and of the directory in `corpus`.
    pub name: &'static str,
    /// Takes one input.
    pub play: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 11] = [
    Target { name: "tribes_frames", play: tribes::frames },
    Target { name: "tribes_datagram", play: tribes::datagram },
    Target { name: "java_payload", play: tribes::payload },
    Target { name: "native_frames", play: native::frames },
    Target { name: "native_hello", play: native::hello },
    Target { name: "round_trip", play: native::round_trip },
    Target { name: "worker_accept", play: world::accept },
    Target { name: "worker_send", play: world::send },
    Target { name: "membership", play: membership::play },
    Target { name: "server_xml", play: config::play },
    Target { name: "c_entry", play: c::play },
];

/// Plays an input to the target of that name.
///
/// # Panics
/// A finding; or there is no such target.
pub fn play(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    (target.play)(input);
}
