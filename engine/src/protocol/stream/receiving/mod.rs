//! A stream from a member: frames in, deliveries out, acknowledgements back.
//!
//! The state outlives the connections that carry the stream: a hello for the same epoch goes on
//! where the engine stopped, a newer epoch begins anew.

mod acks;
mod messages;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ringtribe_wire::native::{
    Ack, AckEntry, Close, DataHead, Echo, Envelope, Frame, Hello, HelloAck, HelloStatus,
    MAX_FRAME_BYTES, Step, decode, flags,
};
use ringtribe_wire::tribes::options;

use crate::buffer::{Buffer, BufferMut, Segment};
use crate::delivery::{Incoming, Item, LineId, Origin};
use crate::ids::{BootId, Epoch, Instant};
use crate::io::{ConnId, Errno, Io, SendBatch};
use crate::protocol::half_frame::HalfFrame;
use crate::shared::{Shared, count, planted};
use crate::status::Status;

use super::greeting::Refusal;
use super::outcomes::StreamOutcomes;
use super::reassembly::Reassembly;
use super::reservation::Reservation;

/// Least window of a stream, bytes.
const LEAST_WINDOW_BYTES: u64 = 256 << 10;
/// Failed outcomes that a sender may leave unconfirmed.
const UNCONFIRMED_LIMIT_COUNT: usize = 65_536;
/// The length of a frame stands in its first bytes.
const LENGTH_BYTES: usize = 4;
/// Outcomes that nobody waits for are acknowledged after this at the latest.
const QUIET_MS: u64 = 50;

/// A sender that waits for outcomes learns with them what was received; before, if there is so much.
const UNSAID_LIMIT_BYTES: u64 = 64 << 10;

/// A message without an outcome that was reported.
#[derive(Debug)]
struct Unfinished {
    sequence: u64,
    credit_bytes: u64,
    wants_outcome: bool,
    since: Instant,
    status: Option<Status>,
    /// Its failure stands in an ack of this connection.
    reported: bool,
}

/// What a frame asks its worker to do beside delivering.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The sender asks for the join barrier.
    Join { token: u64 },
    /// The sender leaves.
    Goodbye { is_final: bool },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ReceiveStream {
    /// Number in the node; owner of its lines.
    pub(crate) number: u64,
    pub(crate) boot_id: BootId,
    pub(crate) stream: u16,
    streams: u16,
    worker: u16,
    epoch: Epoch,
    pub(crate) conn: Option<ConnId>,
    pub(crate) peer: SocketAddr,
    package: Arc<[u8]>,
    partial: Option<BufferMut>,
    pub(crate) half: HalfFrame,
    received: u64,
    /// What an ack, or the answer to a hello, has said of it.
    said: u64,
    /// Bytes as the credit counts them: that came, that are done with, that may come.
    counted_bytes: u64,
    finished_bytes: u64,
    limit_bytes: u64,
    granted: u64,
    unfinished: VecDeque<Unfinished>,
    /// Outcomes of pollers, and pieces of large messages, so far.
    moved_count: u64,
    /// Outcomes that no ack of this connection has said.
    news: Vec<(u64, Status)>,
    /// Failed outcomes that the sender has not confirmed, in the order of the acks.
    unconfirmed: VecDeque<(u64, Status)>,
    confirmed_count: u64,
    open: Option<Reassembly>,
    /// A message that was open was given up: this epoch cannot go on.
    given_up: bool,
    /// What came last is a message above maxMessageBytes.
    too_big: bool,
    outcomes: Arc<StreamOutcomes>,
    taken: Vec<(u64, Status)>,
    entries: Vec<AckEntry>,
    /// All outcomes above this point are due, on a new connection.
    report_from: Option<u64>,
    ack_due: bool,
    /// Bytes of frames that no ack has said.
    unsaid_bytes: u64,
    control: Vec<u8>,
    spare: Vec<Segment>,
    sending: bool,
    /// Closes when what is due is out.
    ending: bool,
    next_look: Option<Instant>,
    /// When its last connection ended.
    pub(crate) idle_since: Option<Instant>,
    pub(crate) timer: Option<Instant>,
}

