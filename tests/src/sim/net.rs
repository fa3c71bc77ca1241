//! A simulated kernel and network: connections that are slow, short of room, and lost at any byte.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use ringtribe::ids::{Instant, MemberId};
use ringtribe::io::{ConnId, Errno, Evidence, Io, SendBatch};

use super::random::Random;

/// A worker of a node in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) node: usize,
    pub(super) life: u32,
    pub(super) worker: usize,
}

const ECONNRESET: Errno = Errno(104);
const ECONNREFUSED: Errno = Errno(111);
const ECANCELED: Errno = Errno(125);
/// Longest time between the loss of a connection and its end at either side. The engine lets a
/// connection with unconfirmed messages settle for longer before it speaks on a new one.
const LOSS_MOST_NS: u64 = 20_000_000;

/// How unkind the network is; chances are per thousand.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// A send after which the connection is lost, somewhere inside it.
    pub lose_connection: u64,
    /// A heartbeat that is lost.
    pub lose_datagram: u64,
    /// Crashes of a node during the history, at most.
    pub crashes_count: u64,
    /// A listener that fails.
    pub fail_listener: u64,
}

impl Faults {
    /// A kind network.
    pub const NONE: Self =
        Self { lose_connection: 0, lose_datagram: 0, crashes_count: 0, fail_listener: 0 };

    /// Whether nothing goes wrong.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.lose_connection + self.lose_datagram + self.crashes_count + self.fail_listener == 0
    }

    /// What a seed asks for: some histories are kind, most are not.
    #[must_use]
    pub const fn of(seed: u64) -> Self {
        match seed % 5 {
            0 => Self::NONE,
            1 => Self { lose_connection: 20, ..Self::NONE },
            2 => {
                Self { lose_connection: 60, lose_datagram: 50, crashes_count: 0, fail_listener: 50 }
            }
            3 => {
                Self { lose_connection: 5, lose_datagram: 50, crashes_count: 3, fail_listener: 20 }
            }
            _ => Self {
                lose_connection: 30,
                lose_datagram: 100,
                crashes_count: 2,
                fail_listener: 10,
            },
        }
    }
}

/// What happens to a worker.
#[derive(Debug)]
pub(super) enum Occurrence {
    Connected {
        request: u64,
        conn: ConnId,
    },
    ConnectFailed {
        request: u64,
        error: Errno,
    },
    Accepted {
        conn: ConnId,
        peer: SocketAddr,
    },
    HandedOver {
        conn: ConnId,
        peer: SocketAddr,
        read: Vec<u8>,
    },
    /// Look whether bytes are there for it.
    Readable {
        conn: ConnId,
    },
    Paused {
        conn: ConnId,
    },
    Sent {
        conn: ConnId,
        batch: SendBatch,
        result: Result<usize, Errno>,
    },
    Closed {
        conn: ConnId,
    },
}

/// What leaves the kernel.
#[derive(Debug)]
pub(super) enum Effect {
    At { at: u64, place: Place, what: Occurrence },
    Connect { from: Place, request: u64, address: SocketAddr },
    Evidence { node: usize, member: MemberId, evidence: Evidence },
}

/// One direction of a connection, as its reader sees it.
#[derive(Debug, Default)]
struct Pipe {
    /// Bytes and when they arrive.
    bytes: VecDeque<(u64, Vec<u8>)>,
    held_bytes: usize,
    /// How it ends after the bytes, and when.
    end: Option<(u64, Option<Errno>)>,
}

#[derive(Debug)]
struct End {
    place: Place,
    peer: Option<(Place, ConnId)>,
    incoming: Pipe,
    armed: bool,
    ended: bool,
    waiting_send: Option<SendBatch>,
    sends_in_flight: usize,
    closing: bool,
    room_bytes: usize,
}

/// All connections of a history.
#[derive(Debug, Default)]
pub(super) struct Net {
    ends: BTreeMap<(Place, ConnId), End>,
    next_slot: u32,
}

impl Net {
    fn new_end(&mut self, place: Place, random: &mut Random) -> ConnId {
        let conn = ConnId { slot: self.next_slot, generation: 1 };
        self.next_slot += 1;
        let room_bytes = [300, 4_000, 100_000][random.index(3)];
        let end = End {
            place,
            peer: None,
            incoming: Pipe::default(),
            armed: false,
            ended: false,
            waiting_send: None,
            sends_in_flight: 0,
            closing: false,
            room_bytes,
        };
        self.ends.insert((place, conn), end);
        conn
    }

