//! One accepted connection in the Tribes format: frames in, acknowledgements back.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ringtribe_wire::native::extension::PROBE_ID;
use ringtribe_wire::tribes::{
    self, ChannelData, Frame, Step, TCP_FAILURE_DETECTOR_MAGIC, decode_frame, options, payload,
};

use crate::buffer::{Buffer, BufferMut};
use crate::delivery::{ConnLoad, Incoming, Item, LineId, Origin};
use crate::directory::Identity;
use crate::event::{Event, LogLevel};
use crate::ids::Instant;
use crate::io::{ConnId, Errno, Evidence, Io, SendBatch};
use crate::message::AckMode;
use crate::protocol::foreign::Fault;
use crate::protocol::half_frame::{self, HalfFrame};
use crate::protocol::lately::{ConnectionRecord, Digest, Seen, Verdict, Waiting};
use crate::shared::{Shared, count, planted};
use crate::status::Status;
use crate::submit::is_short;

/// First room for a frame that came in pieces; grows with what arrives, never by a length alone.
const PARTIAL_BYTES: usize = 64 << 10;
/// Acknowledgements written in one send.
const ACKS_LIMIT_COUNT: usize = 512;

/// Acknowledgements that may be due on a connection. A Tribes sender has one message outstanding; this
/// many mean that it does not read what it asked for.
const UNREAD_ACKS_LIMIT_COUNT: usize = 65_536;
/// After receiving was held back: by then what the kernel held, and the end behind it, is read.
const READ_OUT_MS: u64 = 100;

/// An answer that is due, in the order of the frames: it carries no id.
#[derive(Debug)]
struct DueAck {
    sequence: u64,
    seen: Option<Arc<Seen>>,
    status: Option<Status>,
    /// Goes out behind the acknowledgement: who this node is.
    extension: Option<Arc<[u8]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Armed,
    /// Asked to pause; `resume` if it was wanted again before it was obeyed.
    Pausing {
        resume: bool,
    },
    Paused,
    Ended,
}

#[derive(Debug)]
struct SenderCache {
    package: Arc<[u8]>,
    identity: Identity,
    record: ConnectionRecord,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Accepted {
    worker: u16,
    conn: ConnId,
    peer: SocketAddr,
    /// Number among the accepted connections of the node; also its line.
    number: u64,
    partial: Option<BufferMut>,
    half: HalfFrame,
    sender: Option<SenderCache>,
    line_open: bool,
    /// Until then the connection may hold something that was sent before it was lost.
    pub(crate) held_until: Option<Instant>,
    carried_messages: bool,
    next_sequence: u64,
    due: VecDeque<DueAck>,
    sending: bool,
    reading: Reading,
    closing: bool,
    load: Arc<ConnLoad>,
}

impl Accepted {
    pub(crate) fn new(worker: u16, conn: ConnId, peer: SocketAddr, number: u64) -> Self {
        Self {
            worker,
            conn,
            peer,
            number,
            partial: None,
            half: HalfFrame::default(),
            sender: None,
            line_open: false,
            held_until: None,
            carried_messages: false,
            next_sequence: 0,
            due: VecDeque::new(),
            sending: false,
            reading: Reading::Armed,
            closing: false,
            load: Arc::default(),
        }
    }

    /// Bytes came. What is whole goes into `items`.
    pub(crate) fn received(
        &mut self,
        bytes: &[u8],
        items: &mut Vec<Item>,
        lines: &Lines,
        shared: &Shared,
        io: &mut impl Io,
    ) {
        if self.closing {
            return;
        }
        count(&shared.counters.received_bytes, bytes.len() as u64);
        if let Err(fault) = self.decode(bytes, items, lines, shared, io) {
            match fault {
                Fault::Foreign(foreign) => {
                    shared.name_foreign(self.peer, foreign);
                    self.close(true, lines, shared, io);
                }
                Fault::Text(text) => self.refuse(&text, lines, shared, io),
            }
        }
    }

    /// Bytes came and were decoded: when to [`Self::look`] whether a frame comes along.
    pub(crate) fn came(&mut self, bytes: usize, limit_ms: u64, now: Instant) -> Option<Instant> {
        let half_bytes = self.partial.as_mut().map(|partial| partial.vec().len());
        let is_new = half_bytes.is_some_and(|half_bytes| half_bytes <= bytes);
        self.half.note(bytes, half_bytes.is_some(), is_new, limit_ms, now)
    }