impl ReceiveStream {
    /// A stream that a hello begins.
    pub(crate) fn new(number: u64, worker: u16, hello: &Hello<'_>, peer: SocketAddr) -> Self {
        Self {
            number,
            boot_id: BootId(hello.boot_id),
            stream: hello.stream,
            streams: hello.streams,
            worker,
            epoch: Epoch(hello.epoch),
            conn: None,
            peer,
            package: hello.member_package.into(),
            partial: None,
            half: HalfFrame::default(),
            received: 0,
            said: 0,
            counted_bytes: 0,
            finished_bytes: 0,
            limit_bytes: 0,
            granted: 0,
            unfinished: VecDeque::new(),
            moved_count: 0,
            news: Vec::new(),
            unconfirmed: VecDeque::new(),
            confirmed_count: 0,
            open: None,
            given_up: false,
            too_big: false,
            outcomes: Arc::new(StreamOutcomes::new(worker, number)),
            taken: Vec::new(),
            entries: Vec::new(),
            report_from: None,
            ack_due: false,
            unsaid_bytes: 0,
            control: Vec::new(),
            spare: Vec::new(),
            sending: false,
            ending: false,
            next_look: None,
            idle_since: None,
            timer: None,
        }
    }

    /// Whether a hello begins a newer epoch.
    pub(crate) fn is_before(&self, hello: &Hello<'_>) -> bool {
        Epoch(hello.epoch) > self.epoch
    }

    /// Whether a hello may go on with this stream, or begin a new epoch of it.
    pub(crate) fn judge(&self, hello: &Hello<'_>) -> Result<(), Refusal> {
        let refuse = |status, reason: &str| Err(Refusal { status, reason: reason.into() });
        let epoch = Epoch(hello.epoch);
        if epoch < self.epoch {
            return refuse(HelloStatus::OldEpoch, "a newer epoch of this link is known");
        }
        if epoch == self.epoch && hello.next_sequence <= self.received {
            return refuse(HelloStatus::Reset, "more was received than was ever sent");
        }
        if epoch == self.epoch && self.given_up {
            return refuse(HelloStatus::Reset, "a message that was half here was given up");
        }
        if epoch > self.epoch && hello.next_sequence > 1 {
            return refuse(HelloStatus::Reset, "an epoch that did not begin here goes on");
        }
        Ok(())
    }

    /// A hello that was judged: the connection carries the stream from now on. Returns the
    /// connection that did before.
    pub(crate) fn attach(
        &mut self,
        conn: ConnId,
        hello: &Hello<'_>,
        peer: SocketAddr,
        shared: &Shared,
    ) -> Option<ConnId> {
        let former = self.conn.replace(conn);
        if self.is_before(hello) {
            self.begin(Epoch(hello.epoch), shared);
        } else {
            shared.deliveries.go_on(self.number);
        }
        self.said = self.received;
        self.peer = peer;
        self.idle_since = None;
        if *self.package != *hello.member_package {
            self.package = hello.member_package.into();
        }
        self.partial = None;
        self.half = HalfFrame::default();
        self.control.clear();
        self.sending = false;
        self.ending = false;
        self.confirmed_count = 0;
        self.take_outcomes();
        if planted!(shared, FailureForgotten) {
            self.unconfirmed.clear();
            for message in &mut self.unfinished {
                message.status = message.status.map(|_| Status::Ok);
            }
        }
        self.news.clear();
        let failed_first = self.unconfirmed.iter().map(|(sequence, _)| *sequence).min();
        let applied = self.applied().min(failed_first.map_or(u64::MAX, |first| first - 1));
        self.report_from = Some(applied);
        self.ack_due = applied < self.received;
        self.raise_limit(shared);
        let answer = HelloAck {
            status: HelloStatus::Ok,
            boot_id: shared.boot_id.0,
            epoch: self.epoch.0,
            received: self.received,
            applied,
            credit: self.limit_bytes,
            granted: self.granted,
            #[allow(clippy::cast_possible_truncation, reason = "64 KiB")]
            max_frame_bytes: MAX_FRAME_BYTES as u32,
            reason: b"",
        };
        answer.encode(&mut self.control);
        former
    }

