//! A stream to a member, and the lane that carries it.
//!
//! Frames get their numbers when they are first written. They are kept until the member's engine
//! holds them, and written again from there on when a connection was lost; messages are kept, without
//! their bytes, until the member says how their listener ended.

use std::collections::VecDeque;
use std::sync::Arc;

use ringtribe_wire::native::{
    self, Ack, DataHead, Echo, Frame, Gap, Goodbye, Hello, HelloStatus, LaneClass, MAX_BODY_BYTES,
    MAX_FRAME_BYTES, Step, decode, decode_hello_ack, flags,
};

use crate::buffer::{Buffer, BufferMut, Segment};
use crate::directory::MemberEntry;
use crate::event::{Event, LogLevel};
use crate::ids::{BootId, Instant};
use crate::io::{ConnId, Errno, Evidence, Io, SendBatch};
use crate::message::{AckMode, Message};
use crate::phase::Phase;
use crate::protocol::back_off::BackOff;
use crate::protocol::lane::Queued;
use crate::shared::{Shared, count, planted};
use crate::status::Status;

/// Most bytes of one vectored send; a frame more may go in.
const BATCH_BYTES: usize = 256 << 10;
/// Most segments of one vectored send (IOV_MAX is 1024).
const BATCH_SEGMENTS_COUNT: usize = 512;
/// Heads, and bodies that are copied beside them, of one send.
const HEADS_BYTES: usize = 64 << 10;
/// Bodies up to this length are copied beside their heads: one run for many small messages.
const COPIED_BYTES: usize = 256;
/// Bytes of a GAP frame, as the credit counts it.
const GAP_BYTES: u64 = 40;
/// Control frames that may wait to be written.
const CONTROL_LIMIT_BYTES: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No connection, and none wanted.
    Idle,
    BackOff {
        until: Instant,
    },
    Connecting {
        request: u64,
    },
    /// The hello is out, its answer due.
    Greeting {
        conn: ConnId,
        until: Instant,
    },
    Open {
        conn: ConnId,
    },
    /// Closed for the core, but the kernel may still hold a batch.
    Closing {
        conn: ConnId,
    },
    /// The member refused; membership ends the epoch.
    Refused,
}

/// A frame that has its number and is not known to be received.
#[derive(Debug)]
enum What {
    /// A whole message, or the last bytes of one, from `from` on.
    Last {
        queued: Queued,
        from: usize,
    },
    Chunk {
        message: Arc<Message>,
        from: usize,
        to: usize,
    },
    Gap {
        refused: u64,
        key: u64,
        cause: Status,
    },
}

/// A message of which the first frames have their numbers.
#[derive(Debug)]
struct Chunked {
    queued: Queued,
    first: u64,
    next: usize,
}