    /// Opens a connection between two workers; both learn of it.
    #[allow(clippy::too_many_arguments, reason = "the kernel's side of one call")]
    pub(super) fn open(
        &mut self,
        from: Place,
        to: Place,
        request: u64,
        peer: SocketAddr,
        now: u64,
        random: &mut Random,
        effects: &mut Vec<Effect>,
    ) {
        let a = self.new_end(from, random);
        let b = self.new_end(to, random);
        if let Some(end) = self.ends.get_mut(&(from, a)) {
            end.peer = Some((to, b));
        }
        if let Some(end) = self.ends.get_mut(&(to, b)) {
            end.peer = Some((from, a));
        }
        let at = now + random.between(1_000, 200_000);
        effects.push(Effect::At {
            at,
            place: from,
            what: Occurrence::Connected { request, conn: a },
        });
        let at = now + random.between(1_000, 200_000);
        effects.push(Effect::At { at, place: to, what: Occurrence::Accepted { conn: b, peer } });
    }

    /// What a connection has for its reader now: bytes, or its end.
    pub(super) fn read(
        &mut self,
        place: Place,
        conn: ConnId,
        now: u64,
        random: &mut Random,
        effects: &mut Vec<Effect>,
    ) -> Option<Result<Vec<u8>, Option<Errno>>> {
        let end = self.ends.get_mut(&(place, conn))?;
        if !end.armed || end.ended || end.closing {
            return None;
        }
        if let Some((at, bytes)) = end.incoming.bytes.front_mut()
            && *at <= now
        {
            // Any split is allowed: often everything, sometimes one byte.
            let whole = bytes.len() as u64;
            let take = if random.chance(300) { random.between(1, whole) } else { whole };
            let take = usize::try_from(take).unwrap_or(1);
            let rest = bytes.split_off(take);
            let taken = std::mem::replace(bytes, rest);
            if bytes.is_empty() {
                end.incoming.bytes.pop_front();
            }
            end.incoming.held_bytes -= taken.len();
            let writer = end.peer;
            let next = now + random.between(1, 20_000);
            effects.push(Effect::At { at: next, place, what: Occurrence::Readable { conn } });
            if let Some((place, conn)) = writer {
                self.continue_send(place, conn, now, random, effects);
            }
            return Some(Ok(taken));
        }
        match end.incoming.end {
            Some((at, how)) if end.incoming.bytes.is_empty() && at <= now => {
                end.ended = true;
                Some(Err(how))
            }
            Some((at, _)) => {
                let at = at.max(now + 1);
                effects.push(Effect::At { at, place, what: Occurrence::Readable { conn } });
                None
            }
            None => None,
        }
    }

    fn continue_send(
        &mut self,
        place: Place,
        conn: ConnId,
        now: u64,
        random: &mut Random,
        effects: &mut Vec<Effect>,
    ) {
        let Some(end) = self.ends.get_mut(&(place, conn)) else { return };
        let Some(batch) = end.waiting_send.take() else { return };
        self.send(place, conn, batch, now, random, 0, effects);
    }

