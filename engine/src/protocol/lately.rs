//! Recognises a frame that a sender sent again after it lost a connection.
//!
//! A Tribes sender resends only its one outstanding frame, and first on a new connection. So what
//! is kept is the first and the last frame of each connection, for as long as a resend can come;
//! a first frame is compared with the last frames of the sender's other connections. The reverse
//! happens too: bytes of the lost connection may be read after the resent frame, much later if
//! receiving was held back, so the frames of older connections are compared with first frames too.
//!
//! The Tribes unique id alone does not tell: the pieces that `FragmentationInterceptor` makes of
//! one message share it. Length and a hash of the frame decide.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use crate::ids::Instant;
use crate::io::ConnId;
use crate::status::Status;
use crate::sync::{Mutex, MutexGuard};

/// Senders remembered; beyond it the longest silent is forgotten.
const SENDERS_LIMIT_COUNT: usize = 4096;
/// Connections remembered per sender; beyond it the oldest is forgotten.
const CONNECTIONS_LIMIT_COUNT: usize = 256;

/// What tells one frame from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    unique_id: [u8; 16],
    length_bytes: usize,
    hash: u64,
}

impl Digest {
    /// The digest of a message. Not for use against an attacker, who can send what he likes
    /// anyway on an unauthenticated connection.
    #[must_use]
    pub fn of(unique_id: [u8; 16], message: &[u8]) -> Self {
        let mut hash = 0x9e37_79b9_7f4a_7c15_u64 ^ message.len() as u64;
        let mut words = message.chunks_exact(8);
        for word in &mut words {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            hash = mix(hash, u64::from_le_bytes(bytes));
        }
        let mut tail = [0; 8];
        tail[..words.remainder().len()].copy_from_slice(words.remainder());
        Self { unique_id, length_bytes: message.len(), hash: mix(hash, u64::from_le_bytes(tail)) }
    }
}

const fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(23) ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Where a duplicate's acknowledgement has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The worker of the connection.
    pub worker: u16,
    /// The connection.
    pub conn: ConnId,
    /// Number of the frame on it.
    pub sequence: u64,
}

#[derive(Debug)]
enum Fate {
    Running(Vec<Waiting>),
    Ended(Status),
}

/// One remembered frame, shared by all that are the same.
#[derive(Debug)]
pub struct Seen {
    digest: Digest,
    fate: Mutex<Fate>,
}

impl Seen {
    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the outcome of the first copy; returns who waits for it.
    #[must_use]
    pub fn end(&self, status: Status) -> Vec<Waiting> {
        match std::mem::replace(&mut *self.fate(), Fate::Ended(status)) {
            Fate::Running(waiting) => waiting,
            Fate::Ended(_) => Vec::new(),
        }
    }

    /// The outcome of the first copy, or `None` and `who` waits for it.
    #[must_use]
    pub fn outcome_or_wait(&self, who: Waiting) -> Option<Status> {
        match &mut *self.fate() {
            Fate::Ended(status) => Some(*status),
            Fate::Running(waiting) => {
                waiting.push(who);
                None
            }
        }
    }
}

#[derive(Debug, Default)]
struct Connection {
    number: u64,
    closed: Option<Instant>,
    first: Option<(Instant, Arc<Seen>)>,
    last: Option<Arc<Seen>>,
}

/// What is remembered of one connection; its worker holds it.
#[derive(Debug)]
pub struct ConnectionRecord {
    sender: Arc<Sender>,
    number: u64,
}

#[derive(Debug)]
struct Sender {
    connections: Mutex<SenderState>,
    window_ms: u64,
}

#[derive(Debug, Default)]
struct SenderState {
    connections: Vec<Connection>,
    newest_first: Option<(u64, Instant)>,
    touched: Instant,
}

/// Whether a frame is new.
#[derive(Debug)]
pub enum Verdict {
    /// Deliver it; write its outcome into this.
    New(Arc<Seen>),
    /// It was received before: do not deliver it, take the first copy's outcome.
    Duplicate(Arc<Seen>),
}

/// The memory of one node.
#[derive(Debug)]
pub struct Lately {
    senders: Mutex<BTreeMap<[u8; 16], Arc<Sender>>>,
    window_ms: u64,
}

impl Lately {
    /// A memory for senders that give up after `ack_timeout_ms`: a stock sender compares its
    /// timeout only every 5 s, and both ends may wait so long.
    #[must_use]
    pub fn new(ack_timeout_ms: u64) -> Self {
        Self { senders: Mutex::default(), window_ms: 2 * (ack_timeout_ms + 5_000) }
    }

