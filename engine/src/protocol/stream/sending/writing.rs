//! Numbers for frames, and one vectored send of all that may go.

use super::*;

impl SendStream {
    /// One vectored send of everything that may go now.
    pub(super) fn write(&mut self, conn: ConnId, shared: &Shared, io: &mut impl Io) {
        if self.sending {
            return;
        }
        if std::mem::take(&mut self.confirm_due) {
            self.control.extend(Frame::encode_confirm(self.failures_count));
        }
        let mut heads = None;
        let mut batch_bytes = 0;
        if !self.control.is_empty() {
            batch_bytes = self.control.len();
            self.pieces.push(Piece::Body(Buffer::copy_of(&self.control).into()));
            self.control.clear();
        }
        self.note_refused();
        let before_count = self.next_write;
        while batch_bytes < BATCH_BYTES && self.pieces.len() + 3 < BATCH_SEGMENTS_COUNT {
            if self.next_write == self.sent.len() && !self.number_next(shared, io.now()) {
                break;
            }
            let heads = heads.get_or_insert_with(|| BufferMut::with_capacity(HEADS_BYTES)).vec();
            if heads.len() + native::DATA_BYTES + COPIED_BYTES > HEADS_BYTES {
                break;
            }
            batch_bytes += self.put(self.next_write, heads);
            self.next_write += 1;
        }
        if self.pieces.is_empty() {
            return;
        }
        count(&shared.counters.frames_sent_count, (self.next_write - before_count) as u64);
        count(&shared.counters.frames_sent_bytes, batch_bytes as u64);
        count(&shared.counters.sends_count, 1);
        let heads = heads.map(BufferMut::freeze);
        let mut segments = std::mem::take(&mut self.spare);
        for piece in self.pieces.drain(..) {
            match (piece, &heads) {
                (Piece::Body(segment), _) => segments.push(segment),
                (Piece::Head(from, to), Some(heads)) => {
                    segments.push(Segment::Part { buffer: heads.clone(), from, to });
                }
                (Piece::Head(..), None) => {}
            }
        }
        self.sending = true;
        io.send_quietly(conn, SendBatch { segments, skip_bytes: 0 });
    }

    /// Messages that found no room are told to the member before what comes next.
    pub(super) fn note_refused(&mut self) {
        // Without credit the member would close the connection; there is more with the next message.
        if self.class == LaneClass::Reply || self.queue.is_empty() || self.room() < GAP_BYTES {
            return;
        }
        if let Some((refused, key)) = self.entry.take_refused(self.stream) {
            let cause = Status::QueueFull;
            self.number(What::Gap { refused, key, cause }, GAP_BYTES);
        }
    }

    /// Credit that is left.
    pub(super) fn room(&self) -> u64 {
        self.credit.saturating_sub(self.end)
    }

    pub(super) fn number(&mut self, what: What, counted_bytes: u64) {
        self.end += counted_bytes;
        self.next_sequence += 1;
        self.sent.push_back(what);
    }

    /// Gives the next frame its number, if there is one that may go: the next piece of the message
    /// that is open, else the next message.
    pub(super) fn number_next(&mut self, shared: &Shared, now: Instant) -> bool {
        // Small messages slip between the pieces of a large one.
        let piece_first = self.sent.back().is_none_or(|last| !matches!(last, What::Chunk { .. }));
        let is_one = (piece_first && self.number_piece())
            || self.number_message(shared, now)
            || self.number_piece();
        if !is_one && self.chunked.is_some() {
            self.ungranted_since.get_or_insert(now);
        }
        is_one
    }

    pub(super) fn number_piece(&mut self) -> bool {
        let Some(mut open) = self.chunked.take_if(|open| self.granted >= open.first) else {
            return false;
        };
        self.ungranted_since = None;
        let whole_bytes = open.queued.message.body.length_bytes();
        let from = open.next;
        let to = whole_bytes.min(from + MAX_BODY_BYTES);
        // Pieces are paid for by the room that was granted, not by the credit.
        if to == whole_bytes {
            self.number(What::Last { queued: open.queued, from }, 0);
        } else {
            let message = Arc::clone(&open.queued.message);
            open.next = to;
            self.chunked = Some(open);
            self.number(What::Chunk { message, from, to }, 0);
        }
        true
    }

