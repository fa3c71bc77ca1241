//! The sans-IO core of one worker: lanes to members, connections from them.
//!
//! Bytes, completions, orders and time come in; sends, connections and deliveries go out. It runs
//! on the ring, and the same code runs in the simulator.

mod accepting;
mod lanes;
mod strangers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringtribe_wire::native::{HelloStatus, LaneClass};

use crate::delivery::Item;
use crate::directory::MemberEntry;
use crate::event::{Event, LogLevel};
use crate::gauges::{Held, set};
use crate::ids::{BootId, Epoch, Instant, MemberId};
use crate::io::{ConnId, Errno, Evidence, Io, IoEvent, SendBatch};
use crate::message::Message;
use crate::order::{Destination, Order};
use crate::protocol::accepted::{Accepted, Lines};
use crate::protocol::inbound::Inbound;
use crate::protocol::lane::{Ask, Queued, SETTLE_MS};
use crate::protocol::lately::{Seen, Waiting};
use crate::protocol::peer::{LaneRef, Peer};
use crate::protocol::stream::greeting::{self, Greeted, Greeting, Refusal, worker_of};
use crate::protocol::stream::receiving::Asked;
use crate::shared::{Shared, count, planted};
use crate::status::Status;
use crate::worker::Core;

/// What the workers of one node share beside [`Shared`].
#[derive(Debug, Default)]
pub struct Crew {
    pub(super) lines: Lines,
    /// Numbers accepted Tribes connections and streams of the own format.
    pub(super) accepted_number: AtomicU64,
}

/// Questions of the join barrier that wait for the asker to be seen.
const QUESTIONS_LIMIT_COUNT: usize = 1024;

#[derive(Debug)]
enum Role {
    Lane {
        member: MemberId,
        lane: LaneRef,
    },
    /// Accepted, and not known what it is.
    Greeting(Box<Greeting>),
    /// Accepted, in the Tribes format.
    Accepted(Box<Accepted>),
    /// Accepted, carries a stream of the own format.
    Stream(u64),
    /// Nobody's any more; the kernel still holds something.
    Leaving,
}

/// What a worker has to look at when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Lane(MemberId, LaneRef),
    Stream(u64),
    Greeting(ConnId),
    /// A frame that has begun has to come further; what is closed for a fault has to be gone.
    HalfFrame(ConnId),
    /// Lines of a connection that was held back may be followed by others.
    Release(ConnId),
    Drain(MemberId),
}

/// A question of the join barrier whose asker is not seen yet.
#[derive(Debug)]
struct Question {
    boot_id: BootId,
    stream: u64,
    token: u64,
}

/// See the module.
#[derive(Debug)]
pub struct WorkerCore {
    shared: Arc<Shared>,
    crew: Arc<Crew>,
    index: u16,
    lanes_count: usize,
    peers: BTreeMap<MemberId, Peer>,
    inbound: Inbound,
    /// Addresses of members that were cut a moment ago. Who is there now may be the one that still
    /// reads what the cut lanes carried: a process that restarted, before membership knew.
    settling: BTreeMap<SocketAddr, Instant>,
    conns: BTreeMap<ConnId, Role>,
    accepted_count: usize,
    /// Connections of them that carry a stream.
    streams_count: usize,
    /// Accepted connections, the oldest first, but those that were found to be of members.
    strangers: VecDeque<ConnId>,
    requests: BTreeMap<u64, (MemberId, LaneRef)>,
    next_request: u64,
    to_pump: Vec<(MemberId, LaneRef)>,
    to_flush: Vec<ConnId>,
    items: Vec<Item>,
    asked: Vec<Asked>,
    questions: Vec<Question>,
    dues: BinaryHeap<Reverse<(Instant, Due)>>,
    orphans: BTreeMap<(ConnId, u64), Arc<Seen>>,
    closing: Option<Status>,
    /// When it last looked at anything.
    looked: Instant,
    /// [`Inbound::moved_count`] at the last look.
    moved_count: u64,
}

impl WorkerCore {
    /// The core of worker `index`.
    #[must_use]
    pub fn new(shared: Arc<Shared>, crew: Arc<Crew>, index: u16) -> Self {
        let workers_count = usize::from(shared.bounds.worker_count);
        Self {
            lanes_count: (shared.bounds.pool_size / workers_count).max(1),
            shared,
            crew,
            index,
            peers: BTreeMap::new(),
            inbound: Inbound::default(),
            settling: BTreeMap::new(),
            conns: BTreeMap::new(),
            accepted_count: 0,
            streams_count: 0,
            strangers: VecDeque::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            to_pump: Vec::new(),
            to_flush: Vec::new(),
            items: Vec::new(),
            asked: Vec::new(),
            questions: Vec::new(),
            dues: BinaryHeap::new(),
            orphans: BTreeMap::new(),
            closing: None,
            looked: Instant(0),
            moved_count: 0,
        }
    }