/// A message that the member's engine holds and whose listener has not ended.
#[derive(Debug)]
struct Waiting {
    sequence: u64,
    /// `None` once its outcome is known, or if nobody asks for it.
    message: Option<(Arc<Message>, usize)>,
    /// Held for the join barrier.
    phase: Option<Arc<Phase>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SendStream {
    entry: Arc<MemberEntry>,
    expected: BootId,
    stream: u16,
    class: LaneClass,
    state: State,
    back_off: BackOff,
    queue: VecDeque<Queued>,
    chunked: Option<Chunked>,
    sent: VecDeque<What>,
    /// Number of the next frame that never had one.
    next_sequence: u64,
    /// Place in `sent` of the next frame that this connection has not carried.
    next_write: usize,
    waiting: VecDeque<Waiting>,
    /// Bytes of the stream that have their number, and up to which it may go.
    end: u64,
    credit: u64,
    granted: u64,
    /// Since when the front of the queue waits for credit.
    starved_since: Option<Instant>,
    received: u64,
    applied: u64,
    /// Failed outcomes taken on this connection; `confirm_due`: not confirmed yet.
    failures_count: u64,
    confirm_due: bool,
    partial: Vec<u8>,
    sending: bool,
    control: Vec<u8>,
    pieces: Vec<Piece>,
    spare: Vec<Segment>,
    /// No message has a deadline before this.
    next_expiry: Option<Instant>,
    next_echo: Option<Instant>,
    /// When the last echo was answered, or the lane opened.
    echoed: Instant,
    /// Not before the Tribes lanes to the member are quiet.
    pub(crate) held: bool,
    /// The member leaves: when nothing is left the lane closes.
    pub(crate) draining: bool,
    /// The earliest deadline that the worker has on its heap for this lane.
    pub(crate) timer: Option<Instant>,
}

/// A run of a batch that is being put together.
#[derive(Debug)]
enum Piece {
    /// Bytes of the buffer of heads.
    Head(usize, usize),
    Body(Segment),
}

impl SendStream {
    pub(crate) fn new(
        entry: Arc<MemberEntry>,
        expected: BootId,
        stream: u16,
        class: LaneClass,
    ) -> Self {
        Self {
            entry,
            expected,
            stream,
            class,
            state: State::Idle,
            back_off: BackOff::default(),
            queue: VecDeque::new(),
            chunked: None,
            sent: VecDeque::new(),
            next_sequence: 1,
            next_write: 0,
            waiting: VecDeque::new(),
            end: 0,
            credit: 0,
            granted: 0,
            starved_since: None,
            received: 0,
            applied: 0,
            failures_count: 0,
            confirm_due: false,
            partial: Vec::new(),
            sending: false,
            control: Vec::new(),
            pieces: Vec::new(),
            spare: Vec::new(),
            next_expiry: None,
            next_echo: None,
            echoed: Instant(0),
            held: false,
            draining: false,
            timer: None,
        }
    }

    pub(crate) fn push(&mut self, queued: Queued) {
        if queued.message.mode != AckMode::None {
            let deadline = queued.message.manner.deadline;
            self.next_expiry = Some(self.next_expiry.map_or(deadline, |due| due.min(deadline)));
        }
        self.queue.push_back(queued);
    }

    /// Whether everything is done: nothing queued, nothing unanswered.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.chunked.is_none()
            && self.sent.is_empty()
            && self.waiting.is_empty()
    }

    /// Connects or writes, whatever is due. Returns whether `request` was used for a connection.
    pub(crate) fn pump(&mut self, shared: &Shared, request: u64, io: &mut impl Io) -> bool {
        if self.held {
            return false;
        }
        let wanted = self.class == LaneClass::Reply || !self.is_idle() || !self.control.is_empty();
        match self.state {
            State::BackOff { until } if until > io.now() => false,
            State::Idle | State::BackOff { .. } if wanted && !self.draining => {
                self.state = State::Connecting { request };
                io.connect(request, self.entry.address, shared.bounds.connect_timeout_ms);
                true
            }
            State::Idle | State::BackOff { .. } => {
                self.state = State::Idle;
                false
            }
            State::Open { conn } => {
                self.write(conn, shared, io);
                false
            }
            _ => false,
        }
    }

    /// The connection is there: false if nobody wants it any more.
    pub(crate) fn connected(
        &mut self,
        request: u64,
        conn: ConnId,
        shared: &Shared,
        io: &mut impl Io,
    ) -> bool {
        if self.state != (State::Connecting { request }) {
            return false;
        }
        let until = io.now().plus_ms(shared.bounds.connect_timeout_ms + 1_000);
        self.state = State::Greeting { conn, until };
        self.partial.clear();
        let package = shared.local_package();
        let limits = ringtribe_wire::Limits::default();
        let tribes_id = ringtribe_wire::tribes::Member::decode(&package, &limits)
            .map_or([0; 16], |(member, _)| *member.unique_id);
        let name = shared.bounds.cluster_name.as_bytes();
        let hello = Hello {
            after_cut: self.entry.after_cut.get().is_some(),
            boot_id: shared.boot_id.0,
            expected_boot_id: self.expected.0,
            tribes_id,
            cluster_hash: native::hash(name),
            epoch: self.entry.link.epoch.0,
            stream: self.stream,
            streams: shared.bounds.worker_count,
            lane_class: self.class,
            #[allow(clippy::cast_possible_truncation, reason = "64 KiB")]
            max_frame_bytes: MAX_FRAME_BYTES as u32,
            max_message_bytes: shared.bounds.max_message_bytes as u64,
            next_sequence: self.next_sequence,
            member_package: &package,
            cluster_name: name,
        };
        let mut bytes = BufferMut::with_capacity(1 << 10);
        hello.encode(bytes.vec());
        self.sending = true;
        io.arm_receive(conn);
        io.send(conn, SendBatch { segments: vec![bytes.freeze().into()], skip_bytes: 0 });
        true
    }

