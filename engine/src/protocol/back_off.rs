//! Pauses before a lane connects again.

use crate::ids::Instant;

const FIRST_MS: u64 = 50;
/// Longest pause, whatever ackTimeout is. A connection that lasted longer worked.
pub(super) const MOST_MS: u64 = 1_000;

/// The pause after so many failures. At most half of ackTimeout: each message meets an attempt to
/// connect while it may still be acknowledged.
pub(super) fn pause_ms(failures_count: u32, ack_timeout_ms: u64) -> u64 {
    (FIRST_MS << failures_count.min(8)).min(MOST_MS).min(ack_timeout_ms / 2)
}

/// The pauses of one lane: none after a connection that worked for a while, else doubling from 50 ms
/// to 1 s or to half of ackTimeout.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures_count: u32,
    connected: Option<Instant>,
}

impl BackOff {
    /// A connection is open and answered.
    pub(super) fn connected(&mut self, now: Instant) {
        self.connected = Some(now);
    }

    /// An attempt failed: when to try again.
    pub(super) fn next(&mut self, ack_timeout_ms: u64, now: Instant) -> Instant {
        let until = now.plus_ms(pause_ms(self.failures_count, ack_timeout_ms));
        self.failures_count += 1;
        until
    }

    /// A connection was lost: when to try again, `None` for at once.
    pub(super) fn after_loss(&mut self, ack_timeout_ms: u64, now: Instant) -> Option<Instant> {
        if let Some(since) = self.connected.take()
            && (now.ms_since(since) > MOST_MS || self.failures_count == 0)
        {
            // It worked: this is no peer that accepts and closes in a circle. But the next one may.
            self.failures_count = u32::from(now.ms_since(since) <= MOST_MS);
            return None;
        }
        Some(self.next(ack_timeout_ms, now))
    }
}
