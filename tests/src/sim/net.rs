//! A simulated kernel and network: connections that are slow, short of room, lost at any byte, and
//! held up by partitions.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ringtribe::ids::{Instant, MemberId};
use ringtribe::io::{ConnId, Errno, Evidence, Io, SendBatch};

use super::MS;
use super::clock::Clock;
use super::plan::Faults;
use super::random::Random;

/// A worker of a node in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) node: usize,
    pub(super) life: u32,
    pub(super) worker: usize,
}

const ECONNRESET: Errno = Errno(104);
const ETIMEDOUT: Errno = Errno(110);
const ECONNREFUSED: Errno = Errno(111);
const ECANCELED: Errno = Errno(125);
/// Longest time between the loss of a connection and its end at either side, unless a partition is
/// between. The engine lets a connection with unconfirmed messages settle for longer before it speaks
/// on a new one.
const LOSS_MOST_NS: u64 = 20 * MS;
/// What a read takes at most.
const READ_MOST_BYTES: usize = 64 << 10;

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
    Connect { from: Place, request: u64, address: SocketAddr, timeout_ms: u64 },
    Evidence { node: usize, member: MemberId, evidence: Evidence },
    Lost { place: Place, conn: ConnId },
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

impl Pipe {
    fn push(&mut self, arrives: u64, bytes: Vec<u8>) -> u64 {
        let arrives = self.bytes.back().map_or(0, |(at, _)| *at).max(arrives);
        if !bytes.is_empty() {
            self.held_bytes += bytes.len();
            self.bytes.push_back((arrives, bytes));
        }
        arrives
    }

    /// What has not arrived yet is lost from some byte on.
    fn lose_tail(&mut self, now: u64, random: &mut Random) {
        while let Some((at, bytes)) = self.bytes.back_mut()
            && *at > now
        {
            let kept = random.index(bytes.len() + 1);
            self.held_bytes -= bytes.len() - kept;
            bytes.truncate(kept);
            if kept > 0 {
                break;
            }
            self.bytes.pop_back();
        }
    }
}

#[derive(Debug)]
struct End {
    place: Place,
    peer: Option<ConnId>,
    incoming: Pipe,
    /// When it is looked at next.
    wake: Option<u64>,
    armed: bool,
    ended: bool,
    waiting_send: Option<SendBatch>,
    /// When the send in flight is reported.
    sent_at: Option<u64>,
    closing: bool,
    room_bytes: usize,
    delay_most_ns: u64,
}

/// What a call of the kernel needs beside itself.
pub(super) struct Call<'a> {
    pub(super) now: u64,
    pub(super) random: &'a mut Random,
    pub(super) faults: &'a Faults,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Call<'_> {
    fn later(&mut self, least: u64, most: u64) -> u64 {
        self.now + self.random.between(least, most)
    }

    fn at(&mut self, at: u64, place: Place, what: Occurrence) {
        self.effects.push(Effect::At { at, place, what });
    }
}

/// All connections of a history.
#[derive(Debug, Default)]
pub(super) struct Net {
    ends: Vec<Option<End>>,
    /// Until when nothing goes from one node to another.
    heals: Vec<Vec<u64>>,
}

impl Net {
    pub(super) fn new(members: usize) -> Self {
        Self { ends: Vec::new(), heals: vec![vec![0; members]; members] }
    }

    /// Until when nothing goes from one node to another, if so.
    pub(super) fn blocked(&self, from: usize, to: usize, now: u64) -> Option<u64> {
        Some(self.heals[from][to]).filter(|heals| *heals > now)
    }

    pub(super) fn block(&mut self, from: usize, to: usize, until: u64) {
        self.heals[from][to] = self.heals[from][to].max(until);
    }

    fn end(&mut self, place: Place, conn: ConnId) -> Option<&mut End> {
        self.ends.get_mut(conn.slot as usize)?.as_mut().filter(|end| end.place == place)
    }

    fn any(&mut self, conn: ConnId) -> Option<&mut End> {
        self.ends.get_mut(conn.slot as usize)?.as_mut()
    }