    /// How many senders are remembered.
    #[must_use]
    pub fn senders_count(&self) -> usize {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Starts to remember a connection whose first frame names `sender_id`. `number` must grow
    /// with each connection of this node.
    #[must_use]
    pub fn connected(&self, sender_id: [u8; 16], number: u64, now: Instant) -> ConnectionRecord {
        let sender = {
            let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
            if !senders.contains_key(&sender_id) && senders.len() >= SENDERS_LIMIT_COUNT {
                let silent = senders
                    .iter()
                    .min_by_key(|(_, sender)| sender.state().touched)
                    .map(|(id, _)| *id);
                if let Some(id) = silent {
                    senders.remove(&id);
                }
            }
            let window_ms = self.window_ms;
            let sender = senders
                .entry(sender_id)
                .or_insert_with(|| Arc::new(Sender { connections: Mutex::default(), window_ms }));
            Arc::clone(sender)
        };
        {
            let mut state = sender.state();
            state.touched = now;
            let window_ms = self.window_ms;
            state.connections.retain(|connection| {
                connection.closed.is_none_or(|closed| now.ms_since(closed) < window_ms)
            });
            if state.connections.len() >= CONNECTIONS_LIMIT_COUNT {
                state.connections.remove(0);
            }
            state.connections.push(Connection { number, ..Connection::default() });
        }
        ConnectionRecord { sender, number }
    }
}

impl Sender {
    fn state(&self) -> MutexGuard<'_, SenderState> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionRecord {
    /// Judges the next frame of this connection and remembers it as its last.
    #[must_use]
    pub fn judge(&self, digest: Digest, now: Instant) -> Verdict {
        let window_ms = self.sender.window_ms;
        let mut state = self.sender.state();
        let state = &mut *state;
        let mine = state.connections.iter().position(|c| c.number == self.number);
        let is_first = mine.is_some_and(|at| state.connections[at].first.is_none());
        let is_young = state
            .newest_first
            .is_some_and(|(number, at)| number > self.number && now.ms_since(at) < window_ms);
        let found = if is_first || is_young {
            state.connections.iter().filter(|other| other.number != self.number).find_map(|other| {
                let resent = other.last.as_ref().filter(|_| is_first);
                let overtaken = other
                    .first
                    .as_ref()
                    .filter(|(at, _)| other.number > self.number && now.ms_since(*at) < window_ms)
                    .map(|(_, seen)| seen);
                [resent, overtaken]
                    .into_iter()
                    .flatten()
                    .find(|seen| seen.digest == digest)
                    .cloned()
            })
        } else {
            None
        };
        let is_duplicate = found.is_some();
        let seen = found.unwrap_or_else(|| {
            Arc::new(Seen { digest, fate: Mutex::new(Fate::Running(Vec::new())) })
        });
        if let Some(at) = mine {
            let connection = &mut state.connections[at];
            if is_first {
                connection.first = Some((now, Arc::clone(&seen)));
                state.newest_first = Some((self.number, now));
            }
            connection.last = Some(Arc::clone(&seen));
        }
        if is_duplicate { Verdict::Duplicate(seen) } else { Verdict::New(seen) }
    }

    /// The connection has ended; its last frame is remembered for as long as a resend can come.
    pub fn closed(&self, now: Instant) {
        let mut state = self.sender.state();
        state.touched = now;
        if let Some(mine) = state.connections.iter_mut().find(|c| c.number == self.number) {
            mine.closed = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: [u8; 16] = [9; 16];

    fn at(ms: u64) -> Instant {
        Instant::default().plus_ms(ms)
    }

    fn is_new(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::New(_))
    }

    #[test]
    fn a_resent_frame_shares_the_outcome_of_its_first_copy() {
        let lately = Lately::new(15_000);
        let frame = Digest::of([1; 16], b"update");
        let old = lately.connected(SENDER, 1, at(0));
        assert!(is_new(&old.judge(Digest::of([0; 16], b"before"), at(0))));
        let Verdict::New(first) = old.judge(frame, at(1)) else { panic!("new") };
        old.closed(at(2));
        let new = lately.connected(SENDER, 2, at(39_000));
        let Verdict::Duplicate(again) = new.judge(frame, at(39_000)) else { panic!("resent") };
        let conn = ConnId { slot: 4, generation: 1 };
        let who = Waiting { worker: 1, conn, sequence: 0 };
        assert_eq!(again.outcome_or_wait(who), None, "the first copy still runs");
        assert_eq!(first.end(Status::RemoteFailed), [who]);
        assert_eq!(again.outcome_or_wait(who), Some(Status::RemoteFailed));
        assert!(is_new(&new.judge(frame, at(39_001))), "only a first frame can be a resend");
    }

    #[test]
    fn bytes_of_the_lost_connection_may_come_after_the_resend() {
        let lately = Lately::new(15_000);
        let frame = Digest::of([1; 16], b"update");
        let old = lately.connected(SENDER, 1, at(0));
        let new = lately.connected(SENDER, 2, at(10));
        assert!(is_new(&old.judge(Digest::of([0; 16], b"before"), at(0))));
        assert!(is_new(&new.judge(frame, at(11))));
        assert!(!is_new(&old.judge(frame, at(12))));
    }

    #[test]
    fn pieces_of_one_message_share_their_id_and_are_all_new() {
        let lately = Lately::new(15_000);
        for number in 1..=8 {
            let record = lately.connected(SENDER, number, at(number));
            let mut piece = vec![5; 100];
            piece[99] = u8::try_from(number).expect("small");
            assert!(is_new(&record.judge(Digest::of([1; 16], &piece), at(number))));
        }
        let other_sender = lately.connected([8; 16], 20, at(20));
        let mut piece = vec![5; 100];
        piece[99] = 1;
        assert!(is_new(&other_sender.judge(Digest::of([1; 16], &piece), at(20))));
    }

    #[test]
    fn memory_is_bounded_whatever_connects() {
        let lately = Lately::new(15_000);
        for number in 0..10_000_u64 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(number % 5000).to_be_bytes());
            lately.connected(id, number, at(0)).closed(at(1));
        }
        let senders = lately.senders.lock().expect("unpoisoned");
        assert!(senders.len() <= SENDERS_LIMIT_COUNT);
        drop(senders);
        for number in 0..1000 {
            lately.connected(SENDER, number, at(0)).closed(at(1));
        }
        let record = lately.connected(SENDER, 1000, at(0));
        assert!(record.sender.state().connections.len() <= CONNECTIONS_LIMIT_COUNT);
    }
}
