//! A message on its way down: its bytes, what its sender wants to know, and who waits for it.

use std::sync::{Arc, OnceLock};
use std::time::Instant as WallInstant;

use bytes::Bytes;
use ringtribe_wire::native::{self, ENVELOPE_BYTES};
use ringtribe_wire::tribes;
use smallvec::SmallVec;

use crate::buffer::{Buffer, BufferMut, Segment};
use crate::ids::{Instant, Key, MemberId};
use crate::phase::Phase;
use crate::status::Status;
use crate::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use crate::sync::thread::{Thread, park_timeout};

/// One value for each member of a message: in place for clusters of up to five nodes.
pub type PerMember<T> = SmallVec<[T; 4]>;

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

/// What identifies a message beside its payload (Tribes `ChannelData`).
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    /// Option bits, sent as they are; USE_ACK and SYNCHRONIZED_ACK decide what completes it.
    pub options: i32,
    /// The sender's wall clock, ms since 1970.
    pub timestamp_ms: i64,
    /// Unique id.
    pub unique_id: [u8; 16],
}

impl Envelope {
    /// As it stands on the wire of the own format.
    #[must_use]
    pub const fn to_wire(self) -> native::Envelope {
        native::Envelope {
            timestamp_ms: self.timestamp_ms,
            unique_id: self.unique_id,
            options: self.options,
        }
    }
}

/// The bytes of a message, the same for every member: the envelope and the payload as the own
/// format carries them, and behind the payload the footer that ends a Tribes frame. What differs
/// by format or member, the head, is written by the worker.
#[derive(Debug)]
pub struct Body {
    pooled: Buffer,
    /// A payload that the application handed over; else it stands in `pooled`.
    shared: Option<Bytes>,
    payload_bytes: usize,
}

impl Body {
    /// Room for a payload of `payload_bytes`, zeroed, behind `envelope`.
    pub(crate) fn room(payload_bytes: usize, envelope: &Envelope) -> BufferMut {
        let footer_bytes = tribes::FOOTER.len();
        let mut buffer = BufferMut::with_capacity(ENVELOPE_BYTES + payload_bytes + footer_bytes);
        buffer.vec().extend_from_slice(&envelope.to_wire().encode());
        buffer.vec().resize(ENVELOPE_BYTES + payload_bytes, 0);
        buffer
    }

    /// The body whose payload stands in `buffer`, or is `shared`.
    pub(crate) fn new(mut buffer: BufferMut, shared: Option<Bytes>) -> Self {
        let inside_bytes = buffer.vec().len() - ENVELOPE_BYTES;
        buffer.vec().extend_from_slice(&tribes::FOOTER);
        let payload_bytes = shared.as_ref().map_or(inside_bytes, Bytes::len);
        Self { pooled: buffer.freeze(), shared, payload_bytes }
    }

    /// Length of envelope and payload.
    #[must_use]
    pub const fn length_bytes(&self) -> usize {
        ENVELOPE_BYTES + self.payload_bytes
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match &self.shared {
            Some(shared) => shared,
            None => &self.pooled.as_slice()[ENVELOPE_BYTES..ENVELOPE_BYTES + self.payload_bytes],
        }
    }

    fn part(&self, from: usize, to: usize) -> Segment {
        Segment::Part { buffer: self.pooled.clone(), from, to }
    }

    /// Bytes `from..to` of envelope and payload, in one or two runs.
    pub(crate) fn runs(&self, from: usize, to: usize) -> [&[u8]; 2] {
        match &self.shared {
            None => [&self.pooled.as_slice()[from..to], &[]],
            Some(shared) => [
                &self.pooled.as_slice()[from.min(ENVELOPE_BYTES)..to.min(ENVELOPE_BYTES)],
                &shared[from.max(ENVELOPE_BYTES) - ENVELOPE_BYTES
                    ..to.max(ENVELOPE_BYTES) - ENVELOPE_BYTES],
            ],
        }
    }

    /// As [`Self::runs`], to be kept while the kernel reads them.
    pub(crate) fn segments(&self, from: usize, to: usize, mut add: impl FnMut(Segment)) {
        let Some(shared) = &self.shared else {
            add(self.part(from, to));
            return;
        };
        if from < ENVELOPE_BYTES {
            add(self.part(from, to.min(ENVELOPE_BYTES)));
        }
        if to > ENVELOPE_BYTES {
            let from = from.max(ENVELOPE_BYTES) - ENVELOPE_BYTES;
            add(shared.slice(from..to - ENVELOPE_BYTES).into());
        }
    }

