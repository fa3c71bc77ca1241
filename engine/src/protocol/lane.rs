//! One outgoing connection to a member in the Tribes format: what is queued for it, what is on
//! the wire, and what waits for its acknowledgement.
//!
//! An acknowledgement carries no message id. So a lane never sends anything behind a message that
//! wants one before that one is answered; parallel sends are more lanes. What wants none is
//! written together, as much as is queued.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ringtribe_wire::tribes::{Frame, Step, decode_frame, options};

use crate::budget::BudgetToken;
use crate::ids::{Instant, MemberId};
use crate::io::{ConnId, Errno, Evidence, Io, SendBatch};
use crate::message::{AckMode, Message};
use crate::protocol::back_off;
use crate::shared::{Shared, count, planted};
use crate::status::Status;

/// Most bytes of one vectored send; a larger message still goes in one.
const BATCH_BYTES: usize = 256 << 10;
/// Most segments of one vectored send (IOV_MAX is 1024).
const BATCH_SEGMENTS_COUNT: usize = 512;
/// Pause after a connection was lost with messages on it that may still wait for their listener: the
/// receiver reads the end of the old connection before the new one speaks, which keeps the order.
pub(crate) const SETTLE_MS: u64 = 200;

/// One message queued for one member.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) message: Arc<Message>,
    pub(crate) index: usize,
    /// Held for its drop: it gives the budget back.
    pub(crate) token: BudgetToken,
}

impl Queued {
    /// Writes the outcome and gives the budget back.
    pub(crate) fn end(self, status: Status, shared: &Shared) {
        self.token.end(shared);
        shared.complete(&self.message, self.index, status);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    BackOff {
        until: Instant,
    },
    Connecting {
        request: u64,
    },
    Open {
        conn: ConnId,
    },
    /// Our side is shut down; the member closes the other after its last delivery.
    Finishing {
        conn: ConnId,
        until: Instant,
    },
    /// Closed for the core, but the kernel may still hold a batch.
    Closing {
        conn: ConnId,
        retry: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    member: MemberId,
    address: SocketAddr,
    state: State,
    /// Not yet handed to a send.
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    /// The earliest deadline in the queue, or of something that was in it: behind a message that
    /// has none there may be one that has.
    queue_due: Option<Instant>,
    /// Handed to the send in flight, in order; the front may be partly out.
    writing: VecDeque<Queued>,
    front_sent_bytes: usize,
    sending: bool,
    /// Whole on the wire, its acknowledgement due.
    awaiting: Option<Queued>,
    /// An answer that came before the completion of the send it answers.
    early_answer: Option<Status>,
    received: Vec<u8>,
    /// Messages written on this connection that no later acknowledgement confirmed.
    unconfirmed_count: u64,
    /// Whether messages were written on this connection that may still wait for their listener:
    /// only the acknowledgement of an applied message that is delivered in order tells that all such
    /// before it are done, and one that is given up is not.
    unsettled: bool,
    opened: Instant,
    /// The earliest deadline that the worker has on its heap for this lane.
    pub(crate) timer: Option<Instant>,
    failures_count: u32,
}

/// What a lane asks of its worker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Nothing.
    Nothing,
    /// To be pumped at the end of the turn.
    Pump,
}

impl Lane {
    /// A lane that connects at its first message, but not before `settled`.
    pub(crate) fn new(member: MemberId, address: SocketAddr, settled: Option<Instant>) -> Self {
        Self {
            member,
            address,
            state: settled.map_or(State::Idle, |until| State::BackOff { until }),
            queue: VecDeque::new(),
            queued_bytes: 0,
            queue_due: None,
            writing: VecDeque::new(),
            front_sent_bytes: 0,
            sending: false,
            awaiting: None,
            early_answer: None,
            received: Vec::new(),
            unconfirmed_count: 0,
            unsettled: false,
            opened: Instant(0),
            timer: None,
            failures_count: 0,
        }
    }

