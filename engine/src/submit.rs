//! From a caller's payload to an order in a worker's inbox (steps 1 to 4 of a message's life).
//!
//! The steps are functions of their own, `compose`, `route`, `try_admit` and `dispatch`, so that
//! the simulator can run each as one event; [`crate::node::Node`] runs them in the calling thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ringtribe_wire::native::ENVELOPE_BYTES;
use ringtribe_wire::tribes::{self, payload};

use crate::budget::{BudgetToken, MESSAGE_OVERHEAD_BYTES};
use crate::buffer::BufferMut;
use crate::directory::MemberEntry;
use crate::event::{Event, LogLevel};
use crate::ids::{Instant, Key, MemberId, StreamIndex};
pub use crate::message::Envelope;
use crate::message::{Body, Completed, Manner, Message, PerMember, Waiter};
use crate::order::{Destination, Order};
use crate::shared::{Shared, count};
use crate::status::Status;

/// A message that is being filled: the payload is written straight into what goes out.
#[derive(Debug)]
pub struct MessageBuilder {
    buffer: BufferMut,
    envelope: Envelope,
    short: bool,
    shared_payload: Option<Bytes>,
}

impl MessageBuilder {
    /// The payload, zeroed at first; fill it whole.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        self.buffer.vec().get_mut(ENVELOPE_BYTES..).unwrap_or(&mut [])
    }

    /// Says that the listener of this message never waits for another one, so that a poller may
    /// take it with others. A session message of Tomcat that changes a session is known to be so.
    #[must_use]
    pub const fn short(mut self) -> Self {
        self.short = true;
        self
    }
}

/// A message with its destinations fixed, and where each stands.
#[derive(Debug)]
pub struct Routed {
    /// The message.
    pub message: Arc<Message>,
    /// Live destinations with their index; the others have failed by name already.
    pub live: PerMember<(usize, Arc<MemberEntry>)>,
    /// The worker that owns its stream.
    pub worker: u16,
    cost_bytes: usize,
}

/// Members that failed, with why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendFailure {
    /// At least one.
    pub failures: Vec<(MemberId, Status)>,
}

impl std::fmt::Display for SendFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not delivered to {} member(s):", self.failures.len())?;
        for (member, status) in &self.failures {
            write!(f, " [{}.{}: {status}]", member.index, member.generation)?;
        }
        Ok(())
    }
}

impl std::error::Error for SendFailure {}

impl SendFailure {
    /// The same failure for every destination: the call itself was refused.
    #[must_use]
    pub fn all(destinations: &[MemberId], status: Status) -> Self {
        Self { failures: destinations.iter().map(|member| (*member, status)).collect() }
    }
}

/// Whether a payload is a session message whose handler only changes the session. That of a
/// request for all sessions sends for long and waits for acknowledgements.
pub(crate) fn is_short(payload: &[u8]) -> bool {
    matches!(payload::classify(payload), payload::Kind::Session { event } if event != GET_ALL_SESSIONS)
}

/// `ClusterMessage` event of a request for all sessions (`SessionMessage.EVT_GET_ALL_SESSIONS`).
const GET_ALL_SESSIONS: i32 = 4;

impl Shared {
    /// Room for a message of `payload_bytes`.
    ///
    /// # Errors
    /// [`Status::TooBig`] above maxMessageBytes, [`Status::Unsupported`] for the UDP option bit.
    pub fn compose(
        &self,
        payload_bytes: usize,
        envelope: &Envelope,
    ) -> Result<MessageBuilder, Status> {
        self.check(payload_bytes, envelope)?;
        let buffer = Body::room(payload_bytes, envelope);
        Ok(MessageBuilder { buffer, envelope: *envelope, short: false, shared_payload: None })
    }

    /// As [`Shared::compose`] for a payload that is handed over; it is not copied.
    ///
    /// # Errors
    /// As [`Shared::compose`].
    pub fn compose_shared(
        &self,
        payload: Bytes,
        envelope: &Envelope,
    ) -> Result<MessageBuilder, Status> {
        self.check(payload.len(), envelope)?;
        let buffer = Body::room(0, envelope);
        let shared_payload = Some(payload);
        Ok(MessageBuilder { buffer, envelope: *envelope, short: false, shared_payload })
    }

    const fn check(&self, payload_bytes: usize, envelope: &Envelope) -> Result<(), Status> {
        if payload_bytes > self.bounds.max_message_bytes {
            return Err(Status::TooBig);
        }
        if envelope.options & tribes::options::UDP != 0 {
            return Err(Status::Unsupported);
        }
        Ok(())
    }

