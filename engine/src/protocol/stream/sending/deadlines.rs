//! What is due on a stream though nothing happens.

use super::*;

impl SendStream {
    /// When something is due here without anything happening.
    pub(crate) fn deadline(&self, shared: &Shared) -> Option<Instant> {
        let state = match self.state {
            State::BackOff { until } | State::Greeting { until, .. } => Some(until),
            _ => None,
        };
        let after =
            |since: Option<Instant>| since.map(|since| since.plus_ms(shared.bounds.ack_timeout_ms));
        let (stalled, ungranted) = (after(self.starved_since), after(self.ungranted_since));
        [state, stalled, ungranted, self.next_expiry, self.next_echo].into_iter().flatten().min()
    }

    /// Acts on what is due.
    pub(crate) fn expire(&mut self, shared: &Shared, io: &mut impl Io) {
        let now = io.now();
        if let State::Greeting { conn, until } = self.state
            && until <= now
        {
            io.report(self.entry.id, Evidence::AckTimeout);
            self.lost(conn, shared, io);
        }
        let ack_timeout_ms = shared.bounds.ack_timeout_ms;
        if self.starved_since.is_some_and(|since| since.plus_ms(ack_timeout_ms) <= now) {
            self.starved_since = Some(now);
            if !planted!(shared, StallUnnoticed) {
                io.report(self.entry.id, Evidence::Ended(Status::Stalled));
            }
        }
        if self.ungranted_since.is_some_and(|since| since.plus_ms(ack_timeout_ms) <= now) {
            // Others may have their turn before this stream: it stands still only if nothing there
            // has ended for as long. Until then it is looked at when an echo may tell that.
            let still_ms = u64::from(self.entry.still_ms());
            let stands_still = still_ms >= ack_timeout_ms;
            let passed_ms = if stands_still {
                0
            } else {
                still_ms.min(ack_timeout_ms.saturating_sub(shared.bounds.echo_ms))
            };
            self.ungranted_since = Some(now.minus_ms(passed_ms));
            if stands_still && !planted!(shared, StallUnnoticed) {
                io.report(self.entry.id, Evidence::Ended(Status::Stalled));
            }
        }
        if self.next_echo.is_some_and(|due| due <= now) {
            self.next_echo = Some(now.plus_ms(shared.bounds.echo_ms));
            if self.control.len() < CONTROL_LIMIT_BYTES {
                self.control.extend(Echo { token: now.0, ..Echo::default() }.encode(false));
            }
            if now.ms_since(self.echoed) >= shared.bounds.drop_time_ms {
                self.echoed = now;
                io.report(self.entry.id, Evidence::AckTimeout);
            }
        }
        if self.next_expiry.is_some_and(|due| due <= now) {
            self.expire_messages(now, shared, io);
        }
    }

    pub(super) fn expire_messages(&mut self, now: Instant, shared: &Shared, io: &mut impl Io) {
        let mut next = None;
        // Whether it is late; if not, its deadline counts for the next look.
        let mut is_late = |message: &Message, index: usize| {
            if message.mode == AckMode::None || message.outcome(index).is_some() {
                return false;
            }
            let deadline = message.manner.deadline;
            if deadline <= now {
                return true;
            }
            next = Some(next.map_or(deadline, |due: Instant| due.min(deadline)));
            false
        };
        let open = matches!(self.state, State::Open { .. });
        let unsent = if open { Status::Timeout } else { Status::Unreachable };
        let mut kept = VecDeque::with_capacity(self.queue.len());
        for queued in self.queue.drain(..) {
            if is_late(&queued.message, queued.index) {
                queued.end(unsent, shared);
            } else {
                kept.push_back(queued);
            }
        }
        self.queue = kept;
        let mut late_count = 0;
        let mut late = |message: &Message, index: usize| {
            if is_late(message, index) {
                late_count += 1;
                shared.complete(message, index, Status::Timeout);
            }
        };
        if let Some(Chunked { queued, .. }) = &self.chunked {
            late(&queued.message, queued.index);
        }
        for sent in &self.sent {
            if let What::Last { queued, .. } = sent {
                late(&queued.message, queued.index);
            }
        }
        for (message, index) in self.waiting.iter().filter_map(|waiting| waiting.message.as_ref()) {
            late(message, *index);
        }
        self.next_expiry = next;
        if late_count > 0 {
            count(&shared.counters.ack_timeouts_count, late_count);
            io.report(self.entry.id, Evidence::AckTimeout);
        }
    }
}