    /// Has a connection looked at by its reader.
    fn wake(&mut self, conn: ConnId, at: u64, call: &mut Call<'_>) {
        if let Some(end) = self.any(conn)
            && end.wake.is_none_or(|set| at < set)
        {
            end.wake = Some(at);
            let place = end.place;
            call.at(at, place, Occurrence::Readable { conn });
        }
    }

    fn new_end(&mut self, place: Place, call: &mut Call<'_>) -> ConnId {
        let slot = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        let conn = ConnId { slot, generation: 1 };
        let small = call.random.chance(call.faults.small_room);
        let slow = call.random.chance(call.faults.slow_link);
        // A window of a few bytes on a slow link would carry nothing in the time of a history.
        let room_bytes = match (small, slow) {
            (true, false) => [300, 4_000][call.random.index(2)],
            _ => 100_000,
        };
        self.ends.push(Some(End {
            place,
            peer: None,
            incoming: Pipe::default(),
            wake: None,
            armed: false,
            ended: false,
            waiting_send: None,
            sent_at: None,
            closing: false,
            room_bytes,
            delay_most_ns: if slow { 150 * MS } else { 2 * MS },
        }));
        conn
    }

    /// Opens a connection between two workers; both learn of it, not before `least`.
    pub(super) fn open(
        &mut self,
        from: Place,
        to: Place,
        request: u64,
        peer: SocketAddr,
        least: u64,
        call: &mut Call<'_>,
    ) {
        let a = self.new_end(from, call);
        let b = self.new_end(to, call);
        if let Some(end) = self.any(a) {
            end.peer = Some(b);
        }
        if let Some(end) = self.any(b) {
            end.peer = Some(a);
        }
        let at = call.later(1_000, 200_000).max(least);
        call.at(at, from, Occurrence::Connected { request, conn: a });
        let at = call.later(1_000, 200_000).max(least);
        call.at(at, to, Occurrence::Accepted { conn: b, peer });
    }

    /// What a connection has for its reader now: bytes, or its end.
    pub(super) fn read(
        &mut self,
        place: Place,
        conn: ConnId,
        call: &mut Call<'_>,
    ) -> Option<Result<Vec<u8>, Option<Errno>>> {
        let now = call.now;
        let end = self.end(place, conn)?;
        if end.wake.is_none_or(|at| at > now) {
            return None;
        }
        end.wake = None;
        if !end.armed || end.ended || end.closing {
            return None;
        }
        if call.random.chance(call.faults.no_buffers) {
            let at = call.later(MS, 30 * MS);
            self.wake(conn, at, call);
            return None;
        }
        let mut taken = Vec::new();
        while let Some((at, bytes)) = end.incoming.bytes.front_mut()
            && *at <= now
            && taken.len() < READ_MOST_BYTES
        {
            // Any split is allowed: often everything, sometimes one byte.
            if call.random.chance(call.faults.short_io) {
                let take = 1 + call.random.index(bytes.len());
                taken.extend(bytes.drain(..take));
                if bytes.is_empty() {
                    end.incoming.bytes.pop_front();
                }
                break;
            }
            if taken.is_empty() {
                taken = std::mem::take(bytes);
            } else {
                taken.append(bytes);
            }
            end.incoming.bytes.pop_front();
        }
        if taken.is_empty() {
            let at = match (end.incoming.bytes.front(), end.incoming.end) {
                (Some((at, _)), _) => *at,
                (None, Some((at, how))) if at <= now => {
                    end.ended = true;
                    return Some(Err(how));
                }
                (None, Some((at, _))) => at,
                (None, None) => return None,
            };
            self.wake(conn, at.max(now + 1), call);
            return None;
        }
        end.incoming.held_bytes -= taken.len();
        let writer = end.peer;
        self.look_again(conn, call.random.between(1, 20_000), call);
        if let Some(writer) = writer
            && let Some(end) = self.any(writer)
            && let Some(batch) = end.waiting_send.take()
        {
            let place = end.place;
            self.send(place, writer, batch, false, call);
        }
        Some(Ok(taken))
    }