    fn close(&mut self, status: Status, io: &mut impl Io) {
        self.closing = Some(status);
        let members: Vec<MemberId> = self.peers.keys().copied().collect();
        for member in members {
            self.cut(member, status, io);
        }
        self.close_accepted(io);
    }

    fn outcome(&mut self, conn: ConnId, sequence: u64, status: Status) {
        let waiting = match self.conns.get_mut(&conn) {
            Some(Role::Accepted(accepted)) => {
                self.to_flush.push(conn);
                accepted.outcome(sequence, status)
            }
            _ => self
                .orphans
                .remove(&(conn, sequence))
                .map_or_else(Vec::new, |seen| seen.end(status)),
        };
        for Waiting { worker, conn, sequence } in waiting {
            self.shared.orders().push(worker, Order::Outcome { conn, sequence, status });
        }
    }

    fn lane(&self, conn: ConnId) -> Option<(MemberId, LaneRef)> {
        match self.conns.get(&conn) {
            Some(Role::Lane { member, lane }) => Some((*member, *lane)),
            _ => None,
        }
    }

    /// Has a stream looked at when its time comes.
    fn watch(&mut self, number: u64) {
        if let Some(stream) = self.inbound.get(number)
            && let Some(due) = stream.deadline()
            && stream.timer.is_none_or(|set| due < set)
        {
            stream.timer = Some(due);
            self.dues.push(Reverse((due, Due::Stream(number))));
        }
    }

    fn receive_ended(&mut self, conn: ConnId, error: Option<Errno>, io: &mut impl Io) {
        match self.conns.get_mut(&conn) {
            Some(Role::Accepted(accepted)) => {
                accepted.receive_ended(error, &self.crew.lines, &self.shared, io);
            }
            Some(Role::Greeting(greeting)) => {
                if !greeting.refused && !greeting.read.is_empty() {
                    let (peer, bytes) = (greeting.peer, greeting.read.len());
                    let text =
                        format!("connection from {peer} ended after {bytes} bytes of a hello");
                    self.shared.deliveries.event(Event::Log { level: LogLevel::Debug, text });
                }
                self.leave(conn, error.is_some(), io);
            }
            Some(Role::Stream(number)) => {
                let number = *number;
                if let Some(stream) = self.inbound.get(number) {
                    stream.detach(io.now());
                    // A sender's connection that ends may mean that the sender did.
                    if let Some(entry) = self.shared.directory.find_boot(stream.boot_id) {
                        io.report(entry.id, Evidence::ConnectionLost);
                    }
                }
                self.watch(number);
                self.leave(conn, error.is_some(), io);
            }
            Some(Role::Lane { member, lane }) => {
                let (member, lane) = (*member, *lane);
                let Some(peer) = self.peers.get_mut(&member) else { return };
                match lane {
                    LaneRef::Tribes(at) => {
                        if let Some(found) = peer.tribes(at) {
                            found.lost(conn, &self.shared, io);
                        }
                    }
                    own => {
                        if let Some(found) = peer.own(own) {
                            found.lost(conn, &self.shared, io);
                        }
                    }
                }
            }
            Some(Role::Leaving) | None => {}
        }
    }

    fn sent(
        &mut self,
        conn: ConnId,
        batch: SendBatch,
        result: Result<usize, Errno>,
        io: &mut impl Io,
    ) {
        match self.conns.get_mut(&conn) {
            Some(Role::Accepted(accepted)) => {
                accepted.sent(batch, result, &self.crew.lines, &self.shared, io);
                self.to_flush.push(conn);
            }
            // The refusal is out.
            Some(Role::Greeting(_)) => self.leave(conn, false, io),
            Some(Role::Stream(number)) => {
                let number = *number;
                let holds =
                    self.inbound.get(number).is_some_and(|stream| stream.sent(batch, result, io));
                if holds {
                    self.to_flush.push(conn);
                } else {
                    self.receive_ended(conn, result.err(), io);
                }
            }
            Some(Role::Lane { member, lane }) => {
                let (member, lane) = (*member, *lane);
                let Some(peer) = self.peers.get_mut(&member) else { return };
                if let LaneRef::Tribes(at) = lane {
                    let ask = peer.tribes(at).map_or(Ask::Nothing, |found| {
                        found.sent(conn, batch, result, &self.shared, io)
                    });
                    self.ask(ask, member, lane);
                } else if let Some(found) = peer.own(lane) {
                    found.sent(conn, batch, result, &self.shared, io);
                    self.to_pump.push((member, lane));
                }
            }
            Some(Role::Leaving) | None => {}
        }
    }