    /// The sender began an epoch; returns whether this stream was in an earlier one.
    pub(crate) fn epoch_begins(&mut self, epoch: Epoch, shared: &Shared) -> bool {
        let is_newer = epoch > self.epoch;
        if is_newer {
            self.begin(epoch, shared);
        }
        is_newer
    }

    /// What belongs to the former epoch ends; what is with pollers goes on there.
    fn begin(&mut self, epoch: Epoch, shared: &Shared) {
        self.drop_open(shared);
        self.drop_failed(shared);
        self.given_up = false;
        self.epoch = epoch;
        self.received = 0;
        self.counted_bytes = 0;
        self.finished_bytes = 0;
        self.limit_bytes = 0;
        self.granted = 0;
        self.unfinished.clear();
        self.unconfirmed.clear();
        self.outcomes = Arc::new(StreamOutcomes::new(self.worker, self.number));
    }

    /// Its sender has reported what it was not told of as failed: no listener gets it any more.
    pub(crate) fn drop_failed(&self, shared: &Shared) {
        let dropped_count = shared.deliveries.end_epoch(&self.outcomes, self.said);
        count(&shared.counters.too_late_count, dropped_count);
    }

    /// The stream never goes on: its sender, if it lives, begins another.
    pub(crate) fn forgotten(mut self, shared: &Shared) {
        self.drop_open(shared);
        let dropped_count = shared.deliveries.forget_stream(&self.outcomes, self.said);
        count(&shared.counters.too_late_count, dropped_count);
    }

    /// An unfinished message will never be whole.
    pub(crate) fn drop_open(&mut self, shared: &Shared) {
        let Some(open) = self.open.take() else { return };
        if open.reservation.is_none() {
            shared.reservations.withdraw(self.number);
        }
        if let Some(line) = open.line {
            shared.deliveries.fill(line, open.first, None);
        }
    }

    /// Bytes came. What is whole goes into `items`.
    pub(crate) fn received(
        &mut self,
        mut bytes: &[u8],
        items: &mut Vec<Item>,
        asked: &mut Vec<Asked>,
        shared: &Shared,
        now: Instant,
    ) -> Result<(), String> {
        count(&shared.counters.received_bytes, bytes.len() as u64);
        if self.ending {
            // A fault came before: what was read until receiving stopped is not looked at.
            return Ok(());
        }
        let mut sink = Sink { items, asked, shared, now };
        while !bytes.is_empty() {
            let Some(mut partial) = self.partial.take() else {
                match decoded(bytes)? {
                    Step::Frame { frame, consumed_bytes } => {
                        self.frame(&frame, consumed_bytes, None, &mut sink)?;
                        bytes = &bytes[consumed_bytes..];
                    }
                    Step::NeedMore { frame_bytes } => {
                        let mut partial =
                            BufferMut::with_capacity(frame_bytes.unwrap_or(0).max(bytes.len()));
                        partial.vec().extend_from_slice(bytes);
                        self.partial = Some(partial);
                        return Ok(());
                    }
                }
                continue;
            };
            let have_bytes = partial.vec().len();
            let frame_bytes = match decoded(partial.vec())? {
                Step::NeedMore { frame_bytes } => frame_bytes,
                Step::Frame { .. } => return Err("a frame that was left over".into()),
            };
            let want_bytes = frame_bytes.unwrap_or(LENGTH_BYTES);
            let take_bytes = bytes.len().min(want_bytes - have_bytes);
            partial.vec().extend_from_slice(&bytes[..take_bytes]);
            bytes = &bytes[take_bytes..];
            if frame_bytes.is_none() || take_bytes < want_bytes - have_bytes {
                self.partial = Some(partial);
                continue;
            }
            let whole = partial.freeze();
            if let Step::Frame { frame, consumed_bytes } = decoded(whole.as_slice())? {
                self.frame(&frame, consumed_bytes, Some(&whole), &mut sink)?;
            }
        }
        Ok(())
    }