    /// If there is something to read, now or later.
    fn look_again(&mut self, conn: ConnId, after: u64, call: &mut Call<'_>) {
        let Some(end) = self.any(conn) else { return };
        let front = end.incoming.bytes.front().map(|(at, _)| *at);
        if let Some(at) = front.or(end.incoming.end.map(|(at, _)| at)) {
            self.wake(conn, at.max(call.now + after), call);
        }
    }

    /// Writes what there is room for; the writer learns how much. Sometimes the connection is lost
    /// somewhere inside.
    fn send(
        &mut self,
        place: Place,
        conn: ConnId,
        batch: SendBatch,
        is_new: bool,
        call: &mut Call<'_>,
    ) {
        let now = call.now;
        let Some(end) = self.end(place, conn) else { return };
        let (room_bytes, mut delay_most_ns) = (end.room_bytes, end.delay_most_ns);
        let told_end = end.incoming.end.is_some_and(|(at, how)| at <= now && how.is_some());
        let peer = end.peer;
        let mut answer_at = call.later(500, 50_000);
        if is_new && call.random.chance(call.faults.fail_send) {
            answer_at = call.later(1_000, 300 * MS);
            self.answer(conn, answer_at, batch, Err(ETIMEDOUT), call);
            self.lose(conn, call);
            return;
        }
        let whole_bytes = batch.remaining_bytes();
        let Some(other) = peer.and_then(|peer| self.any(peer)).filter(|other| !other.closing)
        else {
            // Nobody reads it any more. The kernel takes it as long as it does not know.
            let swallows = !told_end && call.random.chance(500);
            let result = if swallows { Ok(whole_bytes) } else { Err(ECONNRESET) };
            self.answer(conn, answer_at, batch, result, call);
            return;
        };
        if other.incoming.end.is_some() {
            self.answer(conn, answer_at, batch, Err(ECONNRESET), call);
            return;
        }
        let to = other.place.node;
        let left_bytes = room_bytes.saturating_sub(other.incoming.held_bytes);
        if left_bytes == 0 {
            if let Some(end) = self.any(conn) {
                end.waiting_send = Some(batch);
            }
            return;
        }
        let most = whole_bytes.min(left_bytes);
        let short = call.random.chance(call.faults.short_io);
        let take = if short { 1 + call.random.index(most) } else { most };
        let mut bytes = front_of(&batch, take);
        let lost = is_new && call.random.chance(call.faults.lose_connection);
        if lost {
            // The writer believes that it wrote all of it.
            bytes.truncate(call.random.index(take + 1));
        }
        if call.faults.slow_link == 0 {
            // All has healed.
            delay_most_ns = delay_most_ns.min(2 * MS);
        }
        let mut arrives = call.later(1_000, delay_most_ns);
        if let Some(heals) = self.blocked(place.node, to, now) {
            // The kernel sends it again.
            arrives = heals + call.random.between(1_000, 200 * MS);
        }
        if let Some(peer) = peer
            && let Some(other) = self.any(peer)
        {
            let arrives = other.incoming.push(arrives, bytes);
            if other.armed {
                self.wake(peer, arrives, call);
            }
        }
        self.answer(conn, answer_at, batch, Ok(take), call);
        if lost {
            self.lose(conn, call);
        }
    }

    fn answer(
        &mut self,
        conn: ConnId,
        at: u64,
        batch: SendBatch,
        result: Result<usize, Errno>,
        call: &mut Call<'_>,
    ) {
        if let Some(end) = self.any(conn) {
            end.sent_at = Some(at);
            let place = end.place;
            call.at(at, place, Occurrence::Sent { conn, batch, result });
        }
    }

