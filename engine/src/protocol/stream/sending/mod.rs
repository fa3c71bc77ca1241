//! A stream to a member, and the lane that carries it.
//!
//! Frames get their numbers when they are first written. They are kept until the member's engine
//! holds them, and written again from there on when a connection was lost; messages are kept, without
//! their bytes, until the member says how their listener ended.

mod answers;
mod deadlines;
mod writing;

use std::collections::VecDeque;
use std::sync::Arc;

use ringtribe_wire::native::{
    self, Ack, DataHead, Echo, Frame, Gap, Goodbye, Hello, HelloStatus, LaneClass, MAX_BODY_BYTES,
    MAX_FRAME_BYTES, Step, decode, decode_hello_ack, flags,
};

use crate::buffer::{Buffer, BufferMut, Segment};
use crate::directory::MemberEntry;
use crate::event::{Event, LogLevel};
use crate::ids::{BootId, Instant, Key};
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
    /// Since when there is too little credit for what is, or was, at the front of the queue.
    starved_since: Option<Instant>,
    /// Credit that was left then.
    starved_room: u64,
    /// Since when a large message waits for the member to make room for it, and nothing else was done
    /// with there meanwhile.
    ungranted_since: Option<Instant>,
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
            starved_room: 0,
            ungranted_since: None,
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

    /// Whether it has something to send and no credit for it.
    pub(crate) const fn is_starved(&self) -> bool {
        self.starved_since.is_some()
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
            self.state = State::BackOff {
                until: self.back_off.next(shared.bounds.ack_timeout_ms, io.now()),
            };
        }
    }

    /// A send has ended.
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
    pub(crate) fn closed(&mut self, conn: ConnId, shared: &Shared, io: &mut impl Io) {
        if self.state != (State::Closing { conn }) {
            return;
        }
        self.sending = false;
        self.partial.clear();
        self.control.clear();
        self.pieces.clear();
        self.next_echo = None;
        self.ungranted_since = None;
        self.state = match self.back_off.after_loss(shared.bounds.ack_timeout_ms, io.now()) {
            Some(until) => State::BackOff { until },
            None => State::Idle,
        };
    }

    /// A message will not arrive: it fails by name.
    fn fail(&self, queued: Queued, status: Status, shared: &Shared) {
        if queued.message.mode == AckMode::None && queued.message.outcome(queued.index).is_some() {
            // It was written, and nobody learns any more whether it arrived.
            shared.undelivered(self.entry.id, status);
        }
        queued.end(status, shared);
    }

    /// The epoch has ended: everything fails by name.
    pub(crate) fn cut(&mut self, status: Status, shared: &Shared, io: &mut impl Io) {
        let mut missed_count = 0;
        for sent in std::mem::take(&mut self.sent) {
            if let What::Last { queued, .. } = sent {
                self.fail(queued, status, shared);
                missed_count += 1;
            }
        }
        self.ungranted_since = None;
        if let Some(Chunked { queued, .. }) = self.chunked.take() {
            self.fail(queued, status, shared);
            missed_count += 1;
        }
        for queued in std::mem::take(&mut self.queue) {
            self.fail(queued, status, shared);
            missed_count += 1;
        }
        for Waiting { message, .. } in std::mem::take(&mut self.waiting) {
            if let Some((message, index)) = message
                && !planted!(shared, FailureToNobody)
            {
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