    /// What follows the head in a Tribes frame.
    fn tribes_segments(&self, mut add: impl FnMut(Segment)) {
        let end = self.pooled.as_slice().len();
        match &self.shared {
            None => add(self.part(ENVELOPE_BYTES, end)),
            Some(shared) => {
                add(shared.clone().into());
                add(self.part(ENVELOPE_BYTES, end));
            }
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

/// What a message is, beside its bytes and who gets it.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Its order among others; `None` promises none.
    pub key: Option<Key>,
    /// An answer that somebody waits for: takes the reply lane, never behind data.
    pub reply: bool,
    /// Its listener never waits for another message: may be delivered in a batch.
    pub short: bool,
    /// When it fails as unknown.
    pub deadline: Instant,
}

/// One message to one or more members, immutable but for its outcomes.
#[derive(Debug)]
pub struct Message {
    /// Its bytes.
    pub body: Body,
    /// What identifies it.
    pub envelope: Envelope,
    /// What completes it.
    pub mode: AckMode,
    /// Order and urgency.
    pub manner: Manner,
    /// Where it goes, in the order of the outcomes.
    pub destinations: PerMember<MemberId>,
    /// The time of submission as the join barrier counts it.
    pub(crate) phase: Arc<Phase>,
    tribes_head: OnceLock<Buffer>,
    body_crc: OnceLock<u32>,
    outcomes: PerMember<AtomicU16>,
    pending_count: AtomicU32,
    waiter: Waiter,
}

impl Message {
    /// A message with all outcomes pending.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the directory holds fewer members")]
    pub(crate) fn new(
        body: Body,
        envelope: Envelope,
        manner: Manner,
        destinations: PerMember<MemberId>,
        waiter: Waiter,
        phase: Arc<Phase>,
    ) -> Self {
        let outcomes = destinations.iter().map(|_| AtomicU16::new(PENDING)).collect();
        let pending_count = AtomicU32::new(destinations.len() as u32);
        Self {
            body,
            envelope,
            mode: AckMode::of_options(envelope.options),
            manner,
            destinations,
            phase,
            tribes_head: OnceLock::new(),
            body_crc: OnceLock::new(),
            outcomes,
            pending_count,
            waiter,
        }
    }

    /// Length of the payload.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        self.body.payload_bytes
    }

    /// Writes the head of the Tribes frame, once, whatever the number of members: `package` is the
    /// local member's.
    pub(crate) fn prepare_tribes(&self, package: &[u8]) {
        self.tribes_head.get_or_init(|| {
            let mut head = BufferMut::with_capacity(tribes::data_head_bytes(package.len()));
            let Envelope { options, timestamp_ms, unique_id } = self.envelope;
            let payload_bytes = self.body.payload_bytes;
            tribes::encode_data_head(
                head.vec(),
                options,
                timestamp_ms,
                &unique_id,
                package,
                payload_bytes,
            );
            head.freeze()
        });
    }

    /// The Tribes frame, after [`Self::prepare_tribes`].
    pub(crate) fn tribes_segments(&self, mut add: impl FnMut(Segment)) {
        if let Some(head) = self.tribes_head.get() {
            add(head.clone().into());
        }
        self.body.tribes_segments(add);
    }

    /// Bytes of the whole Tribes frame, after [`Self::prepare_tribes`].
    #[must_use]
    pub(crate) fn tribes_frame_bytes(&self) -> usize {
        let head_bytes = self.tribes_head.get().map_or(0, |head| head.as_slice().len());
        head_bytes + self.body.payload_bytes + tribes::FOOTER.len()
    }

    /// CRC-32C of bytes `from..to` of the body; of the whole body it is computed once.
    pub(crate) fn crc(&self, from: usize, to: usize) -> u32 {
        let compute = || {
            let [first, second] = self.body.runs(from, to);
            native::crc32c(native::crc32c(0, first), second)
        };
        if to - from == self.body.length_bytes() {
            *self.body_crc.get_or_init(compute)
        } else {
            compute()
        }
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

    /// Sleeps until all outcomes are known; only the thread that waits for them calls this. What is
    /// pending at `until` becomes [`Status::Timeout`].
    pub(crate) fn wait(&self, until: WallInstant) {
        while !self.is_complete() {
            let now = WallInstant::now();
            if now >= until {
                for index in 0..self.destinations.len() {
                    let _ = self.complete(index, Status::Timeout);
                }
                return;
            }
            park_timeout(until - now);
        }
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