    /// Bytes that stand before a new message; a lane that waits for an acknowledgement counts as
    /// longer than one that does not.
    pub(crate) fn load(&self) -> (bool, usize) {
        let busy = self.awaiting.is_some()
            || self.writing.back().is_some_and(|last| last.message.mode != AckMode::None);
        (busy || !self.queue.is_empty(), self.queued_bytes)
    }

    /// Whether nothing is queued or unanswered.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.writing.is_empty() && self.awaiting.is_none()
    }

    /// Ends the lane because the own format follows: in order, after what is queued. Returns whether
    /// it has ended.
    pub(crate) fn finish(&mut self, shared: &Shared, io: &mut impl Io) -> bool {
        match self.state {
            State::Open { conn } if self.is_idle() && !self.sending => {
                io.shut_down_write(conn);
                let until = io.now().plus_ms(shared.bounds.ack_timeout_ms);
                self.state = State::Finishing { conn, until };
                false
            }
            // What its last connection carried may still wait at the member.
            State::BackOff { until } => self.is_idle() && until <= io.now(),
            State::Idle => self.is_idle(),
            State::Connecting { .. } if self.is_idle() => {
                // The connection closes when it comes: nobody wants it any more.
                self.state = State::Idle;
                true
            }
            _ => false,
        }
    }

    /// Whether it ever connected or tries to.
    pub(crate) fn is_used(&self) -> bool {
        self.state != State::Idle
    }

    pub(crate) fn push(&mut self, queued: Queued) {
        self.queued_bytes += queued.message.tribes_frame_bytes();
        self.note_due(&queued);
        self.queue.push_back(queued);
    }

    fn note_due(&mut self, queued: &Queued) {
        if queued.message.mode != AckMode::None {
            let due = queued.message.manner.deadline;
            self.queue_due = Some(self.queue_due.map_or(due, |set| set.min(due)));
        }
    }

    fn pop(&mut self) -> Option<Queued> {
        let queued = self.queue.pop_front()?;
        self.queued_bytes -= queued.message.tribes_frame_bytes();
        Some(queued)
    }

    fn unpop(&mut self, queued: Queued) {
        self.queued_bytes += queued.message.tribes_frame_bytes();
        self.note_due(&queued);
        self.queue.push_front(queued);
    }

    fn is_waiting_for_answer(&self) -> bool {
        self.awaiting.is_some()
            || self.writing.back().is_some_and(|last| last.message.mode != AckMode::None)
    }

    /// Connects or sends, whatever is due. `request` numbers a connection attempt.
    pub(crate) fn pump(&mut self, shared: &Shared, request: u64, io: &mut impl Io) -> bool {
        // What failed meanwhile by its deadline or a cut is not sent any more.
        while self.queue.front().is_some_and(|next| next.message.outcome(next.index).is_some()) {
            drop(self.pop());
        }
        match self.state {
            State::Idle if !self.queue.is_empty() => {
                self.connect(shared, request, io);
                true
            }
            State::BackOff { until } if until <= io.now() => {
                if self.queue.is_empty() {
                    self.state = State::Idle;
                    return false;
                }
                self.connect(shared, request, io);
                true
            }
            State::Open { conn } => {
                self.send(conn, shared, io);
                false
            }
            _ => false,
        }
    }

    fn connect(&mut self, shared: &Shared, request: u64, io: &mut impl Io) {
        self.state = State::Connecting { request };
        io.connect(request, self.address, shared.bounds.connect_timeout_ms);
    }

    /// The attempt succeeded; false if nobody wants the connection any more.
    pub(crate) fn connected(&mut self, request: u64, conn: ConnId, io: &mut impl Io) -> bool {
        if self.state != (State::Connecting { request }) {
            return false;
        }
        self.state = State::Open { conn };
        self.opened = io.now();
        self.received.clear();
        self.unconfirmed_count = 0;
        self.unsettled = false;
        io.arm_receive(conn);
        true
    }

