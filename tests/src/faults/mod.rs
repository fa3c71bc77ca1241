//! Clusters of real processes in network namespaces, and faults of the real kernel.
//!
//! * `cluster`: hosts with a member each, what they note on disk;
//! * `judge`: whether what was acknowledged was applied, once and in order;
//! * `kills`: SIGKILL under load, how long it takes to see it and to recover;
//! * `expulsions`: pauses, stolen CPU and lost heartbeats, of which nobody may be expelled;
//! * `distribution`: figures of many trials.

pub mod cluster;
pub mod distribution;
pub mod expulsions;
pub mod judge;
pub mod kills;

use std::time::{Duration, Instant};

/// Lets time pass: what is measured is that nothing happens, or what happens meanwhile.
pub fn pass(time: Duration) {
    let from = Instant::now();
    while from.elapsed() < time {
        std::thread::park_timeout(time.saturating_sub(from.elapsed()));
    }
}

/// Random numbers of a seed (SplitMix64).
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `below`.
    pub const fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ringtribe_wire::native::mix(self.0) % below
    }

    /// A time below `below`.
    #[must_use]
    pub fn time(&mut self, below: Duration) -> Duration {
        let below = u64::try_from(below.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(below.max(1)))
    }
}