    fn closed(&mut self, conn: ConnId, io: &mut impl Io) {
        match self.conns.remove(&conn) {
            Some(Role::Lane { member, lane }) => {
                let Some(peer) = self.peers.get_mut(&member) else { return };
                if let LaneRef::Tribes(at) = lane {
                    let ask = peer
                        .tribes(at)
                        .map_or(Ask::Nothing, |found| found.closed(conn, &self.shared, io));
                    self.ask(ask, member, lane);
                } else if let Some(found) = peer.own(lane) {
                    found.closed(conn, &self.shared, io);
                    self.to_pump.push((member, lane));
                }
            }
            Some(Role::Accepted(mut accepted)) => {
                self.accepted_count -= 1;
                self.orphans
                    .extend(accepted.running().map(|(sequence, seen)| ((conn, sequence), seen)));
            }
            Some(Role::Greeting(_)) => self.accepted_count -= 1,
            Some(Role::Stream(_)) => {
                self.accepted_count -= 1;
                self.streams_count -= 1;
            }
            Some(Role::Leaving) | None => {}
        }
    }

    fn ask(&mut self, ask: Ask, member: MemberId, lane: LaneRef) {
        if ask == Ask::Pump {
            self.to_pump.push((member, lane));
        }
    }

    fn expire(&mut self, io: &mut impl Io) {
        let now = io.now();
        let mut looked = false;
        while let Some(Reverse((due, what))) = self.dues.peek().copied() {
            if due > now {
                break;
            }
            self.dues.pop();
            match what {
                Due::Lane(member, lane) => {
                    let Some(peer) = self.peers.get_mut(&member) else { continue };
                    if let LaneRef::Tribes(at) = lane {
                        let Some(found) = peer.tribes(at) else { continue };
                        found.timer = None;
                        let ask = found.expire(&self.shared, io);
                        self.ask(ask, member, lane);
                    } else if let Some(found) = peer.own(lane) {
                        found.timer = None;
                        found.expire(&self.shared, io);
                        self.to_pump.push((member, lane));
                    }
                }
                Due::Stream(number) => {
                    let Some(stream) = self.inbound.get(number) else { continue };
                    looked = true;
                    stream.timer = None;
                    stream.look(now, &self.shared);
                    self.to_flush.extend(stream.conn);
                    self.watch(number);
                }
                Due::Greeting(conn) => {
                    if let Some(Role::Greeting(greeting)) = self.conns.get(&conn)
                        && greeting.until <= now
                    {
                        let peer = greeting.peer;
                        let text = "nothing that tells its format within ackTimeout";
                        self.broken(conn, peer, text, io);
                    }
                }
                Due::HalfFrame(conn) => self.half_frame(conn, due, io),
                Due::Release(conn) => {
                    if let Some(Role::Accepted(accepted)) = self.conns.get_mut(&conn)
                        && accepted.held_until == Some(due)
                    {
                        accepted.release_line(&self.crew.lines, &self.shared);
                    }
                }
                Due::Drain(member) => {
                    if self.peers.get(&member).is_some_and(|peer| peer.draining.is_some()) {
                        self.cut(member, Status::Goodbye, io);
                    }
                }
            }
        }
        if looked {
            self.shared.set_oldest_since(self.index, self.inbound.oldest_since());
            let moved_count = self.inbound.moved_count();
            if std::mem::replace(&mut self.moved_count, moved_count) != moved_count {
                self.shared.set_moved(now);
            }
        }
    }

    fn flush(&mut self, io: &mut impl Io) {
        let mut to_flush = std::mem::take(&mut self.to_flush);
        to_flush.sort_unstable();
        to_flush.dedup();
        for conn in to_flush.drain(..) {
            match self.conns.get_mut(&conn) {
                Some(Role::Accepted(accepted)) => {
                    accepted.flush(&self.crew.lines, &self.shared, io);
                }
                Some(Role::Stream(number)) => {
                    let number = *number;
                    let Some(stream) = self.inbound.get(number) else { continue };
                    if !stream.flush(&self.shared, io) {
                        stream.detach(io.now());
                        self.watch(number);
                        self.leave(conn, false, io);
                    }
                }
                _ => {}
            }
        }
        self.to_flush = to_flush;
    }

    /// Looks at a stream that has news.
    fn stream_news(
        &mut self,
        number: u64,
        look: impl FnOnce(&mut super::stream::receiving::ReceiveStream),
    ) {
        if let Some(stream) = self.inbound.get(number) {
            look(stream);
            self.to_flush.extend(stream.conn);
        }
    }
}

impl Core for WorkerCore {
    type Order = Order;

