//! The one source of chance of a thread.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// From a seed.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to `below` - 1; 0 if `below` is 0.
    pub(super) const fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        if below == 0 { 0 } else { ringtribe_wire::native::mix(self.0) % below }
    }
}