    /// The attempt failed; membership looks whether the member is there.
    pub(crate) fn connect_failed(
        &mut self,
        request: u64,
        error: Errno,
        shared: &Shared,
        io: &mut impl Io,
    ) {
        if self.state == (State::Connecting { request }) {
            count(&shared.counters.connect_failures_count, 1);
            let evidence =
                if error.is_refused() { Evidence::Refused } else { Evidence::ConnectionLost };
            io.report(self.entry.id, evidence);
            self.state = State::BackOff { until: self.back_off.next(io.now()) };
        }
    }

    /// One vectored send of everything that may go now.
    fn write(&mut self, conn: ConnId, shared: &Shared, io: &mut impl Io) {
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
    fn note_refused(&mut self) {
        if self.class == LaneClass::Reply || self.queue.is_empty() {
            return;
        }
        if let Some((refused, key)) = self.entry.take_refused(self.stream) {
            let cause = Status::QueueFull;
            self.number(What::Gap { refused, key, cause }, GAP_BYTES);
        }
    }

    fn number(&mut self, what: What, counted_bytes: u64) {
        self.end += counted_bytes;
        self.next_sequence += 1;
        self.sent.push_back(what);
    }

    /// Gives the next frame its number, if there is one that may go: the next piece of the message
    /// that is open, else the next message.
    fn number_next(&mut self, shared: &Shared, now: Instant) -> bool {
        // Small messages slip between the pieces of a large one.
        let piece_first = self.sent.back().is_none_or(|last| !matches!(last, What::Chunk { .. }));
        (piece_first && self.number_piece())
            || self.number_message(shared, now)
            || self.number_piece()
    }

    fn number_piece(&mut self) -> bool {
        let Some(mut open) = self.chunked.take_if(|open| self.granted >= open.first) else {
            return false;
        };
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

    fn number_message(&mut self, shared: &Shared, now: Instant) -> bool {
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
                self.starved_since.get_or_insert(now);
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
        self.starved_since = None;
        false
    }

    /// Writes the head of the frame at `at`, and its body behind it or as a run of its own.
    fn put(&mut self, at: usize, heads: &mut Vec<u8>) -> usize {
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
            key: message.manner.key.map_or(0, crate::ids::Key::to_wire),
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

    /// A send has ended. Returns whether the lane should be pumped.
    pub(crate) fn sent(
        &mut self,
        conn: ConnId,
        mut batch: SendBatch,
        result: Result<usize, Errno>,
        shared: &Shared,
        io: &mut impl Io,
    ) {
        self.sending = false;
        if !matches!(self.state, State::Greeting { .. } | State::Open { .. }) {
            return;
        }
        match result {
            Ok(taken_bytes) if batch.advance(taken_bytes) => {
                self.sending = true;
                count(&shared.counters.sends_count, 1);
                io.send(conn, batch);
            }
            Ok(_) => {
                batch.segments.clear();
                self.spare = batch.segments;
            }
            Err(_) => self.lost(conn, shared, io),
        }
    }

    /// Bytes came from the member.
    pub(crate) fn received(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        shared: &Shared,
        io: &mut impl Io,
    ) {
        count(&shared.counters.received_bytes, bytes.len() as u64);
        self.partial.extend_from_slice(bytes);
        let mut partial = std::mem::take(&mut self.partial);
        let taken = self.take(conn, &partial, shared, io);
        match taken {
            Ok(taken_bytes) => {
                partial.drain(..taken_bytes);
                self.partial = partial;
            }
            Err(text) => {
                count(&shared.counters.bad_input_count, 1);
                shared.deliveries.event(Event::Log {
                    level: LogLevel::Warn,
                    text: format!("connection to {} closed: it sent {text}", self.entry.address),
                });
                self.lost(conn, shared, io);
            }
        }
    }

    fn take(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        shared: &Shared,
        io: &mut impl Io,
    ) -> Result<usize, String> {
        let mut at = 0;
        if matches!(self.state, State::Greeting { .. }) {
            match decode_hello_ack(bytes).map_err(|error| error.to_string())? {
                None => return Ok(0),
                Some((ack, consumed_bytes)) => {
                    at = consumed_bytes;
                    self.greeted(conn, &ack, shared, io)?;
                }
            }
        }
        while let State::Open { .. } = self.state
            && at < bytes.len()
        {
            match decode(&bytes[at..], MAX_FRAME_BYTES).map_err(|error| error.to_string())? {
                Step::NeedMore { .. } => break,
                Step::Frame { frame, consumed_bytes } => {
                    at += consumed_bytes;
                    self.frame(&frame, shared, io)?;
                }
            }
        }
        Ok(at)
    }

    fn greeted(
        &mut self,
        conn: ConnId,
        ack: &native::HelloAck<'_>,
        shared: &Shared,
        io: &mut impl Io,
    ) -> Result<(), String> {
        let status = match ack.status {
            HelloStatus::Ok if ack.boot_id != self.expected.0 => Status::WrongIncarnation,
            HelloStatus::Ok => {
                let held = self.next_sequence - 1 - self.sent.len() as u64;
                if ack.received < held || ack.received >= self.next_sequence {
                    return Err(format!(
                        "a hello answer with received point {} where {held} to {} are possible",
                        ack.received,
                        self.next_sequence - 1
                    ));
                }
                let now = io.now();
                self.state = State::Open { conn };
                self.back_off.connected(now);
                self.failures_count = 0;
                self.confirm_due = false;
                self.credit = self.credit.max(ack.credit);
                self.granted = self.granted.max(ack.granted);
                self.hold_until(ack.received, shared);
                // What failed and is not confirmed lies above this point.
                if ack.applied > self.applied {
                    self.applied = ack.applied;
                    self.ended(0, ack.applied + 1, Status::Ok, shared);
                }
                // The rest goes out again.
                if !self.sent.is_empty() && self.next_write > 0 {
                    count(&shared.counters.resent_count, 1);
                }
                self.next_write =
                    if planted!(shared, ForgottenResend) { self.sent.len() } else { 0 };
                if self.class == LaneClass::Reply {
                    self.echoed = now;
                    self.next_echo = Some(now.plus_ms(shared.bounds.echo_ms));
                    for token in shared.joins.open(self.entry.id) {
                        self.control.extend(Frame::encode_join(token, false));
                    }
                }
                return Ok(());
            }
            HelloStatus::Reset | HelloStatus::OldEpoch => Status::Cut,
            HelloStatus::WrongIncarnation => Status::WrongIncarnation,
            HelloStatus::Closing => Status::Goodbye,
            _ => Status::Protocol,
        };
        count(&shared.counters.refused_hellos_count, 1);
        if status != Status::Goodbye {
            let reason = String::from_utf8_lossy(ack.reason);
            let text = format!(
                "{} refuses our connection ({:?}): {}",
                self.entry.address,
                ack.status,
                reason.escape_debug()
            );
            let level = if status == Status::Protocol { LogLevel::Error } else { LogLevel::Info };
            shared.deliveries.event(Event::Log { level, text });
        }
        io.report(self.entry.id, Evidence::Ended(status));
        self.state = State::Refused;
        io.close(conn, false);
        Ok(())
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        shared: &Shared,
        io: &mut impl Io,
    ) -> Result<(), String> {
        match frame {
            Frame::Ack(ack) => self.ack(ack, shared),
            Frame::EchoReply(echo) => {
                self.echoed = io.now();
                let mut vitals = self.entry.vitals();
                vitals.oldest_unfinished_ms = echo.oldest_ms;
                self.entry.set_vitals(vitals);
                Ok(())
            }
            Frame::Joined { token } => {
                shared.joins.answered(*token, self.entry.id);
                Ok(())
            }
            Frame::Close(close) if close.code == Status::TooBig.number() => {
                self.too_big(close.sequence, shared);
                Err(String::from_utf8_lossy(close.text).escape_debug().to_string())
            }
            Frame::Close(close) => Err(format!(
                "a close with status {}: {}",
                close.code,
                String::from_utf8_lossy(close.text).escape_debug()
            )),
            Frame::Optional { .. } => Ok(()),
            _ => Err("a frame that belongs on the other direction".into()),
        }
    }

    /// The member takes no message as long as the one that begins behind `received`: it fails by
    /// name, and a gap goes in its place.
    fn too_big(&mut self, received: u64, shared: &Shared) {
        let first = self.next_sequence - self.sent.len() as u64;
        let at = (received + 1).checked_sub(first).and_then(|at| usize::try_from(at).ok());
        let Some(frame) = at.and_then(|at| self.sent.get_mut(at)) else { return };
        let What::Chunk { message, from: 0, to } = frame else { return };
        let Some(Chunked { queued, .. }) =
            self.chunked.take_if(|open| Arc::ptr_eq(&open.queued.message, message))
        else {
            return;
        };
        let key = queued.message.manner.key.map_or(0, crate::ids::Key::to_wire);
        // The member counts the bytes of what it takes.
        self.end -= (native::DATA_BYTES + *to) as u64 - GAP_BYTES;
        *frame = What::Gap { refused: 1, key, cause: Status::TooBig };
        if queued.message.mode == AckMode::None {
            shared.undelivered(self.entry.id, Status::TooBig);
        }
        queued.end(Status::TooBig, shared);
    }

    /// The member's engine holds everything up to `received`: the resend copies go.
    fn hold_until(&mut self, received: u64, shared: &Shared) {
        while self.received < received {
            let Some(frame) = self.sent.pop_front() else { break };
            self.received += 1;
            self.next_write = self.next_write.saturating_sub(1);
            let What::Last { queued, .. } = frame else { continue };
            let Queued { message, index, token } = queued;
            if planted!(shared, BudgetKept) {
                std::mem::forget(token);
            } else {
                drop(token);
            }
            let phase = Some(Arc::clone(&message.phase));
            if message.mode == AckMode::Received {
                shared.complete(&message, index, Status::Ok);
            }
            let message = (message.mode == AckMode::Applied).then_some((message, index));
            self.waiting.push_back(Waiting { sequence: self.received, message, phase });
        }
    }

    fn ack(&mut self, ack: &Ack<'_>, shared: &Shared) -> Result<(), String> {
        count(&shared.counters.acks_received_count, 1);
        let highest = self.next_sequence - 1 - (self.sent.len() - self.next_write) as u64;
        if ack.received > highest || ack.applied > ack.received {
            return Err(format!(
                "an ack of {} received and {} applied where {highest} were sent",
                ack.received, ack.applied
            ));
        }
        self.hold_until(ack.received, shared);
        for entry in ack.entries() {
            let first = ack.applied.saturating_add(u64::from(entry.offset));
            let status = match entry.status {
                0 => Status::Ok,
                other => Status::from_number(other).unwrap_or(Status::RemoteFailed),
            };
            if !status.is_ok() {
                self.failures_count += u64::from(entry.count);
                self.confirm_due = true;
            }
            self.ended(first, first.saturating_add(u64::from(entry.count)), status, shared);
        }
        if ack.applied > self.applied {
            self.applied = ack.applied;
            self.ended(0, ack.applied + 1, Status::Ok, shared);
        }
        while self.waiting.front().is_some_and(|waiting| waiting.phase.is_none()) {
            self.waiting.pop_front();
        }
        if ack.credit > self.credit {
            self.credit = ack.credit;
            self.starved_since = None;
        }
        self.granted = self.granted.max(ack.granted);
        Ok(())
    }

    /// The messages with numbers `from..to` have this outcome.
    fn ended(&mut self, from: u64, to: u64, status: Status, shared: &Shared) {
        let at = self.waiting.partition_point(|waiting| waiting.sequence < from);
        for waiting in self.waiting.range_mut(at..) {
            if waiting.sequence >= to {
                break;
            }
            waiting.phase = None;
            if let Some((message, index)) = waiting.message.take() {
                if !status.is_ok() {
                    count(&shared.counters.fail_acks_received_count, 1);
                }
                shared.complete(&message, index, status);
            }
        }
    }

    /// The connection is gone, by the member or because of it.
    pub(crate) fn lost(&mut self, conn: ConnId, shared: &Shared, io: &mut impl Io) {
        let is_ours = matches!(self.state, State::Greeting { conn: ours, .. } | State::Open { conn: ours } if ours == conn);
        if !is_ours {
            return;
        }
        if !self.is_idle() {
            count(&shared.counters.connections_lost_count, 1);
        }
        io.report(self.entry.id, Evidence::ConnectionLost);
        self.state = State::Closing { conn };
        io.close(conn, true);
    }

    /// The kernel holds nothing of the connection any more.
    pub(crate) fn closed(&mut self, conn: ConnId, io: &mut impl Io) {
        if self.state != (State::Closing { conn }) {
            return;
        }
        self.sending = false;
        self.partial.clear();
        self.control.clear();
        self.pieces.clear();
        self.next_echo = None;
        self.state = match self.back_off.after_loss(io.now()) {
            Some(until) => State::BackOff { until },
            None => State::Idle,
        };
    }

    /// When something is due here without anything happening.
    pub(crate) fn deadline(&self, shared: &Shared) -> Option<Instant> {
        let state = match self.state {
            State::BackOff { until } | State::Greeting { until, .. } => Some(until),
            _ => None,
        };
        let stalled = self.starved_since.map(|since| since.plus_ms(shared.bounds.ack_timeout_ms));
        [state, stalled, self.next_expiry, self.next_echo].into_iter().flatten().min()
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
            io.report(self.entry.id, Evidence::Ended(Status::Stalled));
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

    fn expire_messages(&mut self, now: Instant, shared: &Shared, io: &mut impl Io) {
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

    /// The epoch has ended: everything fails by name.
    pub(crate) fn cut(&mut self, status: Status, shared: &Shared, io: &mut impl Io) {
        let mut missed_count = 0;
        let mut fail = |queued: Queued| {
            missed_count += 1;
            if queued.message.mode == AckMode::None
                && queued.message.outcome(queued.index).is_some()
            {
                // It was written, and nobody learns any more whether it arrived.
                shared.undelivered(self.entry.id, status);
            }
            queued.end(status, shared);
        };
        for sent in std::mem::take(&mut self.sent) {
            if let What::Last { queued, .. } = sent {
                fail(queued);
            }
        }
        if let Some(Chunked { queued, .. }) = self.chunked.take() {
            fail(queued);
        }
        std::mem::take(&mut self.queue).into_iter().for_each(fail);
        for Waiting { message, .. } in std::mem::take(&mut self.waiting) {
            if let Some((message, index)) = message {
                missed_count += 1;
                shared.complete(&message, index, status);
            }
        }
        if self.class == LaneClass::Data
            && let Some((refused_count, _)) = self.entry.take_refused(self.stream)
        {
            missed_count += refused_count;
        }
        shared.missed(&self.entry, missed_count);
        if let State::Open { conn } | State::Greeting { conn, .. } = self.state {
            // Who leaves lets what is written arrive.
            io.close(conn, status != Status::Closed);
        }
        self.state = State::Idle;
    }

    /// Asks the member for the join barrier; a lane that is not open asks when it is.
    pub(crate) fn ask_join(&mut self, token: u64) {
        if !matches!(self.state, State::Open { .. }) {
            return;
        }
        self.control.extend(Frame::encode_join(token, false));
    }

    /// Tells the member that this node leaves.
    pub(crate) fn say_goodbye(&mut self, is_final: bool) {
        if !matches!(self.state, State::Open { .. }) {
            return;
        }
        let sequence = self.next_sequence - 1;
        let reason = Status::Goodbye.number();
        self.control.extend(Goodbye { is_final, reason, sequence }.encode());
    }

    /// The open connection, or the one that is being closed.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::Open { conn } | State::Greeting { conn, .. } | State::Closing { conn } => {
                Some(conn)
            }
            _ => None,
        }
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
