//! What passes the queue: received messages, what each poller is given, and how a poll ends.

use std::sync::Arc;

use super::{ConnLoad, DeliveryQueue};
use crate::buffer::Buffer;
use crate::event::Event;
use crate::io::ConnId;
use crate::protocol::stream::{Reservation, StreamOutcomes};
use crate::status::Status;

/// What a poll needs in the caller's memory beside payload and member package, per message.
pub const RECORD_OVERHEAD_BYTES: usize = 128;

/// Who may take a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollerClass {
    /// Messages.
    General,
    /// Replies and events only; must run no code that can block.
    Reserved,
}

/// A received message.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The sender's member package as it came.
    pub sender: Arc<[u8]>,
    /// Option bits as sent (tribes-protocol: ChannelData).
    pub options: i32,
    /// The sender's wall clock in ms since 1970. Nothing here computes with it.
    pub timestamp_ms: i64,
    /// The message's Tribes unique id.
    pub unique_id: [u8; 16],
    /// The message bytes, `payload_start..payload_end` of the buffer.
    pub buffer: Buffer,
    /// Where the payload starts in the buffer.
    pub payload_start: usize,
    /// Where it ends.
    pub payload_end: usize,
}

impl Incoming {
    /// The message bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_slice()[self.payload_start..self.payload_end]
    }

    /// Bytes that a poll needs at most to hand this over.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        RECORD_OVERHEAD_BYTES + self.sender.len() + self.payload().len()
    }
}

/// Where an outcome has to go.
#[derive(Debug)]
pub enum Origin {
    /// A Tribes connection.
    Connection {
        /// The worker of the connection.
        worker: u16,
        /// The connection; it may be closed by the time of the outcome.
        conn: ConnId,
        /// Number of the message on its connection.
        sequence: u64,
        /// Whether the worker waits for the outcome (an applied acknowledgement is due).
        wants_outcome: bool,
        /// The connection's account.
        load: Arc<ConnLoad>,
    },
    /// A stream of the own format.
    Stream {
        /// Number of the message in its stream.
        sequence: u64,
        /// Whether the sender waits for the outcome.
        wants_outcome: bool,
        /// The stream's outcomes.
        outcomes: Arc<StreamOutcomes>,
        /// The room of a message that came in several frames.
        reservation: Option<Reservation>,
    },
    /// Nobody waits for it.
    Nowhere,
}

/// What has its order: the messages of one key from one sender, or of one Tribes connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LineId {
    /// Number of the stream or connection in its node.
    pub owner: u64,
    /// The key; 0 for a whole connection.
    pub key: u64,
}

/// One delivery on its way to a poller.
#[derive(Debug)]
pub struct Item {
    /// The message.
    pub incoming: Incoming,
    /// Where its outcome goes.
    pub origin: Origin,
    /// Its line; `None` is delivered in parallel.
    pub line: Option<LineId>,
    /// Goes to the reserved poller.
    pub reply: bool,
    /// Its listener never waits for another message.
    pub short: bool,
}

/// A message handed to a poller. Exactly one outcome is written: by [`Delivery::complete`], or by
/// dropping it, which reports [`Status::Abandoned`].
#[derive(Debug)]
pub struct Delivery {
    pub(super) incoming: Incoming,
    pub(super) origin: Origin,
    pub(super) line: Option<LineId>,
    pub(super) queue: Arc<DeliveryQueue>,
    pub(super) done: bool,
}

impl Delivery {
    /// The message.
    #[must_use]
    pub fn incoming(&self) -> &Incoming {
        &self.incoming
    }

    /// Reports the outcome: [`Status::Ok`] if the listener returned without exception.
    pub fn complete(mut self, status: Status) {
        self.finish(status);
    }

    fn finish(&mut self, status: Status) {
        if !std::mem::replace(&mut self.done, true) {
            let origin = std::mem::replace(&mut self.origin, Origin::Nowhere);
            self.queue.finish(origin, self.line, self.incoming.record_bytes(), status);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.finish(Status::Abandoned);
    }
}

/// What a poller gets.
#[derive(Debug)]
pub enum Polled {
    /// A message.
    Message(Delivery),
    /// An event; only for the reserved poller.
    Event(Event),
}

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollEnd {
    /// Something was taken. `more_pollers`: no general poller is left that waits; if the maximum
    /// is not reached another should start before this one runs a listener.
    Taken {
        /// Whether another poller should start.
        more_pollers: bool,
    },
    /// Nothing came in time.
    TimedOut,
    /// The next delivery needs this many bytes; it stays queued.
    Need(usize),
    /// The node is closed and everything was taken.
    Closed,
}