    /// Fixes key, stream and destinations. A destination that has gone fails by name at once.
    #[must_use]
    pub fn route(
        &self,
        builder: MessageBuilder,
        key: Option<Key>,
        reply: bool,
        destinations: &[MemberId],
        deadline: Instant,
        waiter: Waiter,
    ) -> Routed {
        count(&self.counters.submitted_count, 1);
        let MessageBuilder { buffer, envelope, short, shared_payload } = builder;
        let body = Body::new(buffer, shared_payload);
        let short = short
            || envelope.options & tribes::options::BYTE_MESSAGE == 0 && is_short(body.payload());
        let manner = Manner { key, reply, short, deadline };
        let phase = self.phases.present();
        let payload_bytes = body.payload().len();
        let message =
            Arc::new(Message::new(body, envelope, manner, destinations.into(), waiter, phase));
        let mut live = PerMember::with_capacity(destinations.len());
        for (index, member) in destinations.iter().enumerate() {
            match self.directory.get(*member) {
                Some(entry) => live.push((index, entry)),
                None => self.complete(&message, index, Status::StaleMember),
            }
        }
        let streams = self.bounds.worker_count;
        let StreamIndex(worker) = match key {
            // Reply lanes belong to the first worker.
            _ if reply => StreamIndex(0),
            Some(key) => key.stream(streams),
            None => {
                Key::from_hash(self.next_stream.fetch_add(1, Ordering::Relaxed)).stream(streams)
            }
        };
        let cost_bytes = payload_bytes + MESSAGE_OVERHEAD_BYTES;
        Routed { message, live, worker, cost_bytes }
    }

    /// Writes an outcome, and queues the completion event that may be due with it.
    pub fn complete(&self, message: &Message, index: usize, status: Status) {
        let completed = message.complete(index, status);
        if let Completed::Last(Some(token)) = completed {
            self.deliveries.event(Event::Completed { token, failures: message.failures() });
        }
        if completed != Completed::Late && !status.is_ok() && !message.is_awaited() {
            self.undelivered(message.destinations[index], status);
        }
    }

    /// A live member had no room for a message in time: the next one on its stream is preceded by
    /// a note of that.
    fn refused(&self, entry: &MemberEntry, worker: u16, key: Option<Key>) {
        count(&self.counters.queue_full_count, 1);
        entry.refused(worker, key);
    }

    /// Nobody waits for the outcome of a message: then the log names the member, at the first such
    /// message, the second, the fourth, and so on.
    pub(crate) fn undelivered(&self, member: MemberId, status: Status) {
        let number = self.counters.undelivered_count.fetch_add(1, Ordering::Relaxed) + 1;
        if number.is_power_of_two() {
            let name = self.directory.get(member).map_or_else(
                || format!("a member that has gone ({}.{})", member.index, member.generation),
                |entry| entry.address.to_string(),
            );
            let text = format!(
                "a message to {name} that nobody waits for was not delivered: {status}; {number} so far"
            );
            self.deliveries.event(Event::Log { level: LogLevel::Warn, text });
        }
    }

    /// Hands an admitted message to the worker of its stream: one push, whatever the members.
    pub fn dispatch(&self, routed: Routed, tokens: PerMember<BudgetToken>) {
        let Routed { message, live, worker, .. } = routed;
        if live.is_empty() {
            return;
        }
        let destinations = live
            .into_iter()
            .zip(tokens)
            .map(|((index, entry), token)| Destination { index, entry, token })
            .collect();
        self.orders().push(worker, Order::Send { message, destinations });
    }
}

impl Routed {
    /// Takes room at every live destination, or at none: then the first that has none is named.
    ///
    /// # Errors
    /// The place in `live` of the destination to wait for.
    pub fn try_admit(&self) -> Result<PerMember<BudgetToken>, usize> {
        let mut tokens = PerMember::with_capacity(self.live.len());
        self.admit_from(&mut tokens)?;
        Ok(tokens)
    }

    fn admit_from(&self, tokens: &mut PerMember<BudgetToken>) -> Result<(), usize> {
        for at in tokens.len()..self.live.len() {
            tokens.push(self.live[at].1.budget.try_admit(self.cost_bytes).ok_or(at)?);
        }
        Ok(())
    }

    /// Takes room at every live destination, waiting until `until` where there is none. Who has
    /// no room by then, or is cut meanwhile, fails by name; the others go on.
    pub fn admit(&mut self, shared: &Shared, until: std::time::Instant) -> PerMember<BudgetToken> {
        loop {
            let blocked = match self.try_admit() {
                Ok(tokens) => return tokens,
                Err(blocked) => blocked,
            };
            // Wait for that one holding nothing, then try the others with its room in hand.
            let (index, entry) = &self.live[blocked];
            let status = match entry.budget.wait_admit(self.cost_bytes, until) {
                Ok(token) => {
                    self.live.swap(0, blocked);
                    let mut tokens = PerMember::from_iter([token]);
                    if self.admit_from(&mut tokens).is_ok() {
                        return tokens;
                    }
                    continue;
                }
                Err(crate::budget::Waited::Closed) => entry.ended().unwrap_or(Status::Cut),
                Err(_) => {
                    shared.refused(entry, self.worker, self.message.manner.key);
                    Status::QueueFull
                }
            };
            shared.complete(&self.message, *index, status);
            self.live.remove(blocked);
        }
    }
}
