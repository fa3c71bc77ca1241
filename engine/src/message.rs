//! A message on its way down: its bytes, what its sender wants to know, and who waits for it.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::thread::Thread;

use crate::buffer::Segment;
use crate::ids::{Instant, Key, MemberId};
use crate::status::Status;

/// What completes a message at a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AckMode {
    /// Handed to the kernel; nothing comes back.
    None,
    /// Acknowledged on receipt, before the listener runs (Tribes USE_ACK).
    Received,
    /// Acknowledged after the listener returned (USE_ACK with SYNCHRONIZED_ACK).
    Applied,
}

impl AckMode {
    /// The mode that the option bits of a Tribes message ask for.
    #[must_use]
    pub const fn of_options(options: i32) -> Self {
        use ringtribe_wire::tribes::options::{SYNCHRONIZED_ACK, USE_ACK};
        if options & USE_ACK == 0 {
            Self::None
        } else if options & SYNCHRONIZED_ACK == 0 {
            Self::Received
        } else {
            Self::Applied
        }
    }
}

/// Who learns that a message is complete.
#[derive(Debug)]
pub enum Waiter {
    /// Nobody.
    None,
    /// A thread that sleeps in the call.
    Thread(Thread),
    /// A completion event with this token goes to the reserved poller.
    Token(u64),
}

/// Outcome not known yet. Outside the range of [`Status`].
const PENDING: u16 = u16::MAX;

/// One message to one or more members, immutable but for its outcomes.
#[derive(Debug)]
pub struct Message {
    /// The frame, ready for the wire: the same bytes for every member.
    pub frame: Vec<Segment>,
    /// Length of the payload.
    pub payload_bytes: usize,
    /// What completes it.
    pub mode: AckMode,
    /// Its order among others; `None` promises none.
    pub key: Option<Key>,
    /// An answer that somebody waits for: takes the reply lane, never behind data.
    pub reply: bool,
    /// When it fails as unknown.
    pub deadline: Instant,
    /// Where it goes, in the order of the outcomes.
    pub destinations: Box<[MemberId]>,
    outcomes: Box<[AtomicU16]>,
    pending_count: AtomicU32,
    waiter: Waiter,
}

impl Message {
    /// A message with all outcomes pending.
    #[must_use]
    #[allow(clippy::too_many_arguments, reason = "built in one place, by Node::send")]
    #[allow(clippy::cast_possible_truncation, reason = "the directory holds fewer members")]
    pub fn new(
        frame: Vec<Segment>,
        payload_bytes: usize,
        mode: AckMode,
        key: Option<Key>,
        reply: bool,
        deadline: Instant,
        destinations: Box<[MemberId]>,
        waiter: Waiter,
    ) -> Self {
        let outcomes = destinations.iter().map(|_| AtomicU16::new(PENDING)).collect();
        let pending_count = AtomicU32::new(destinations.len() as u32);
        Self {
            frame,
            payload_bytes,
            mode,
            key,
            reply,
            deadline,
            destinations,
            outcomes,
            pending_count,
            waiter,
        }
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frame.iter().map(|segment| segment.as_slice().len()).sum()
    }

    /// Writes the outcome at one member. The first one counts: an acknowledgement, a deadline and
    /// a cut may race. Returns the token of a completion event that is due now, if any.
    pub fn complete(&self, destination: usize, status: Status) -> Completed {
        let first = self.outcomes[destination]
            .compare_exchange(PENDING, status.number(), Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if !first {
            return Completed::Late;
        }
        if self.pending_count.fetch_sub(1, Ordering::AcqRel) != 1 {
            return Completed::OthersPending;
        }
        match &self.waiter {
            Waiter::None => Completed::Last(None),
            Waiter::Thread(thread) => {
                thread.unpark();
                Completed::Last(None)
            }
            Waiter::Token(token) => Completed::Last(Some(*token)),
        }
    }

    /// Whether somebody learns the outcomes.
    #[must_use]
    pub const fn is_awaited(&self) -> bool {
        !matches!(self.waiter, Waiter::None)
    }

    /// Whether all outcomes are known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.pending_count.load(Ordering::Acquire) == 0
    }

    /// The outcome at one member, if known.
    #[must_use]
    pub fn outcome(&self, destination: usize) -> Option<Status> {
        Status::from_number(self.outcomes[destination].load(Ordering::Acquire))
    }

    /// The members that failed, with why. What is still pending is not listed.
    #[must_use]
    pub fn failures(&self) -> Vec<(MemberId, Status)> {
        self.destinations
            .iter()
            .enumerate()
            .filter_map(|(n, member)| Some((*member, self.outcome(n)?)))
            .filter(|(_, status)| !status.is_ok())
            .collect()
    }
}

/// What [`Message::complete`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completed {
    /// Another outcome was there before.
    Late,
    /// Written; other members are pending.
    OthersPending,
    /// Written, the last one: a waiting thread is awake, a completion event with the token is due.
    Last(Option<u64>),
}