    /// Both sides will find the connection reset, each in its time, after what arrived before.
    fn lose(&mut self, conn: ConnId, call: &mut Call<'_>) {
        let peer = self.any(conn).and_then(|end| end.peer);
        let tail = call.random.chance(500);
        for conn in [Some(conn), peer].into_iter().flatten() {
            let at = call.later(1_000, LOSS_MOST_NS);
            let Some(end) = self.any(conn) else { continue };
            if tail {
                end.incoming.lose_tail(call.now, call.random);
            }
            end.incoming.end.get_or_insert((at, Some(ECONNRESET)));
            // What is in flight arrives no later than the end.
            for (arrives, _) in &mut end.incoming.bytes {
                *arrives = (*arrives).min(at);
            }
            let (waiting, place) = (end.waiting_send.take(), end.place);
            call.effects.push(Effect::Lost { place, conn });
            self.look_again(conn, 1, call);
            if let Some(batch) = waiting {
                self.answer(conn, at, batch, Err(ECONNRESET), call);
            }
        }
    }

    /// A connection goes to another worker of its node; it keeps its id.
    fn hand_over(&mut self, from: Place, conn: ConnId, to: Place) {
        if let Some(end) = self.end(from, conn) {
            end.place = to;
            end.wake = None;
        }
    }

    /// The reader at the other side finds the end behind what was sent.
    fn end_of(&mut self, conn: ConnId, how: Option<Errno>, call: &mut Call<'_>) {
        let Some(end) = self.any(conn) else { return };
        let (from, peer) = (end.place.node, end.peer);
        let Some(peer) = peer else { return };
        let Some(to) = self.any(peer).map(|other| other.place.node) else { return };
        let heals = self.blocked(from, to, call.now);
        let at = call.later(1_000, LOSS_MOST_NS);
        let Some(other) = self.any(peer) else { return };
        if how.is_some() && call.random.chance(500) {
            other.incoming.lose_tail(call.now, call.random);
        }
        let last = other.incoming.bytes.back().map_or(0, |(at, _)| *at);
        let at = at.max(last).max(heals.map_or(0, |heals| heals + LOSS_MOST_NS));
        other.incoming.end.get_or_insert((at, how));
        self.look_again(peer, 1, call);
    }

    /// A send was reported to its worker.
    pub(super) fn send_reported(&mut self, place: Place, conn: ConnId) {
        if let Some(end) = self.end(place, conn) {
            end.sent_at = None;
        }
    }

    fn close(&mut self, place: Place, conn: ConnId, reset: bool, call: &mut Call<'_>) {
        let Some(end) = self.end(place, conn) else { return };
        if std::mem::replace(&mut end.closing, true) {
            return;
        }
        let peer = end.peer;
        let late = call.random.chance(call.faults.late_close);
        let mut at = call.later(500, if late { 500 * MS } else { 50_000 });
        if let Some(batch) = end.waiting_send.take() {
            let mut result = Err(ECANCELED);
            if call.random.chance(call.faults.race_cancel)
                && let Some(other) = peer.and_then(|peer| self.any(peer))
                && other.incoming.end.is_none()
            {
                // It went on just before.
                let take = 1 + call.random.index(batch.remaining_bytes());
                other.incoming.push(call.now + 1_000, front_of(&batch, take));
                result = Ok(take);
            }
            let sent_at = call.later(500, 50_000);
            self.answer(conn, sent_at, batch, result, call);
        }
        if let Some(sent_at) = self.any(conn).and_then(|end| end.sent_at) {
            at = at.max(sent_at);
        }
        call.at(at + 1, place, Occurrence::Closed { conn });
        self.end_of(conn, reset.then_some(ECONNRESET), call);
        // A writer that waits for room will not get any.
        if let Some(peer) = peer
            && let Some(other) = self.any(peer)
            && let Some(batch) = other.waiting_send.take()
        {
            let at = other.incoming.end.map_or(call.now, |(at, _)| at) + 1;
            self.answer(peer, at, batch, Err(ECONNRESET), call);
        }
    }

    /// The kernel has let go of a connection.
    pub(super) fn forget(&mut self, place: Place, conn: ConnId) {
        if self.end(place, conn).is_some() {
            self.ends[conn.slot as usize] = None;
        }
    }

