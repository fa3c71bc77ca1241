//! A node's own monotonic clock: it starts at zero, may be fast or slow, and may jump ahead.

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The world's time at which it showed `shown`.
    since: u64,
    shown: u64,
    /// Its nanoseconds in a thousand of the world's.
    rate: u64,
}

impl Clock {
    /// A clock that shows zero now.
    pub(super) const fn new(now: u64, rate: u64) -> Self {
        Self { since: now, shown: 0, rate }
    }

    /// What it shows.
    pub(super) const fn shows(&self, now: u64) -> u64 {
        self.shown + (now - self.since) * self.rate / 1_000
    }

    /// When it shows `shown`, in the world's time.
    pub(super) fn when(&self, shown: u64) -> u64 {
        let ahead = u128::from(shown.saturating_sub(self.shown));
        let ahead = (ahead * 1_000).div_ceil(u128::from(self.rate));
        self.since.saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX))
    }

    /// It jumps ahead.
    pub(super) const fn jump(&mut self, now: u64, by: u64) {
        self.shown = self.shows(now) + by;
        self.since = now;
    }
}