    pub(super) fn number_message(&mut self, shared: &Shared, now: Instant) -> bool {
        while let Some(front) = self.queue.front() {
            if front.message.outcome(front.index).is_some() && front.message.mode != AckMode::None {
                // It failed meanwhile, by its deadline.
                drop(self.queue.pop_front());
                continue;
            }
            let whole_bytes = front.message.body.length_bytes();
            let is_large = whole_bytes > MAX_BODY_BYTES;
            if is_large && self.chunked.is_some() {
                break;
            }
            let frame_bytes = (native::DATA_BYTES + whole_bytes.min(MAX_BODY_BYTES)) as u64;
            if self.end + frame_bytes > self.credit {
                if self.starved_since.is_none() {
                    self.starved_since = Some(now);
                    self.starved_room = self.room();
                }
                return false;
            }
            let Some(queued) = self.queue.pop_front() else { break };
            if queued.message.mode == AckMode::None {
                // Nobody waits longer than until here.
                shared.complete(&queued.message, queued.index, Status::Ok);
            }
            if is_large {
                let message = Arc::clone(&queued.message);
                let first = self.next_sequence;
                self.chunked = Some(Chunked { queued, first, next: MAX_BODY_BYTES });
                self.number(What::Chunk { message, from: 0, to: MAX_BODY_BYTES }, frame_bytes);
            } else {
                self.number(What::Last { queued, from: 0 }, frame_bytes);
            }
            self.starved_since = None;
            return true;
        }
        // What waited for credit may have failed by its deadline; the member is no less stalled.
        false
    }

    /// Writes the head of the frame at `at`, and its body behind it or as a run of its own.
    pub(super) fn put(&mut self, at: usize, heads: &mut Vec<u8>) -> usize {
        let sequence = self.next_sequence - (self.sent.len() - at) as u64;
        let head_from = heads.len();
        let (message, from, to) = match &self.sent[at] {
            What::Last { queued, from } => {
                (&queued.message, *from, queued.message.body.length_bytes())
            }
            What::Chunk { message, from, to } => (message, *from, *to),
            What::Gap { refused, key, cause } => {
                let (cause, key, refused) = (cause.number(), *key, *refused);
                heads.extend(Gap { cause, sequence, key, refused }.encode());
                add_head(&mut self.pieces, head_from, heads.len());
                return heads.len() - head_from;
            }
        };
        let body = &message.body;
        let whole_bytes = body.length_bytes();
        let head = DataHead {
            flags: flags_of(message, from == 0, to == whole_bytes),
            #[allow(clippy::cast_possible_truncation, reason = "maxMessageBytes is below 2 GB")]
            place: if from == 0 { whole_bytes as u32 } else { from as u32 },
            sequence,
            key: Key::to_wire(message.manner.key),
        };
        heads.extend(head.encode(to - from, message.crc(from, to)));
        if to - from <= COPIED_BYTES {
            for run in body.runs(from, to) {
                heads.extend_from_slice(run);
            }
            add_head(&mut self.pieces, head_from, heads.len());
        } else {
            add_head(&mut self.pieces, head_from, heads.len());
            body.segments(from, to, |segment| self.pieces.push(Piece::Body(segment)));
        }
        native::DATA_BYTES + to - from
    }
}

fn flags_of(message: &Message, first: bool, last: bool) -> u16 {
    let wants = match message.mode {
        AckMode::None => 0,
        AckMode::Received => flags::WANT_RECEIVED,
        AckMode::Applied => flags::WANT_APPLIED,
    };
    let on = |is_on: bool, flag: u16| if is_on { flag } else { 0 };
    wants
        | on(first, flags::FIRST | flags::ENVELOPE)
        | on(last, flags::LAST)
        | on(message.manner.short, flags::SHORT)
        | on(message.manner.reply, flags::REPLY)
}

/// Adds a run of heads, to the last one if it follows it.
fn add_head(pieces: &mut Vec<Piece>, from: usize, to: usize) {
    if let Some(Piece::Head(_, end)) = pieces.last_mut()
        && *end == from
    {
        *end = to;
    } else {
        pieces.push(Piece::Head(from, to));
    }
}
