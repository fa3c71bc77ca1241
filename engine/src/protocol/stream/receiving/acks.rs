//! Acknowledgements: points, credit, and outcomes that the sender does not know.

use super::*;

impl ReceiveStream {
    /// Takes what pollers have reported.
    pub(crate) fn take_outcomes(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        self.outcomes.take(&mut taken);
        for (sequence, status) in taken.drain(..) {
            let Ok(at) =
                self.unfinished.binary_search_by_key(&sequence, |message| message.sequence)
            else {
                continue;
            };
            let message = &mut self.unfinished[at];
            if message.status.is_some() {
                continue;
            }
            // Who does not wait for it is not told of a failure.
            let status = if message.wants_outcome { status } else { Status::Ok };
            message.status = Some(status);
            self.moved_count += 1;
            self.finished_bytes += message.credit_bytes;
            self.news.push((sequence, status));
            self.ack_due = true;
        }
        self.taken = taken;
        self.pop_finished();
    }

    pub(super) fn pop_finished(&mut self) {
        while self
            .unfinished
            .front()
            .is_some_and(|front| front.status.is_some_and(|s| s.is_ok() || front.reported))
        {
            self.unfinished.pop_front();
        }
    }

    /// All messages up to here have an outcome that the sender knows or learns with this point.
    pub(super) fn applied(&self) -> u64 {
        self.unfinished.front().map_or(self.received, |front| front.sequence - 1)
    }

    pub(super) fn oldest_ms(&self, now: Instant) -> u32 {
        let age_ms = self.oldest_since().map_or(0, |since| now.ms_since(since));
        u32::try_from(age_ms).unwrap_or(u32::MAX)
    }

    pub(super) fn raise_limit(&mut self, shared: &Shared) {
        let members_count = shared.directory.members_count().max(1) as u64;
        let share = shared.bounds.max_receive_bytes as u64
            / (members_count * u64::from(self.streams.max(1)));
        let window = share.max(LEAST_WINDOW_BYTES);
        self.limit_bytes = self.limit_bytes.max(self.finished_bytes + window);
    }

    /// Writes what is due. Returns false when the connection should close, everything being out.
    pub(crate) fn flush(&mut self, shared: &Shared, io: &mut impl Io) -> bool {
        let Some(conn) = self.conn else { return true };
        if self.sending {
            return true;
        }
        if self.control.is_empty() && !self.ack_due {
            return !self.ending;
        }
        let mut out = BufferMut::with_capacity(1 << 10);
        out.vec().append(&mut self.control);
        if std::mem::take(&mut self.ack_due) {
            self.put_acks(out.vec(), io.now(), shared);
        }
        self.sending = true;
        let mut segments = std::mem::take(&mut self.spare);
        segments.push(out.freeze().into());
        io.send_quietly(conn, SendBatch { segments, skip_bytes: 0 });
        true
    }

    pub(super) fn put_acks(&mut self, out: &mut Vec<u8>, now: Instant, shared: &Shared) {
        self.raise_limit(shared);
        self.pop_finished();
        if planted!(shared, AppliedPastFailure) {
            while self.unfinished.front().is_some_and(|front| front.status.is_some()) {
                self.unfinished.pop_front();
            }
        }
        self.unsaid_bytes = 0;
        self.said = self.received;
        let from = self.report_from.take();
        let applied = from.unwrap_or_else(|| self.applied());
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        if from.is_some() {
            self.report_all(applied, &mut entries);
        } else {
            self.report_news(applied, &mut entries);
        }
        let ack = Ack {
            received: self.received,
            applied,
            credit: self.limit_bytes,
            granted: self.granted,
            oldest_ms: self.oldest_ms(now),
            entries: &[],
        };
        let mut rest = entries.as_slice();
        loop {
            let (now, later) = rest.split_at(rest.len().min(Ack::ENTRIES_LIMIT_COUNT));
            count(&shared.counters.acks_sent_count, 1);
            ack.encode(now, out);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        self.entries = entries;
    }

    /// The outcomes above the point that no ack of this connection has said.
    pub(super) fn report_news(&mut self, applied: u64, entries: &mut Vec<AckEntry>) {
        let mut news = std::mem::take(&mut self.news);
        news.retain(|(sequence, _)| *sequence > applied);
        news.sort_unstable_by_key(|(sequence, _)| *sequence);
        for (sequence, status) in news.drain(..) {
            add_entry(entries, applied, sequence, sequence + 1, status);
            if !status.is_ok() {
                self.reported(sequence, status);
            }
        }
        self.news = news;
    }

    /// Everything above the point, as a new connection needs it.
    pub(super) fn report_all(&mut self, applied: u64, entries: &mut Vec<AckEntry>) {
        self.news.clear();
        let mut failed: Vec<(u64, Status)> = self.unconfirmed.drain(..).collect();
        for message in &mut self.unfinished {
            if let Some(status) = message.status.filter(|status| !status.is_ok()) {
                failed.push((message.sequence, status));
                message.reported = true;
            }
        }
        failed.sort_unstable_by_key(|(sequence, _)| *sequence);
        failed.dedup_by_key(|(sequence, _)| *sequence);
        let pending = self.unfinished.iter().filter(|message| message.status.is_none());
        let mut exceptions: Vec<(u64, Option<Status>)> = pending
            .map(|message| (message.sequence, None))
            .chain(failed.iter().map(|(sequence, status)| (*sequence, Some(*status))))
            .collect();
        exceptions.sort_unstable_by_key(|(sequence, _)| *sequence);
        let mut next = applied + 1;
        for (sequence, status) in exceptions {
            if sequence > next {
                add_entry(entries, applied, next, sequence, Status::Ok);
            }
            if let Some(status) = status {
                add_entry(entries, applied, sequence, sequence + 1, status);
            }
            next = sequence + 1;
        }
        // A message that is open has its outcome still to come; its frames so far are no messages.
        if self.received >= next {
            add_entry(entries, applied, next, self.received + 1, Status::Ok);
        }
        self.unconfirmed.extend(failed);
        self.ack_due = true;
    }

    pub(super) fn reported(&mut self, sequence: u64, status: Status) {
        self.unconfirmed.push_back((sequence, status));
        if let Ok(at) = self.unfinished.binary_search_by_key(&sequence, |m| m.sequence) {
            self.unfinished[at].reported = true;
        }
    }
}

/// Adds the outcome of frames `from..to`, to the last entry if it follows it.
#[allow(clippy::cast_possible_truncation, reason = "credit bounds what is above the point")]
fn add_entry(entries: &mut Vec<AckEntry>, applied: u64, from: u64, to: u64, status: Status) {
    let (offset, number) = ((from - applied) as u32, status.number());
    let added = (to - from) as u32;
    if let Some(last) = entries.last_mut()
        && last.status == number
        && last.offset + last.count == offset
    {
        last.count += added;
        return;
    }
    entries.push(AckEntry { offset, count: added, status: number, cause: 0 });
}