    /// Closes the connection if a frame does not come along; else when to look again.
    pub(crate) fn look(
        &mut self,
        is_excused: bool,
        lines: &Lines,
        shared: &Shared,
        io: &mut impl Io,
    ) -> Option<Instant> {
        let limit_ms = shared.bounds.ack_timeout_ms;
        let is_excused = is_excused || self.reading != Reading::Armed;
        match self.half.look(limit_ms, is_excused, io.now()) {
            _ if self.closing => None,
            Ok(due) => due,
            Err(more_bytes) => {
                self.refuse(&half_frame::fault(more_bytes, limit_ms), lines, shared, io);
                None
            }
        }
    }

    /// Who is at the other end.
    pub(crate) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether it is on its way to be closed.
    pub(crate) const fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether it comes from a member, as far as is known.
    pub(crate) fn is_of_member(&self, shared: &Shared) -> bool {
        let sender = self.sender.as_ref();
        sender.is_some_and(|sender| shared.directory.find(&sender.identity).is_some())
    }

    fn decode(
        &mut self,
        mut bytes: &[u8],
        items: &mut Vec<Item>,
        lines: &Lines,
        shared: &Shared,
        io: &mut impl Io,
    ) -> Result<(), Fault> {
        let limits = shared.bounds.wire();
        while !bytes.is_empty() {
            if let Some(mut partial) = self.partial.take() {
                let have_bytes = partial.vec().len();
                let want_bytes = match decode_frame(partial.vec(), &limits) {
                    Ok(Step::NeedMore { frame_bytes: Some(whole_bytes) }) => whole_bytes,
                    // The length stands in the first 11 bytes.
                    Ok(Step::NeedMore { frame_bytes: None }) => 11,
                    Ok(Step::Frame { .. }) => return Err("a frame was left undelivered".into()),
                    Err(error) => return Err(Fault::of_frame(partial.vec(), &error)),
                };
                let take_bytes = bytes.len().min(want_bytes - have_bytes);
                partial.vec().extend_from_slice(&bytes[..take_bytes]);
                bytes = &bytes[take_bytes..];
                let whole = match decode_frame(partial.vec(), &limits) {
                    Ok(Step::NeedMore { .. }) => false,
                    Ok(Step::Frame { .. }) => true,
                    Err(error) => return Err(Fault::of_frame(partial.vec(), &error)),
                };
                if whole {
                    let whole = partial.freeze();
                    if let Ok(Step::Frame { frame, .. }) = decode_frame(whole.as_slice(), &limits) {
                        self.frame(&frame, Some(&whole), items, lines, shared, io)?;
                    }
                } else {
                    self.partial = Some(partial);
                }
                continue;
            }
            match decode_frame(bytes, &limits) {
                Ok(Step::Frame { frame, consumed_bytes }) => {
                    self.frame(&frame, None, items, lines, shared, io)?;
                    bytes = &bytes[consumed_bytes..];
                }
                Ok(Step::NeedMore { frame_bytes }) => {
                    let room_bytes = frame_bytes.unwrap_or(0).min(PARTIAL_BYTES).max(bytes.len());
                    let mut partial = BufferMut::with_capacity(room_bytes);
                    partial.vec().extend_from_slice(bytes);
                    self.partial = Some(partial);
                    bytes = &[];
                }
                Err(error) => return Err(Fault::of_frame(bytes, &error)),
            }
        }
        Ok(())
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        whole: Option<&Buffer>,
        items: &mut Vec<Item>,
        lines: &Lines,
        shared: &Shared,
        io: &mut impl Io,
    ) -> Result<(), String> {
        let Frame::Data(data) = frame else {
            return Err("an acknowledgement on a connection that carries data to this node".into());
        };
        count(&shared.counters.frames_received_count, 1);
        if self.due.len() >= UNREAD_ACKS_LIMIT_COUNT {
            return Err(format!(
                "{UNREAD_ACKS_LIMIT_COUNT} messages that want an acknowledgement without reading any"
            ));
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let mode = AckMode::of_options(data.options);
        if is_probe(data) {
            count(&shared.counters.probes_answered_count, 1);
            self.due_ack(sequence, mode, None, Some(Status::Ok));
            if data.unique_id == PROBE_ID
                && let (true, Some(due)) = (mode != AckMode::None, self.due.back_mut())
            {
                due.extension = Some(shared.extension());
            }
            return Ok(());
        }
        self.carried_messages = true;
        let unique_id = message_id(data.unique_id);
        let now = io.now();
        let sender = match self.sender.take() {
            Some(same) if *same.package == *data.member_package => same,
            _ => SenderCache {
                package: data.member_package.into(),
                identity: Identity::of(&data.member),
                record: shared.lately.connected(*data.member.unique_id, self.number, now),
            },
        };
        let verdict = sender.record.judge(Digest::of(unique_id, data.message), now);
        let package = Arc::clone(&sender.package);
        self.sender = Some(sender);
        let seen = match verdict {
            Verdict::Duplicate(seen) if !planted!(shared, DuplicateDelivered) => {
                count(&shared.counters.duplicates_count, 1);
                let who = Waiting { worker: self.worker, conn: self.conn, sequence };
                let status = match mode {
                    AckMode::Applied => seen.outcome_or_wait(who),
                    _ => Some(Status::Ok),
                };
                self.due_ack(sequence, mode, None, status);
                return Ok(());
            }
            Verdict::New(seen) | Verdict::Duplicate(seen) => seen,
        };
        let wants_outcome = mode == AckMode::Applied && !planted!(shared, AckBeforeApply);
        if !wants_outcome {
            // Nobody waits for the outcome of a frame that is acknowledged on receipt.
            let _ = seen.end(Status::Ok);
        }
        let status = (!wants_outcome).then_some(Status::Ok);
        self.due_ack(sequence, mode, wants_outcome.then_some(seen), status);

        let (buffer, payload_start) = match whole {
            Some(whole) => {
                let tail_bytes = data.message.len() + tribes::FOOTER.len();
                (whole.clone(), whole.as_slice().len() - tail_bytes)
            }
            None => (Buffer::copy_of(data.message), 0),
        };
        let kind = if data.options & options::BYTE_MESSAGE == 0 {
            payload::classify(data.message)
        } else {
            payload::Kind::Bytes
        };
        let (ordered, reply) = match kind {
            payload::Kind::Session { .. } => (is_short(data.message), false),
            payload::Kind::Rpc { reply } => (false, reply),
            payload::Kind::NoRpcReply => (false, true),
            payload::Kind::Bytes | payload::Kind::Other => (false, false),
        };
        let line = ordered.then(|| LineId { owner: self.line(lines, shared), key: 0 });
        // As before: what is ordered here is what changes a session.
        let short = ordered;
        items.push(Item {
            incoming: Incoming {
                sender: package,
                options: data.options,
                timestamp_ms: data.timestamp_ms,
                unique_id,
                buffer,
                payload_start,
                payload_end: payload_start + data.message.len(),
            },
            origin: Origin::Connection {
                worker: self.worker,
                conn: self.conn,
                sequence,
                wants_outcome,
                load: Arc::clone(&self.load),
            },
            line,
            reply,
            short,
        });
        Ok(())
    }

    fn line(&mut self, lines: &Lines, shared: &Shared) -> u64 {
        if !self.line_open {
            self.line_open = true;
            let sender = self.sender.as_ref().map(|sender| sender.identity.unique_id);
            let mut ended = lines.open(sender, self.number);
            // A connection of this sender that is held back may be a lost one.
            if planted!(shared, NoSettling) {
                ended.clear();
            }
            shared.deliveries.open_line(line_of(self.number), ended.into_iter().map(line_of));
        }
        self.number
    }

    fn due_ack(
        &mut self,
        sequence: u64,
        mode: AckMode,
        seen: Option<Arc<Seen>>,
        status: Option<Status>,
    ) {
        if mode != AckMode::None {
            self.due.push_back(DueAck { sequence, seen, status, extension: None });
        }
    }

    /// A listener has ended, or the first copy of a duplicate has. Returns who else waits for it.
    pub(crate) fn outcome(&mut self, sequence: u64, status: Status) -> Vec<Waiting> {
        let Ok(at) = self.due.binary_search_by_key(&sequence, |due| due.sequence) else {
            return Vec::new();
        };
        let due = &mut self.due[at];
        due.status = Some(status);
        due.seen.take().map_or_else(Vec::new, |seen| seen.end(status))
    }

    /// What is still running when the connection goes: its outcome matters to a resend.
    pub(crate) fn running(&mut self) -> impl Iterator<Item = (u64, Arc<Seen>)> {
        self.due.drain(..).filter_map(|due| Some((due.sequence, due.seen?)))
    }

    /// Writes the acknowledgements that are due; closes when the peer has ended and all are out.
    pub(crate) fn flush(&mut self, lines: &Lines, shared: &Shared, io: &mut impl Io) {
        if self.closing || self.sending {
            return;
        }
        let mut acks = None;
        for _ in 0..ACKS_LIMIT_COUNT {
            let Some(status) = self.due.front().and_then(|due| due.status) else { break };
            let extension = self.due.pop_front().and_then(|due| due.extension);
            let bytes = if status.is_ok() {
                count(&shared.counters.acks_sent_count, 1);
                &tribes::ACK
            } else {
                count(&shared.counters.fail_acks_sent_count, 1);
                &tribes::FAIL_ACK
            };
            let acks = acks.get_or_insert_with(|| BufferMut::with_capacity(bytes.len()));
            acks.vec().extend_from_slice(bytes);
            acks.vec().extend_from_slice(extension.as_deref().unwrap_or_default());
        }
        if let Some(acks) = acks {
            self.sending = true;
            let segments = vec![acks.freeze().into()];
            io.send(self.conn, SendBatch { segments, skip_bytes: 0 });
        } else if self.reading == Reading::Ended && self.due.is_empty() && self.is_delivered() {
            self.close(false, lines, shared, io);
        }
    }

    /// Whether every listener has ended; if not, the last one to end brings a resume order. The
    /// sender may wait for our end of the connection before it goes on in another format.
    fn is_delivered(&self) -> bool {
        !self.load.pause()
    }

    /// A send has ended.
    pub(crate) fn sent(
        &mut self,
        mut batch: SendBatch,
        result: Result<usize, Errno>,
        lines: &Lines,
        shared: &Shared,
        io: &mut impl Io,
    ) {
        self.sending = false;
        if self.closing {
            return;
        }
        match result {
            Ok(sent_bytes) => {
                if batch.advance(sent_bytes) {
                    self.sending = true;
                    io.send(self.conn, batch);
                }
            }
            Err(_) => self.close(true, lines, shared, io),
        }
    }

    /// Holds the peer back while too much waits for pollers; whoever has something with a poller
    /// will be resumed by its outcome.
    pub(crate) fn hold_back(&mut self, lines: &Lines, shared: &Shared, io: &mut impl Io) {
        if self.closing || self.reading != Reading::Armed || !shared.deliveries.is_over_limit() {
            return;
        }
        if !self.load.pause() {
            self.load.unpause();
            return;
        }
        count(&shared.counters.receive_pauses_count, 1);
        self.reading = Reading::Pausing { resume: false };
        self.held_until = None;
        // What is not read yet may be ordered, though nothing was so far.
        let line = self.line(lines, shared);
        lines.hold(line, true);
        shared.deliveries.hold_line(line_of(line), true);
        io.pause_receive(self.conn);
    }

    /// What the kernel held of a connection that was held back has been read by now.
    pub(crate) fn release_line(&mut self, lines: &Lines, shared: &Shared) {
        self.held_until = None;
        if self.line_open {
            lines.hold(self.number, false);
            shared.deliveries.hold_line(line_of(self.number), false);
        }
    }

    /// Receiving has stopped as asked.
    pub(crate) fn paused(&mut self, io: &mut impl Io) {
        match self.reading {
            Reading::Pausing { resume: true } => self.arm(io),
            Reading::Pausing { resume: false } => self.reading = Reading::Paused,
            _ => {}
        }
    }

    /// What held the peer back is gone.
    pub(crate) fn resume(&mut self, io: &mut impl Io) {
        match self.reading {
            Reading::Pausing { .. } => self.reading = Reading::Pausing { resume: true },
            Reading::Paused if !self.closing => self.arm(io),
            _ => {}
        }
    }

    fn arm(&mut self, io: &mut impl Io) {
        self.reading = Reading::Armed;
        if self.line_open {
            self.held_until = Some(io.now().plus_ms(READ_OUT_MS));
        }
        io.arm_receive(self.conn);
    }

    /// The peer sends no more, or the connection broke.
    pub(crate) fn receive_ended(
        &mut self,
        error: Option<Errno>,
        lines: &Lines,
        shared: &Shared,
        io: &mut impl Io,
    ) {
        self.reading = Reading::Ended;
        if self.closing {
            return;
        }
        if let Some(mut partial) = self.partial.take() {
            let limits = shared.bounds.wire();
            if let (None, Err(fault)) = (error, tribes::finish(partial.vec(), &limits)) {
                shared.deliveries.event(Event::Log {
                    level: LogLevel::Debug,
                    text: format!("connection from {} ended inside a frame: {fault}", self.peer),
                });
            }
        }
        if error.is_some() {
            self.close(true, lines, shared, io);
        } else {
            self.end_line(lines, shared);
            self.flush(lines, shared, io);
        }
    }

    fn refuse(&mut self, fault: &str, lines: &Lines, shared: &Shared, io: &mut impl Io) {
        shared.accuse(format_args!("from {}", self.peer), fault);
        self.close(true, lines, shared, io);
    }

    fn end_line(&mut self, lines: &Lines, shared: &Shared) {
        if std::mem::take(&mut self.line_open) {
            lines.close(self.number);
            shared.deliveries.close_line(line_of(self.number));
        }
    }

    /// Closes; the worker forgets the connection when the kernel has let go of it.
    pub(crate) fn close(&mut self, reset: bool, lines: &Lines, shared: &Shared, io: &mut impl Io) {
        if std::mem::replace(&mut self.closing, true) {
            return;
        }
        self.end_line(lines, shared);
        if let Some(sender) = &self.sender {
            sender.record.closed(io.now());
            // A probe's own connection proves nothing by ending; a sender's does.
            if let (true, Some(entry)) =
                (self.carried_messages, shared.directory.find(&sender.identity))
            {
                io.report(entry.id, Evidence::ConnectionLost);
            }
        }
        io.close(self.conn, reset);
    }
}

/// The line of a connection.
const fn line_of(number: u64) -> LineId {
    LineId { owner: number, key: 0 }
}

/// A liveness probe of `TcpFailureDetector`, stock's or ours: answered here, not delivered.
fn is_probe(data: &ChannelData<'_>) -> bool {
    data.options & options::BYTE_MESSAGE != 0 && data.message == TCP_FAILURE_DETECTOR_MAGIC
}

/// The id of a message, cut or filled up to the 16 bytes that stock senders always send.
fn message_id(bytes: &[u8]) -> [u8; 16] {
    let mut id = [0; 16];
    let length = bytes.len().min(16);
    id[..length].copy_from_slice(&bytes[..length]);
    id
}

/// The lines of one node by sender, so that the line of a new connection can wait for what lost
/// ones still hold.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    state: std::sync::Mutex<Vec<KnownLine>>,
}

#[derive(Debug)]
struct KnownLine {
    sender: Option<[u8; 16]>,
    line: u64,
    closed: bool,
    /// Receiving is held back: whether the connection is lost is not known.
    held: bool,
}

/// Closed lines remembered; the delivery queue ignores those that are drained.
const LINES_LIMIT_COUNT: usize = 1024;

impl Lines {
    fn state(&self) -> std::sync::MutexGuard<'_, Vec<KnownLine>> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The lines of a sender that begins to speak the own format.
    pub(crate) fn of(&self, sender: [u8; 16]) -> Vec<LineId> {
        let state = self.state();
        let of_sender = state.iter().filter(|known| known.sender == Some(sender));
        of_sender.map(|known| line_of(known.line)).collect()
    }

    /// Notes a line; returns the sender's lines whose connections have ended, or may have.
    fn open(&self, sender: Option<[u8; 16]>, line: u64) -> Vec<u64> {
        let mut state = self.state();
        if state.len() >= LINES_LIMIT_COUNT
            && let Some(oldest) = state.iter().position(|known| known.closed)
        {
            state.remove(oldest);
        }
        let ended = state
            .iter()
            .filter(|k| (k.closed || k.held) && k.sender == sender)
            .map(|k| k.line)
            .collect();
        state.push(KnownLine { sender, line, closed: false, held: false });
        ended
    }

    fn hold(&self, line: u64, held: bool) {
        if let Some(known) = self.state().iter_mut().find(|known| known.line == line) {
            known.held = held;
        }
    }

    fn close(&self, line: u64) {
        if let Some(known) = self.state().iter_mut().find(|known| known.line == line) {
            known.closed = true;
        }
    }
}