    /// Writes what there is room for; the writer learns how much. Sometimes the connection is lost
    /// somewhere inside.
    #[allow(clippy::too_many_arguments, reason = "the kernel's side of one call")]
    fn send(
        &mut self,
        place: Place,
        conn: ConnId,
        batch: SendBatch,
        now: u64,
        random: &mut Random,
        lose_per_mille: u64,
        effects: &mut Vec<Effect>,
    ) {
        let Some(end) = self.ends.get_mut(&(place, conn)) else { return };
        let room_bytes = end.room_bytes;
        let peer = end.peer;
        end.sends_in_flight = 1;
        let answer = |result, batch, random: &mut Random, effects: &mut Vec<Effect>| {
            let at = now + random.between(500, 50_000);
            effects.push(Effect::At { at, place, what: Occurrence::Sent { conn, batch, result } });
        };
        let Some(other) = peer.and_then(|key| self.ends.get_mut(&key)) else {
            answer(Err(ECONNRESET), batch, random, effects);
            return;
        };
        if other.incoming.end.is_some() || other.closing {
            answer(Err(ECONNRESET), batch, random, effects);
            return;
        }
        let left_bytes = room_bytes.saturating_sub(other.incoming.held_bytes);
        if left_bytes == 0 {
            if let Some(end) = self.ends.get_mut(&(place, conn)) {
                end.waiting_send = Some(batch);
            }
            return;
        }
        let most = batch.remaining_bytes().min(left_bytes) as u64;
        let take = if random.chance(200) { random.between(1, most) } else { most };
        let mut bytes = Vec::new();
        let mut skip_bytes = batch.skip_bytes;
        for segment in &batch.segments {
            bytes.extend_from_slice(&segment.as_slice()[skip_bytes..]);
            skip_bytes = 0;
            if bytes.len() as u64 >= take {
                break;
            }
        }
        bytes.truncate(usize::try_from(take).unwrap_or(0));
        let sent_bytes = bytes.len();
        let lost = random.chance(lose_per_mille);
        if lost {
            // The writer believes that it wrote all of it.
            bytes.truncate(usize::try_from(random.below(take + 1)).unwrap_or(0));
        }
        let last = other.incoming.bytes.back().map_or(0, |(at, _)| *at);
        let arrives = (now + random.between(1_000, 2_000_000)).max(last);
        if !bytes.is_empty() {
            other.incoming.held_bytes += bytes.len();
            other.incoming.bytes.push_back((arrives, bytes));
        }
        if let Some((place, conn)) = peer {
            effects.push(Effect::At { at: arrives, place, what: Occurrence::Readable { conn } });
        }
        answer(Ok(sent_bytes), batch, random, effects);
        if lost {
            self.lose(place, conn, now, random, effects);
        }
    }

    /// Both sides will find the connection reset, each in its time, after what arrived before.
    fn lose(
        &mut self,
        place: Place,
        conn: ConnId,
        now: u64,
        random: &mut Random,
        effects: &mut Vec<Effect>,
    ) {
        let peer = self.ends.get(&(place, conn)).and_then(|end| end.peer);
        for key in [Some((place, conn)), peer].into_iter().flatten() {
            let at = now + random.between(1_000, LOSS_MOST_NS);
            if let Some(end) = self.ends.get_mut(&key) {
                end.incoming.end.get_or_insert((at, Some(ECONNRESET)));
                // What is in flight arrives no later than the end.
                for (arrives, _) in &mut end.incoming.bytes {
                    *arrives = (*arrives).min(at);
                }
                let what = Occurrence::Readable { conn: key.1 };
                effects.push(Effect::At { at, place: key.0, what });
                if let Some(batch) = end.waiting_send.take() {
                    let result = Err(ECONNRESET);
                    let what = Occurrence::Sent { conn: key.1, batch, result };
                    effects.push(Effect::At { at, place: key.0, what });
                }
            }
        }
    }

    /// A connection goes to another worker of its node; it keeps its id.
    fn hand_over(&mut self, from: Place, conn: ConnId, to: Place) {
        let Some(mut end) = self.ends.remove(&(from, conn)) else { return };
        end.place = to;
        if let Some(other) = end.peer.and_then(|key| self.ends.get_mut(&key)) {
            other.peer = Some((to, conn));
        }
        self.ends.insert((to, conn), end);
    }

    /// Its reader finds the end behind what was sent.
    fn shut_down_write(
        &mut self,
        place: Place,
        conn: ConnId,
        now: u64,
        random: &mut Random,
        effects: &mut Vec<Effect>,
    ) {
        let Some((place, conn)) = self.ends.get(&(place, conn)).and_then(|end| end.peer) else {
            return;
        };
        if let Some(other) = self.ends.get_mut(&(place, conn)) {
            let last = other.incoming.bytes.back().map_or(0, |(at, _)| *at);
            let at = (now + random.between(1_000, LOSS_MOST_NS)).max(last);
            other.incoming.end.get_or_insert((at, None));
            effects.push(Effect::At { at, place, what: Occurrence::Readable { conn } });
        }
    }

    /// A send was reported to its worker.
    pub(super) fn send_reported(&mut self, place: Place, conn: ConnId) {
        if let Some(end) = self.ends.get_mut(&(place, conn)) {
            end.sends_in_flight = 0;
        }
    }