    /// The attempt failed. A refusal, met twice, fails what is queued: nobody listens there.
    pub(crate) fn connect_failed(
        &mut self,
        request: u64,
        error: Errno,
        shared: &Shared,
        io: &mut impl Io,
    ) {
        if self.state != (State::Connecting { request }) {
            return;
        }
        count(&shared.counters.connect_failures_count, 1);
        let refused = error.is_refused();
        io.report(self.member, if refused { Evidence::Refused } else { Evidence::ConnectionLost });
        if refused && self.failures_count > 0 {
            while let Some(queued) = self.pop() {
                queued.end(Status::Refused, shared);
            }
        }
        self.back_off(0, shared, io);
    }

    fn back_off(&mut self, at_least_ms: u64, shared: &Shared, io: &impl Io) {
        let ack_timeout_ms = shared.bounds.ack_timeout_ms;
        let pause_ms = back_off::pause_ms(self.failures_count, ack_timeout_ms).max(at_least_ms);
        self.failures_count += 1;
        self.state = State::BackOff { until: io.now().plus_ms(pause_ms) };
    }

    fn send(&mut self, conn: ConnId, shared: &Shared, io: &mut impl Io) {
        if self.sending || self.is_waiting_for_answer() {
            return;
        }
        let mut batch = SendBatch::default();
        let mut batch_bytes = 0;
        while batch_bytes < BATCH_BYTES && batch.segments.len() < BATCH_SEGMENTS_COUNT {
            let Some(queued) = self.pop() else { break };
            if queued.message.outcome(queued.index).is_some() {
                continue;
            }
            batch_bytes += queued.message.tribes_frame_bytes();
            queued.message.tribes_segments(|segment| batch.segments.push(segment));
            let wants_answer = queued.message.mode != AckMode::None;
            self.writing.push_back(queued);
            if wants_answer {
                break;
            }
        }
        if !self.writing.is_empty() {
            self.sending = true;
            count(&shared.counters.sends_count, 1);
            io.send(conn, batch);
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
    ) -> Ask {
        self.sending = false;
        let taken_bytes = *result.as_ref().unwrap_or(&0);
        self.account_sent(taken_bytes, shared);
        match (result, self.state) {
            (Ok(_), State::Open { .. }) => {
                if batch.advance(taken_bytes) {
                    self.sending = true;
                    count(&shared.counters.sends_count, 1);
                    io.send(conn, batch);
                    return Ask::Nothing;
                }
                Ask::Pump
            }
            (Err(_), State::Open { .. }) => {
                self.lost(conn, shared, io);
                Ask::Nothing
            }
            _ => Ask::Nothing,
        }
    }

    fn account_sent(&mut self, taken_bytes: usize, shared: &Shared) {
        let mut left_bytes = self.front_sent_bytes + taken_bytes;
        while let Some(front) = self.writing.front() {
            let frame_bytes = front.message.tribes_frame_bytes();
            if left_bytes < frame_bytes {
                break;
            }
            left_bytes -= frame_bytes;
            let Some(front) = self.writing.pop_front() else { break };
            count(&shared.counters.frames_sent_count, 1);
            count(&shared.counters.frames_sent_bytes, frame_bytes as u64);
            self.unsettled |= front.message.mode != AckMode::Applied;
            if front.message.mode == AckMode::None {
                self.unconfirmed_count += 1;
                front.end(Status::Ok, shared);
            } else if let Some(status) = self.early_answer.take() {
                self.confirmed(&front.message);
                front.end(status, shared);
            } else {
                self.awaiting = Some(front);
            }
        }
        self.front_sent_bytes = left_bytes;
    }

    /// Bytes came: acknowledgements.
    pub(crate) fn received(
        &mut self,
        conn: ConnId,
        bytes: &[u8],
        shared: &Shared,
        io: &mut impl Io,
    ) -> Ask {
        self.received.extend_from_slice(bytes);
        let limits = ringtribe_wire::Limits { max_frame_bytes: 64, max_member_bytes: 0 };
        let mut at = 0;
        let mut fault = None;
        while at < self.received.len() {
            match decode_frame(&self.received[at..], &limits) {
                Ok(Step::NeedMore { .. }) => break,
                Ok(Step::Frame { frame, consumed_bytes }) => {
                    at += consumed_bytes;
                    let status = match frame {
                        Frame::Ack => Status::Ok,
                        Frame::FailAck => Status::RemoteFailed,
                        Frame::Data(_) => {
                            fault = Some("a data frame where only acknowledgements belong".into());
                            break;
                        }
                    };
                    if !self.answered(status, shared) {
                        count(&shared.counters.unexpected_acks_count, 1);
                        fault = Some("an acknowledgement that no message asked for".into());
                        break;
                    }
                }
                Err(error) => {
                    fault = Some(error.to_string());
                    break;
                }
            }
        }
        self.received.drain(..at);
        if let Some(text) = fault {
            shared.accuse(format_args!("to {}", self.address), &text);
            self.lost(conn, shared, io);
            return Ask::Nothing;
        }
        Ask::Pump
    }

    fn answered(&mut self, status: Status, shared: &Shared) -> bool {
        let counters = &shared.counters;
        if let Some(awaited) = self.awaiting.take() {
            self.confirmed(&awaited.message);
            self.failures_count = 0;
            awaited.end(status, shared);
        } else if self.early_answer.is_none() && self.sending && self.is_waiting_for_answer() {
            self.early_answer = Some(status);
        } else {
            return false;
        }
        count(
            if status.is_ok() {
                &counters.acks_received_count
            } else {
                &counters.fail_acks_received_count
            },
            1,
        );
        true
    }

    /// An acknowledgement proves that all before it arrived, on the same connection.
    fn confirmed(&mut self, message: &Message) {
        self.unconfirmed_count = 0;
        let is_ordered =
            message.manner.short && message.envelope.options & options::BYTE_MESSAGE == 0;
        self.unsettled &= message.mode != AckMode::Applied || !is_ordered;
    }

    /// The connection is gone, by the peer or because of it. What is unanswered or not whole on
    /// the wire goes out again, first, on a new one.
    pub(crate) fn lost(&mut self, conn: ConnId, shared: &Shared, io: &mut impl Io) {
        if let State::Finishing { conn: ours, .. } = self.state
            && ours == conn
        {
            // As asked for: everything before was delivered.
            self.unconfirmed_count = 0;
            self.unsettled = false;
            self.state = State::Closing { conn, retry: false };
            io.close(conn, true);
            return;
        }
        if self.state != (State::Open { conn }) {
            return;
        }
        if self.is_waiting_for_answer() || !self.writing.is_empty() {
            count(&shared.counters.connections_lost_count, 1);
        }
        if io.now().ms_since(self.opened) > back_off::MOST_MS {
            // It worked for long: this is no peer that accepts and closes in a circle.
            self.failures_count = 0;
        }
        io.report(self.member, Evidence::ConnectionLost);
        self.state = State::Closing { conn, retry: true };
        io.close(conn, true);
    }

    /// The kernel holds nothing of the connection any more.
    pub(crate) fn closed(&mut self, conn: ConnId, shared: &Shared, io: &mut impl Io) -> Ask {
        let State::Closing { conn: closing, retry } = self.state else { return Ask::Nothing };
        if closing != conn {
            return Ask::Nothing;
        }
        self.sending = false;
        self.front_sent_bytes = 0;
        self.early_answer = None;
        self.received.clear();
        if planted!(shared, ReversedOnReconnect) {
            self.writing.make_contiguous().reverse();
        }
        while let Some(queued) = self.writing.pop_back() {
            self.unpop(queued);
        }
        if let Some(awaited) = self.awaiting.take() {
            if planted!(shared, ForgottenResend) {
                awaited.end(Status::Ok, shared);
            } else {
                self.unpop(awaited);
            }
        }
        if !self.queue.is_empty() && retry {
            count(&shared.counters.resent_count, 1);
        }
        let unconfirmed_count = std::mem::take(&mut self.unconfirmed_count);
        if unconfirmed_count > 0 {
            count(&shared.counters.unconfirmed_count, unconfirmed_count);
            shared.gap(self.member, false, unconfirmed_count);
        }
        if std::mem::take(&mut self.unsettled) {
            self.back_off(if planted!(shared, NoSettling) { 0 } else { SETTLE_MS }, shared, io);
        } else if self.failures_count == 0 {
            self.failures_count = 1;
            self.state = State::Idle;
        } else {
            self.back_off(0, shared, io);
        }
        Ask::Pump
    }

    /// When something is due here without anything happening.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let back_off = match self.state {
            State::BackOff { until } | State::Finishing { until, .. } => Some(until),
            _ => None,
        };
        // What is on a connection that closes is looked at when the kernel has let go of it.
        let is_open = matches!(self.state, State::Open { .. });
        let on_wire = [self.awaiting.as_ref(), self.writing.back()].into_iter().flatten();
        let waiting = on_wire
            .filter(|queued| is_open && queued.message.mode != AckMode::None)
            .map(|queued| queued.message.manner.deadline);
        waiting.chain(self.queue_due).chain(back_off).min()
    }

    /// Fails what waited too long. A connection whose answer is late is closed, since the answer
    /// would be credited to the next message.
    pub(crate) fn expire(&mut self, shared: &Shared, io: &mut impl Io) -> Ask {
        let now = io.now();
        if let State::Finishing { conn, until } = self.state
            && until <= now
        {
            // What it carried may be missing at the member: a Gap follows.
            self.state = State::Closing { conn, retry: false };
            io.close(conn, true);
        }
        let is_late = |queued: &Queued| {
            queued.message.mode != AckMode::None && queued.message.manner.deadline <= now
        };
        let kept = std::mem::take(&mut self.queue);
        self.queued_bytes = 0;
        self.queue_due = None;
        for queued in kept {
            if is_late(&queued) {
                let open = matches!(self.state, State::Open { .. });
                queued.end(if open { Status::Timeout } else { Status::Unreachable }, shared);
            } else {
                self.queued_bytes += queued.message.tribes_frame_bytes();
                self.note_due(&queued);
                self.queue.push_back(queued);
            }
        }
        let late_on_wire =
            self.awaiting.as_ref().is_some_and(is_late) || self.writing.back().is_some_and(is_late);
        if let (true, State::Open { conn }) = (late_on_wire, self.state) {
            count(&shared.counters.ack_timeouts_count, 1);
            if let Some(awaited) = self.awaiting.take() {
                awaited.end(Status::Timeout, shared);
                if planted!(shared, AckOfAnother) {
                    return Ask::Pump;
                }
            } else if let Some(last) = self.writing.back() {
                // Still with the kernel: its outcome is written now, its budget returns when the
                // kernel lets go.
                shared.complete(&last.message, last.index, Status::Timeout);
            }
            // It may still wait there for its listener, and nothing new may overtake it.
            self.unsettled = true;
            io.report(self.member, Evidence::AckTimeout);
            self.state = State::Closing { conn, retry: false };
            io.close(conn, true);
        }
        Ask::Pump
    }

    /// The epoch has ended: everything fails by name.
    pub(crate) fn cut(&mut self, status: Status, shared: &Shared, io: &mut impl Io) {
        let unsent = std::mem::take(&mut self.queue);
        self.queued_bytes = 0;
        self.queue_due = None;
        let on_wire = std::mem::take(&mut self.writing);
        for queued in self.awaiting.take().into_iter().chain(on_wire).chain(unsent) {
            queued.end(status, shared);
        }
        if let State::Open { conn } | State::Finishing { conn, .. } = self.state {
            io.close(conn, true);
        }
        self.state = State::Idle;
    }

    /// The open connection, or the one that is being closed.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        match self.state {
            State::Open { conn } | State::Finishing { conn, .. } | State::Closing { conn, .. } => {
                Some(conn)
            }
            _ => None,
        }
    }
}