    /// Bytes came and were decoded: when to look whether a frame comes along.
    pub(crate) fn came(&mut self, bytes: usize, limit_ms: u64, now: Instant) -> Option<Instant> {
        let half_bytes = self.partial.as_mut().map(|partial| partial.vec().len());
        let is_new = half_bytes.is_some_and(|half_bytes| half_bytes <= bytes);
        self.half.note(bytes, half_bytes.is_some(), is_new, limit_ms, now)
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        frame_bytes: usize,
        whole: Option<&Buffer>,
        sink: &mut Sink<'_>,
    ) -> Result<(), String> {
        match frame {
            Frame::Data { head, body } => self.data(head, body, frame_bytes, whole, sink),
            Frame::Gap(gap) => {
                self.ack_due = true;
                if !self.is_next(gap.sequence, sink.shared)? {
                    return Ok(());
                }
                self.check_credit(frame_bytes as u64)?;
                self.finished_bytes += frame_bytes as u64;
                sink.shared.gap_from(self.boot_id, gap.refused);
                self.taken(gap.sequence, frame_bytes as u64, sink.shared);
                Ok(())
            }
            Frame::Confirm { count } => {
                let new_count = count.saturating_sub(self.confirmed_count);
                let new_count = usize::try_from(new_count).unwrap_or(usize::MAX);
                if new_count > self.unconfirmed.len() {
                    return Err(format!(
                        "a confirmation of {count} outcomes that were not reported"
                    ));
                }
                self.unconfirmed.drain(..new_count);
                self.confirmed_count = *count;
                Ok(())
            }
            Frame::Echo(echo) => {
                // Of the whole node: a reply stream itself has little that could stand still.
                let still_ms = sink.shared.still_ms(sink.now);
                let still_ms = u32::try_from(still_ms).unwrap_or(u32::MAX);
                if self.control.len() < MAX_FRAME_BYTES {
                    let echo = Echo { still_ms, token: echo.token, ..Echo::default() };
                    self.control.extend(echo.encode(true));
                }
                Ok(())
            }
            Frame::Join { token } => {
                sink.asked.push(Asked::Join { token: *token });
                Ok(())
            }
            Frame::Goodbye(goodbye) => {
                sink.asked.push(Asked::Goodbye { is_final: goodbye.is_final });
                Ok(())
            }
            Frame::Close(close) => Err(format!(
                "a close with status {}: {}",
                close.code,
                String::from_utf8_lossy(close.text).escape_debug()
            )),
            Frame::Optional { .. } => Ok(()),
            Frame::Ack(_) | Frame::EchoReply(_) | Frame::Joined { .. } => {
                Err("a frame that belongs on the other direction".into())
            }
        }
    }

    /// Whether a frame is the next one; one that was seen before is acknowledged again.
    fn is_next(&mut self, sequence: u64, shared: &Shared) -> Result<bool, String> {
        if sequence <= self.received {
            self.ack_due = true;
            count(&shared.counters.duplicates_count, 1);
            return Ok(planted!(shared, DuplicateDelivered) && sequence == self.received);
        }
        if sequence != self.received + 1 {
            return Err(format!("frame {sequence} where {} comes next", self.received + 1));
        }
        Ok(true)
    }

    /// A frame is good: only then it counts as received, so that one that is refused comes again.
    fn taken(&mut self, sequence: u64, counted_bytes: u64, shared: &Shared) {
        self.received = sequence;
        self.counted_bytes += counted_bytes;
        count(&shared.counters.frames_received_count, 1);
    }