    fn close(
        &mut self,
        place: Place,
        conn: ConnId,
        reset: bool,
        now: u64,
        random: &mut Random,
        effects: &mut Vec<Effect>,
    ) {
        let Some(end) = self.ends.get_mut(&(place, conn)) else { return };
        if std::mem::replace(&mut end.closing, true) {
            return;
        }
        let mut at = now + random.between(500, 50_000);
        if let Some(batch) = end.waiting_send.take() {
            let what = Occurrence::Sent { conn, batch, result: Err(ECANCELED) };
            effects.push(Effect::At { at, place, what });
        }
        if end.sends_in_flight > 0 {
            // Its own report comes first: nothing is scheduled later than this.
            at = now + 60_000;
        }
        effects.push(Effect::At { at: at + 1, place, what: Occurrence::Closed { conn } });
        let Some((place, conn)) = end.peer else { return };
        if let Some(other) = self.ends.get_mut(&(place, conn)) {
            let last = other.incoming.bytes.back().map_or(0, |(at, _)| *at);
            let at = (now + random.between(1_000, LOSS_MOST_NS)).max(last);
            other.incoming.end.get_or_insert((at, reset.then_some(ECONNRESET)));
            effects.push(Effect::At { at, place, what: Occurrence::Readable { conn } });
        }
    }

    /// The kernel has let go of a connection.
    pub(super) fn forget(&mut self, place: Place, conn: ConnId) {
        self.ends.remove(&(place, conn));
    }

    /// A node crashed: its side is gone, the others find out.
    pub(super) fn crash(
        &mut self,
        node: usize,
        life: u32,
        now: u64,
        random: &mut Random,
        effects: &mut Vec<Effect>,
    ) {
        let gone: Vec<_> = self
            .ends
            .keys()
            .filter(|(place, _)| place.node == node && place.life == life)
            .copied()
            .collect();
        for (place, conn) in &gone {
            self.lose(*place, *conn, now, random, effects);
        }
        for key in gone {
            self.ends.remove(&key);
        }
    }

    /// Connections of a node that are not closed.
    pub(super) fn count(&self, node: usize) -> usize {
        self.ends.values().filter(|end| end.place.node == node).count()
    }
}

/// The kernel as one worker sees it.
pub(super) struct SimIo<'a> {
    pub(super) net: &'a mut Net,
    pub(super) random: &'a mut Random,
    pub(super) place: Place,
    pub(super) now: u64,
    pub(super) faults: Faults,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Io for SimIo<'_> {
    fn now(&self) -> Instant {
        Instant(self.now)
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }

    fn connect(&mut self, request: u64, address: SocketAddr, _timeout_ms: u64) {
        self.effects.push(Effect::Connect { from: self.place, request, address });
    }

    fn arm_receive(&mut self, conn: ConnId) {
        if let Some(end) = self.net.ends.get_mut(&(self.place, conn)) {
            end.armed = true;
            let what = Occurrence::Readable { conn };
            self.effects.push(Effect::At { at: self.now + 1, place: self.place, what });
        }
    }

    fn pause_receive(&mut self, conn: ConnId) {
        if let Some(end) = self.net.ends.get_mut(&(self.place, conn)) {
            end.armed = false;
            let what = Occurrence::Paused { conn };
            self.effects.push(Effect::At { at: self.now + 10, place: self.place, what });
        }
    }

    fn send(&mut self, conn: ConnId, batch: SendBatch) {
        let lose = self.faults.lose_connection;
        self.net.send(self.place, conn, batch, self.now, self.random, lose, self.effects);
    }

    fn shut_down_write(&mut self, conn: ConnId) {
        self.net.shut_down_write(self.place, conn, self.now, self.random, self.effects);
    }

    fn hand_over(&mut self, conn: ConnId, worker: u16, peer: SocketAddr, read: Vec<u8>) {
        let to = Place { worker: usize::from(worker), ..self.place };
        self.net.hand_over(self.place, conn, to);
        let at = self.now + self.random.between(500, 60_000);
        let what = Occurrence::HandedOver { conn, peer, read };
        self.effects.push(Effect::At { at, place: to, what });
    }

    fn close(&mut self, conn: ConnId, reset: bool) {
        self.net.close(self.place, conn, reset, self.now, self.random, self.effects);
    }

    fn report(&mut self, member: MemberId, evidence: Evidence) {
        let node = self.place.node;
        self.effects.push(Effect::Evidence { node, member, evidence });
    }
}

/// Nobody listens there.
pub(super) const fn refused() -> Errno {
    ECONNREFUSED
}
