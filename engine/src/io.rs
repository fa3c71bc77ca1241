//! The seam between the sans-IO core of a worker and what moves its bytes.
//!
//! [`Io`] is implemented three times: by `ring` on io_uring, by `epoll` where that is refused, and
//! by the simulator on a simulated kernel. The core speaks in connection ids and owned segments; it sees no
//! descriptor, no pointer and no clock.

use std::net::SocketAddr;

use crate::buffer::Segment;
use crate::ids::{Instant, MemberId};
use crate::status::Status;

/// A connection of one worker: place and generation, given by the [`Io`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Place in the worker's table.
    pub slot: u32,
    /// Counts the connections that had this place.
    pub generation: u32,
}

/// Longest time that the end of a send is not told ([`Io::send_quietly`]).
pub const QUIET_MS: u64 = 1;

/// What one vectored send carries. The kernel reads the segments until the send completes, so
/// they go to the [`Io`] by value and come back with [`IoEvent::Sent`].
#[derive(Debug, Default)]
pub struct SendBatch {
    /// In the order they go out.
    pub segments: Vec<Segment>,
    /// Bytes at the start of the first segment that are already sent.
    pub skip_bytes: usize,
}

impl SendBatch {
    /// Bytes that remain to be sent.
    #[must_use]
    pub fn remaining_bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.as_slice().len()).sum::<usize>()
            - self.skip_bytes
    }

    /// Takes `sent_bytes` off the front; returns whether anything remains.
    pub fn advance(&mut self, sent_bytes: usize) -> bool {
        let mut skip_bytes = self.skip_bytes + sent_bytes;
        let mut whole_count = 0;
        for segment in &self.segments {
            let length = segment.as_slice().len();
            if skip_bytes < length {
                break;
            }
            skip_bytes -= length;
            whole_count += 1;
        }
        self.segments.drain(..whole_count);
        self.skip_bytes = skip_bytes;
        !self.segments.is_empty()
    }
}

/// An error of the operating system: the errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Whether nobody listens at the address.
    #[must_use]
    pub const fn is_refused(self) -> bool {
        self.0 == 111
    }
}

impl core::fmt::Display for Errno {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// What a worker noticed of a member; membership probes or cuts because of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A connection attempt was refused.
    Refused,
    /// A connection that was open ended.
    ConnectionLost,
    /// It answered an echo: its process runs and the network carries, whatever became of heartbeats.
    Alive,
    /// No acknowledgement within ackTimeout, or no echo within mcastDropTime.
    AckTimeout,
    /// The epoch has to end at once: the member stalled, lost its state, lives no more, or refuses.
    Ended(Status),
}

/// What happened, in the order it happened. At most one send a connection is in flight. After
/// [`Io::close`] comes the [`IoEvent::Sent`] of the send in flight, if there is one, and then one
/// [`IoEvent::Closed`].
#[derive(Debug)]
pub enum IoEvent<'a> {
    /// A connection asked for by [`Io::connect`] is open; receiving is not armed yet.
    Connected {
        /// From the request.
        request: u64,
        /// The new connection.
        conn: ConnId,
    },
    /// It could not be opened.
    ConnectFailed {
        /// From the request.
        request: u64,
        /// Why.
        error: Errno,
    },
    /// A peer connected; receiving is not armed yet.
    Accepted {
        /// The new connection.
        conn: ConnId,
        /// Who connected.
        peer: SocketAddr,
    },
    /// A connection that another worker accepted belongs here ([`Io::hand_over`]); receiving is
    /// not armed yet.
    HandedOver {
        /// The connection, under its id here.
        conn: ConnId,
        /// Who connected.
        peer: SocketAddr,
        /// What was read from it already.
        read: Vec<u8>,
    },
    /// Bytes arrived. They are lent for the call.
    Received {
        /// Where.
        conn: ConnId,
        /// At least one byte.
        bytes: &'a [u8],
    },
    /// Receiving has ended: `None` is the peer's orderly end. Never after [`Io::pause_receive`]
    /// was obeyed, which ends with [`IoEvent::Paused`].
    ReceiveEnded {
        /// Where.
        conn: ConnId,
        /// Why.
        error: Option<Errno>,
    },
    /// Receiving stopped because of [`Io::pause_receive`]; bytes may have come before.
    Paused {
        /// Where.
        conn: ConnId,
    },
    /// A send has ended and gives its segments back, not advanced.
    Sent {
        /// Where.
        conn: ConnId,
        /// What was handed over.
        batch: SendBatch,
        /// Bytes taken by the kernel, at least 1, or why not.
        result: Result<usize, Errno>,
    },
    /// The connection is closed and its id will not be used again.
    Closed {
        /// Which.
        conn: ConnId,
    },
}

/// What the core can ask for. Nothing here blocks; what happens comes back as [`IoEvent`].
pub trait Io {
    /// Now, the same instant for the whole of one event.
    fn now(&self) -> Instant;

    /// A random number, from outside so that a seed replays it.
    fn random(&mut self) -> u64;

    /// Opens a connection to `address`; answered by `Connected` or `ConnectFailed` with
    /// `request`, at the latest after `timeout_ms`.
    fn connect(&mut self, request: u64, address: SocketAddr, timeout_ms: u64);

    /// Receives until told otherwise.
    fn arm_receive(&mut self, conn: ConnId);

    /// Stops receiving, so that TCP holds the peer back; answered by `Paused`.
    fn pause_receive(&mut self, conn: ConnId);

    /// Sends; answered by `Sent`. One at a time a connection.
    fn send(&mut self, conn: ConnId, batch: SendBatch);

    /// As [`Io::send`]; what comes next waits for something else to happen anyway. So `Sent` may come
    /// with that, at most [`QUIET_MS`] later.
    fn send_quietly(&mut self, conn: ConnId, batch: SendBatch) {
        self.send(conn, batch);
    }

    /// Ends our side: the peer reads what was sent and then the end. Not while a send is in flight.
    fn shut_down_write(&mut self, conn: ConnId);

    /// Gives a connection on which nothing is in flight (receiving is paused) to `worker` of this
    /// node, where it arrives as [`IoEvent::HandedOver`]. Its id ends here, without `Closed`.
    fn hand_over(&mut self, conn: ConnId, worker: u16, peer: SocketAddr, read: Vec<u8>);

    /// Closes, abortively if `reset`; answered by `Closed` when nothing is in flight any more.
    fn close(&mut self, conn: ConnId, reset: bool);

    /// Tells membership what was noticed of a member.
    fn report(&mut self, member: MemberId, evidence: Evidence);
}