    fn order<I: Io>(&mut self, order: Order, io: &mut I) {
        self.look(io);
        match order {
            Order::Send { message, destinations } => {
                for destination in destinations {
                    self.enqueue(&message, destination);
                }
            }
            Order::Outcome { conn, sequence, status } => self.outcome(conn, sequence, status),
            Order::Outcomes { stream } => self.stream_news(stream, |s| s.take_outcomes()),
            Order::Epoch { boot_id, epoch } => self.epoch_begins(boot_id, epoch, io),
            Order::Granted { stream } => {
                let shared = Arc::clone(&self.shared);
                if self.inbound.get(stream).is_none() {
                    shared.reservations.withdraw(stream);
                }
                self.stream_news(stream, |s| s.granted(&shared));
            }
            Order::Joined { stream, token } => self.stream_news(stream, |s| s.answer_join(token)),
            Order::Newcomer { member } => self.newcomer(member),
            Order::Seen { entry } => self.reply_lane(&entry),
            Order::AskJoin { entry, token } => {
                self.reply_lane(&entry);
                if let Some(lane) =
                    self.peers.get_mut(&entry.id).and_then(|peer| peer.own(LaneRef::Reply))
                {
                    lane.ask_join(token);
                }
            }
            Order::Goodbye { is_final } => self.goodbye(is_final, io),
            Order::Drain { entry } => {
                if let Some(peer) = self.peers.get_mut(&entry.id) {
                    let until = io.now().plus_ms(self.shared.bounds.ack_timeout_ms);
                    peer.drain(until);
                    self.dues.push(Reverse((until, Due::Drain(entry.id))));
                    self.to_pump.push((entry.id, LaneRef::Data));
                }
            }
            Order::Resume { conn } => {
                if let Some(Role::Accepted(accepted)) = self.conns.get_mut(&conn) {
                    accepted.resume(io);
                    let held = accepted.held_until;
                    self.dues.extend(held.map(|due| Reverse((due, Due::Release(conn)))));
                    self.to_flush.push(conn);
                }
            }
            Order::Cut { entry, status } => self.cut(entry.id, status, io),
            Order::CloseAccepted => self.close_accepted(io),
            Order::Close { status } => self.close(status, io),
        }
    }

    fn event<I: Io>(&mut self, event: IoEvent<'_>, io: &mut I) {
        self.look(io);
        match event {
            IoEvent::Accepted { conn, peer } => self.accept(conn, peer, io),
            IoEvent::HandedOver { conn, peer, read } => {
                if self.has_place(conn, io) {
                    self.greet(conn, peer, io);
                    self.greeting(conn, &read, io);
                }
            }
            IoEvent::Connected { request, conn } => self.connected(request, conn, io),
            IoEvent::ConnectFailed { request, error } => self.connect_failed(request, error, io),
            IoEvent::Received { conn, bytes } => match self.conns.get(&conn) {
                Some(Role::Stream(number)) => self.stream_received(conn, *number, bytes, io),
                Some(Role::Accepted(_)) => self.tribes_received(conn, bytes, io),
                Some(Role::Lane { .. }) => self.lane_received(conn, bytes, io),
                Some(Role::Greeting(_)) => self.greeting(conn, bytes, io),
                Some(Role::Leaving) | None => {}
            },
            IoEvent::ReceiveEnded { conn, error } => self.receive_ended(conn, error, io),
            IoEvent::Paused { conn } => self.paused(conn, io),
            IoEvent::Sent { conn, batch, result } => self.sent(conn, batch, result, io),
            IoEvent::Closed { conn } => self.closed(conn, io),
        }
    }

    fn finish_turn<I: Io>(&mut self, io: &mut I) {
        self.look(io);
        self.expire(io);
        self.pump(io);
        self.flush(io);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let due = self.dues.peek().map(|Reverse((due, _))| *due);
        // A stream is looked at now and then, so that standing still is noticed; so is what waits for
        // a listener, which may have come on streams that are gone.
        let pulse = self.looked.plus_ms(self.shared.bounds.standstill_ms() / 2);
        let watched = self.streams_count > 0 || !self.shared.deliveries.is_idle();
        let pulse = watched.then_some(pulse);
        due.into_iter().chain(pulse).min()
    }

    fn is_finished(&self) -> bool {
        self.closing.is_some() && self.conns.is_empty()
    }

    fn note(&self, held: Held) {
        let Some(gauges) = self.shared.gauges.get(usize::from(self.index)) else { return };
        gauges.note(held);
        set(&gauges.known_connections_count, self.conns.len());
        set(&gauges.linked_members_count, self.peers.len());
        set(&gauges.connecting_count, self.requests.len());
        set(&gauges.kept_streams_count, self.inbound.len());
        set(&gauges.deadlines_count, self.dues.len());
        set(&gauges.orphans_count, self.orphans.len());
    }
}

impl WorkerCore {
    /// Tells the node that this worker cannot go on; used by the loop after a panic.
    pub fn report_bug(shared: &Shared, text: &str) {
        let text = format!("a worker stopped because of a defect: {text}; the node closes");
        shared.deliveries.event(Event::Log { level: LogLevel::Error, text });
    }
}