    /// A node is gone: the others find out, at once or (`silent`) much later.
    pub(super) fn crash(&mut self, node: usize, life: u32, silent: bool, call: &mut Call<'_>) {
        for slot in 0..self.ends.len() {
            let Some(end) = &self.ends[slot] else { continue };
            if end.place.node != node || end.place.life != life {
                continue;
            }
            let conn = ConnId { slot: u32::try_from(slot).unwrap_or(0), generation: 1 };
            let peer = end.peer;
            if !silent {
                self.lose(conn, call);
            } else if let Some(peer) = peer
                && let Some(other) = self.any(peer)
            {
                other.incoming.lose_tail(call.now, call.random);
                let at = call.later(2_000 * MS, 6_000 * MS);
                other.incoming.end.get_or_insert((at, Some(ETIMEDOUT)));
                let waiting = other.waiting_send.take();
                self.look_again(peer, 1, call);
                if let Some(batch) = waiting {
                    self.answer(peer, at, batch, Err(ETIMEDOUT), call);
                }
            }
            self.ends[slot] = None;
        }
    }

    /// Connections of a node that are not closed.
    pub(super) fn count(&self, node: usize) -> usize {
        self.ends.iter().flatten().filter(|end| end.place.node == node).count()
    }
}

/// The first bytes of what a batch still has to send.
fn front_of(batch: &SendBatch, take: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(take);
    let mut skip_bytes = batch.skip_bytes;
    for segment in &batch.segments {
        let rest = &segment.as_slice()[skip_bytes..];
        bytes.extend_from_slice(&rest[..rest.len().min(take - bytes.len())]);
        skip_bytes = 0;
        if bytes.len() == take {
            break;
        }
    }
    bytes
}

/// The kernel as one worker sees it.
pub(super) struct SimIo<'a> {
    pub(super) net: &'a mut Net,
    pub(super) call: Call<'a>,
    pub(super) place: Place,
    pub(super) clock: Clock,
}

impl Io for SimIo<'_> {
    fn now(&self) -> Instant {
        Instant(self.clock.shows(self.call.now))
    }

    fn random(&mut self) -> u64 {
        self.call.random.next()
    }

    fn connect(&mut self, request: u64, address: SocketAddr, timeout_ms: u64) {
        let from = self.place;
        self.call.effects.push(Effect::Connect { from, request, address, timeout_ms });
    }

    fn arm_receive(&mut self, conn: ConnId) {
        if let Some(end) = self.net.end(self.place, conn) {
            end.armed = true;
            self.net.look_again(conn, 1, &mut self.call);
        }
    }

    fn pause_receive(&mut self, conn: ConnId) {
        if let Some(end) = self.net.end(self.place, conn) {
            end.armed = false;
            let at = self.call.now + 10;
            self.call.at(at, self.place, Occurrence::Paused { conn });
        }
    }

    fn send(&mut self, conn: ConnId, batch: SendBatch) {
        self.net.send(self.place, conn, batch, true, &mut self.call);
    }

    fn shut_down_write(&mut self, conn: ConnId) {
        if self.net.end(self.place, conn).is_some() {
            self.net.end_of(conn, None, &mut self.call);
        }
    }

    fn hand_over(&mut self, conn: ConnId, worker: u16, peer: SocketAddr, read: Vec<u8>) {
        let to = Place { worker: usize::from(worker), ..self.place };
        self.net.hand_over(self.place, conn, to);
        let at = self.call.later(500, 60_000);
        self.call.at(at, to, Occurrence::HandedOver { conn, peer, read });
    }

    fn close(&mut self, conn: ConnId, reset: bool) {
        self.net.close(self.place, conn, reset, &mut self.call);
    }

    fn report(&mut self, member: MemberId, evidence: Evidence) {
        let node = self.place.node;
        self.call.effects.push(Effect::Evidence { node, member, evidence });
    }
}

/// Nobody listens there.
pub(super) const fn refused() -> Errno {
    ECONNREFUSED
}

/// No answer.
pub(super) const fn timed_out() -> Errno {
    ETIMEDOUT
}
