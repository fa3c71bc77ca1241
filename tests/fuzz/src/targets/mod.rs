//! The targets that need nothing but the engine; the test `fuzz_corpus` has them too.
//!
//! Each takes any bytes. A panic is a finding; so is more memory than the input can ask for, and a
//! broken rule of the seam.

pub mod allocations;
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
pub const TARGETS: [Target; 10] = [
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
];