    fn check_credit(&self, bytes: u64) -> Result<(), String> {
        let counted_bytes = self.counted_bytes + bytes;
        if counted_bytes > self.limit_bytes {
            return Err(format!("{counted_bytes} bytes where its credit is {}", self.limit_bytes));
        }
        Ok(())
    }

    /// Whether the sender leaves too much unconfirmed.
    pub(crate) fn is_over_limit(&self) -> bool {
        self.unconfirmed.len() > UNCONFIRMED_LIMIT_COUNT
    }

    /// A send has ended; false if the connection broke.
    pub(crate) fn sent(
        &mut self,
        mut batch: SendBatch,
        result: Result<usize, Errno>,
        io: &mut impl Io,
    ) -> bool {
        self.sending = false;
        match (result, self.conn) {
            (Ok(sent_bytes), Some(conn)) if batch.advance(sent_bytes) => {
                self.sending = true;
                io.send(conn, batch);
                true
            }
            (result, _) => {
                batch.segments.clear();
                self.spare = batch.segments;
                result.is_ok()
            }
        }
    }

    /// Answers a question of the join barrier.
    pub(crate) fn answer_join(&mut self, token: u64) {
        self.control.extend(Frame::encode_join(token, true));
    }

    /// Says why the connection closes; it does when that is out.
    pub(crate) fn end(&mut self, text: &str) {
        let status =
            if std::mem::take(&mut self.too_big) { Status::TooBig } else { Status::Protocol };
        let close = Close { code: status.number(), sequence: self.received, text: text.as_bytes() };
        close.encode(&mut self.control);
        self.ending = true;
    }

    /// Whether a fault was found and its connection is to close.
    pub(crate) const fn is_ending(&self) -> bool {
        self.ending
    }

    /// The connection is gone.
    pub(crate) fn detach(&mut self, now: Instant) {
        self.conn = None;
        self.partial = None;
        self.sending = false;
        self.control.clear();
        self.idle_since = Some(now);
        self.next_look.get_or_insert(now.plus_ms(QUIET_MS));
    }

    /// When it should be looked at though nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next_look
    }

    /// Looks for outcomes that nobody waits for. A message that is half here while its sender stays
    /// away for ackTimeout is given up: what stands behind it in its line must not wait for ever.
    pub(crate) fn look(&mut self, now: Instant, shared: &Shared) {
        if self.next_look.is_none_or(|due| due > now) {
            return;
        }
        self.take_outcomes();
        self.ack_due |= self.unsaid_bytes > 0;
        let away_ms = self.idle_since.map_or(0, |since| now.ms_since(since));
        if self.open.is_some() && away_ms >= shared.bounds.ack_timeout_ms {
            self.drop_open(shared);
            self.given_up = true;
        }
        // A failure that its sender did not live to learn is nothing to look for.
        let more = self.oldest_since().is_some() || (self.open.is_some() && self.conn.is_none());
        self.next_look = more.then(|| now.plus_ms(QUIET_MS));
    }

    /// Since when the oldest message waits for its outcome.
    pub(crate) fn oldest_since(&self) -> Option<Instant> {
        self.unfinished.iter().find(|m| m.status.is_none()).map(|message| message.since)
    }

    /// Changes when a delivery ends or a piece of a message comes; not for replies.
    pub(crate) fn moved_count(&self) -> u64 {
        if self.stream == self.streams { 0 } else { self.moved_count }
    }

    /// Whether nothing of it is needed: no connection, and no message without an outcome.
    pub(crate) fn is_idle(&self) -> bool {
        self.conn.is_none() && self.oldest_since().is_none()
    }
}

fn decoded(bytes: &[u8]) -> Result<Step<'_>, String> {
    decode(bytes, MAX_FRAME_BYTES).map_err(|error| error.to_string())
}

/// What frames produce.
struct Sink<'a> {
    items: &'a mut Vec<Item>,
    asked: &'a mut Vec<Asked>,
    shared: &'a Shared,
    now: Instant,
}
