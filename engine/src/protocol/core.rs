//! The sans-IO core of one worker: lanes to members, connections from them.
//!
//! Bytes, completions, orders and time come in; sends, connections and deliveries go out. It runs
//! on the ring, and the same code runs in the simulator.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringtribe_wire::native::{HelloStatus, LaneClass};

use crate::delivery::Item;
use crate::directory::MemberEntry;
use crate::event::{Event, LogLevel};
use crate::ids::{BootId, Instant, MemberId};
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
    lines: Lines,
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
        }
    }

    fn enqueue(&mut self, message: &Arc<Message>, destination: Destination) {
        let Destination { index, entry, token } = destination;
        let queued = Queued { message: Arc::clone(message), index, token };
        // A cut may have overtaken the message: then it fails by name and nothing waits.
        if let Some(status) = self.closing.or(entry.ended()) {
            queued.end(status, &self.shared);
            self.shared.missed(&entry, 1);
            return;
        }
        let id = entry.id;
        let own = entry.boot_id();
        let address = entry.address;
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(entry));
        if let Some(boot_id) = own {
            let (class, lane) = if message.manner.reply {
                (LaneClass::Reply, LaneRef::Reply)
            } else {
                (LaneClass::Data, LaneRef::Data)
            };
            peer.stream(boot_id, class, self.index, &self.shared).push(queued);
            self.to_pump.push((id, lane));
            return;
        }
        let settled = self.settling.get(&address).copied();
        message.prepare_tribes(&self.shared.local_package());
        let peer = peer.with_tribes(self.lanes_count, settled);
        let lane = if planted!(self.shared, AnyLane) {
            index.wrapping_add(message.payload_bytes()) % peer.tribes_count()
        } else {
            peer.choose(message)
        };
        peer.push_tribes(lane, queued);
        self.to_pump.push((id, LaneRef::Tribes(lane)));
    }

    /// The reply lane of a member that speaks the own format.
    fn reply_lane(&mut self, entry: &Arc<MemberEntry>) {
        let Some(boot_id) = entry.boot_id() else { return };
        if self.index != 0 || self.closing.is_some() || entry.ended().is_some() {
            return;
        }
        let peer = self.peers.entry(entry.id).or_insert_with(|| Peer::new(Arc::clone(entry)));
        peer.stream(boot_id, LaneClass::Reply, 0, &self.shared);
        self.to_pump.push((entry.id, LaneRef::Reply));
    }

    fn cut(&mut self, member: MemberId, status: Status, io: &mut impl Io) {
        let Some(mut peer) = self.peers.remove(&member) else { return };
        let now = io.now();
        self.settling.retain(|_, until| *until > now);
        if peer.has_tribes_conn() {
            self.settling.insert(peer.entry.address, now.plus_ms(SETTLE_MS));
        }
        for conn in peer.conns() {
            self.conns.insert(conn, Role::Leaving);
        }
        peer.cut(status, &self.shared, io);
        self.requests.retain(|_, (of, _)| *of != member);
    }

    fn close(&mut self, status: Status, io: &mut impl Io) {
        self.closing = Some(status);
        let members: Vec<MemberId> = self.peers.keys().copied().collect();
        for member in members {
            self.cut(member, status, io);
        }
        self.close_accepted(io);
    }

    fn close_accepted(&mut self, io: &mut impl Io) {
        let mut leaving = Vec::new();
        for (conn, role) in &mut self.conns {
            match role {
                Role::Accepted(accepted) => {
                    accepted.close(false, &self.crew.lines, &self.shared, io);
                }
                Role::Greeting(_) => leaving.push(*conn),
                Role::Stream(number) => {
                    if let Some(stream) = self.inbound.get(*number) {
                        stream.detach(io.now());
                    }
                    leaving.push(*conn);
                }
                Role::Lane { .. } | Role::Leaving => {}
            }
        }
        for conn in leaving {
            if let Some(Role::Stream(number)) = self.conns.get(&conn) {
                self.watch(*number);
            }
            self.leave(conn, false, io);
        }
    }

    /// Closes an accepted connection that nobody needs.
    fn leave(&mut self, conn: ConnId, reset: bool, io: &mut impl Io) {
        if matches!(
            self.conns.insert(conn, Role::Leaving),
            Some(Role::Greeting(_) | Role::Stream(_))
        ) {
            self.accepted_count -= 1;
        }
        io.close(conn, reset);
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

    fn accept(&mut self, conn: ConnId, peer: SocketAddr, io: &mut impl Io) {
        let bounds = &self.shared.bounds;
        let most_count = bounds.max_connections.div_ceil(usize::from(bounds.worker_count));
        if self.closing.is_some() || self.accepted_count >= most_count {
            count(&self.shared.counters.refused_connections_count, 1);
            self.conns.insert(conn, Role::Leaving);
            io.close(conn, true);
            return;
        }
        count(&self.shared.counters.accepted_count, 1);
        self.greet(conn, peer, io);
    }

    /// Waits for the first bytes of a connection.
    fn greet(&mut self, conn: ConnId, peer: SocketAddr, io: &mut impl Io) {
        self.accepted_count += 1;
        let until = io.now().plus_ms(self.shared.bounds.ack_timeout_ms);
        self.conns.insert(conn, Role::Greeting(Box::new(Greeting::new(peer, until))));
        self.dues.push(Reverse((until, Due::Greeting(conn))));
        io.arm_receive(conn);
    }

    /// A connection says which format it speaks, or more is needed.
    fn greeting(&mut self, conn: ConnId, bytes: &[u8], io: &mut impl Io) {
        let Some(Role::Greeting(greeting)) = self.conns.get_mut(&conn) else { return };
        if greeting.refused {
            return;
        }
        greeting.read.extend_from_slice(bytes);
        let peer = greeting.peer;
        let workers_count = self.shared.bounds.worker_count;
        match greeting.look() {
            Greeted::More => {}
            Greeted::Other => {
                let read = std::mem::take(&mut greeting.read);
                let number = self.crew.accepted_number.fetch_add(1, Ordering::Relaxed);
                let accepted = Accepted::new(self.index, conn, peer, number);
                self.conns.insert(conn, Role::Accepted(Box::new(accepted)));
                self.tribes_received(conn, &read, io);
            }
            Greeted::Broken(text) => self.broken(conn, peer, &text, io),
            Greeted::Foreign(reason) => {
                self.refuse(conn, peer, &Refusal { status: HelloStatus::Version, reason }, 0, io);
            }
            Greeted::Hello(hello) => {
                let worker = worker_of(&hello, workers_count);
                if worker == self.index {
                    let read = std::mem::take(&mut greeting.read);
                    self.hello(conn, peer, &read, io);
                } else if greeting.moving_to.is_none() {
                    greeting.moving_to = Some(worker);
                    io.pause_receive(conn);
                } else {
                    self.broken(conn, peer, "bytes behind its hello before the answer", io);
                }
            }
        }
    }

    fn broken(&mut self, conn: ConnId, peer: SocketAddr, text: &str, io: &mut impl Io) {
        count(&self.shared.counters.bad_input_count, 1);
        self.shared.deliveries.event(Event::Log {
            level: LogLevel::Warn,
            text: format!("connection from {peer} closed: it sent {text}"),
        });
        self.leave(conn, true, io);
    }

    fn hello(&mut self, conn: ConnId, peer: SocketAddr, read: &[u8], io: &mut impl Io) {
        let Ok(Some((hello, _))) = ringtribe_wire::native::decode_hello(read) else { return };
        let shared = Arc::clone(&self.shared);
        let taken = greeting::check(&hello, &shared)
            .map_err(|refusal| (refusal, hello.epoch))
            .and_then(|()| self.inbound.hello(&hello, conn, peer, self.index, &self.crew, &shared));
        match taken {
            Ok(taken) => {
                if let Some(former) = taken.former {
                    self.leave(former, true, io);
                }
                self.conns.insert(conn, Role::Stream(taken.number));
                self.to_flush.push(conn);
            }
            Err((refusal, epoch)) => self.refuse(conn, peer, &refusal, epoch, io),
        }
    }

    /// Answers a hello with why it is refused; the connection closes when that is out.
    fn refuse(
        &mut self,
        conn: ConnId,
        peer: SocketAddr,
        refusal: &Refusal,
        epoch: u64,
        io: &mut impl Io,
    ) {
        let answer = refusal.answer(peer, epoch, &self.shared);
        if let Some(Role::Greeting(greeting)) = self.conns.get_mut(&conn) {
            greeting.refused = true;
        }
        io.send(conn, answer);
    }

    fn tribes_received(&mut self, conn: ConnId, bytes: &[u8], io: &mut impl Io) {
        let Some(Role::Accepted(accepted)) = self.conns.get_mut(&conn) else { return };
        let (shared, lines) = (&self.shared, &self.crew.lines);
        accepted.received(bytes, &mut self.items, lines, shared, io);
        shared.deliveries.push(&mut self.items);
        accepted.hold_back(lines, shared, io);
        self.to_flush.push(conn);
    }

    fn stream_received(&mut self, conn: ConnId, number: u64, bytes: &[u8], io: &mut impl Io) {
        let Some(stream) = self.inbound.get(number) else { return };
        let (peer, boot_id, now) = (stream.peer, stream.boot_id, io.now());
        let (items, asked) = (&mut self.items, &mut self.asked);
        let mut result = stream.received(bytes, items, asked, &self.shared, now);
        if result.is_ok() && stream.is_over_limit() {
            result = Err("acknowledgements of failures that its sender does not confirm".into());
        }
        // What came whole before a fault was taken, and is delivered.
        self.shared.deliveries.push(&mut self.items);
        if let Err(text) = &result {
            stream.end(text);
            count(&self.shared.counters.bad_input_count, 1);
            let text = format!("connection from {peer} closed: it sent {text}");
            self.shared.deliveries.event(Event::Log { level: LogLevel::Warn, text });
            // Not another byte of it is looked at; the reason goes out first.
            io.pause_receive(conn);
        }
        self.watch(number);
        self.to_flush.push(conn);
        for asked in std::mem::take(&mut self.asked) {
            match asked {
                Asked::Join { token } => {
                    if self.questions.len() < QUESTIONS_LIMIT_COUNT {
                        self.questions.push(Question { boot_id, stream: number, token });
                    }
                    let entry = self.shared.directory.find_boot(boot_id);
                    if let Some(entry) = entry.filter(|entry| entry.is_shown()) {
                        self.newcomer(entry.id);
                    }
                }
                Asked::Goodbye { .. } => {
                    if let Some(entry) = self.shared.directory.find_boot(boot_id) {
                        io.report(entry.id, Evidence::Ended(Status::Goodbye));
                    }
                }
            }
        }
    }

    /// The application has seen a member: its questions count from now on.
    fn newcomer(&mut self, member: MemberId) {
        let Some(entry) = self.shared.directory.get(member) else { return };
        entry.set_shown();
        let boot_id = entry.boot_id();
        let shared = &self.shared;
        self.questions.retain(|question| {
            let asks = Some(question.boot_id) == boot_id;
            if asks {
                shared.phases.ask(question.stream, question.token);
            }
            !asks
        });
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

    fn connected(&mut self, request: u64, conn: ConnId, io: &mut impl Io) {
        let shared = Arc::clone(&self.shared);
        let wanted = self.requests.remove(&request).filter(|(member, lane)| {
            self.peers.get_mut(member).is_some_and(|peer| match lane {
                LaneRef::Tribes(at) => {
                    peer.tribes(*at).is_some_and(|lane| lane.connected(request, conn, io))
                }
                own => {
                    peer.own(*own).is_some_and(|lane| lane.connected(request, conn, &shared, io))
                }
            })
        });
        if let Some((member, lane)) = wanted {
            count(&self.shared.counters.connects_count, 1);
            self.conns.insert(conn, Role::Lane { member, lane });
            self.to_pump.push((member, lane));
        } else {
            self.conns.insert(conn, Role::Leaving);
            io.close(conn, false);
        }
    }

    fn connect_failed(&mut self, request: u64, error: Errno, io: &mut impl Io) {
        let Some((member, lane)) = self.requests.remove(&request) else { return };
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if let LaneRef::Tribes(at) = lane {
            if let Some(lane) = peer.tribes(at) {
                lane.connect_failed(request, error, &self.shared, io);
            }
        } else if let Some(lane) = peer.own(lane) {
            lane.connect_failed(request, error, &self.shared, io);
        }
        self.to_pump.push((member, lane));
    }

    /// Bytes came on a connection that this worker opened.
    fn lane_received(&mut self, conn: ConnId, bytes: &[u8], io: &mut impl Io) {
        let Some((member, lane)) = self.lane(conn) else { return };
        let Some(peer) = self.peers.get_mut(&member) else { return };
        if let LaneRef::Tribes(at) = lane {
            let ask = peer
                .tribes(at)
                .map_or(Ask::Nothing, |found| found.received(conn, bytes, &self.shared, io));
            self.ask(ask, member, lane);
        } else if let Some(found) = peer.own(lane) {
            found.received(conn, bytes, &self.shared, io);
            self.to_pump.push((member, lane));
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

    fn paused(&mut self, conn: ConnId, io: &mut impl Io) {
        match self.conns.get_mut(&conn) {
            Some(Role::Accepted(accepted)) => {
                accepted.paused(io);
                let held = accepted.held_until;
                self.dues.extend(held.map(|due| Reverse((due, Due::Release(conn)))));
            }
            Some(Role::Greeting(greeting)) => {
                if let Some(worker) = greeting.moving_to {
                    let (peer, read) = (greeting.peer, std::mem::take(&mut greeting.read));
                    self.conns.remove(&conn);
                    self.accepted_count -= 1;
                    io.hand_over(conn, worker, peer, read);
                }
            }
            _ => {}
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
                    found.closed(conn, io);
                    self.to_pump.push((member, lane));
                }
            }
            Some(Role::Accepted(mut accepted)) => {
                self.accepted_count -= 1;
                self.orphans
                    .extend(accepted.running().map(|(sequence, seen)| ((conn, sequence), seen)));
            }
            Some(Role::Greeting(_) | Role::Stream(_)) => self.accepted_count -= 1,
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
        }
    }

    fn pump(&mut self, io: &mut impl Io) {
        let mut to_pump = std::mem::take(&mut self.to_pump);
        to_pump.sort_unstable();
        to_pump.dedup();
        for (member, lane) in to_pump.drain(..) {
            self.pump_lane(member, lane, io);
        }
        self.to_pump = to_pump;
    }

    fn pump_lane(&mut self, member: MemberId, lane: LaneRef, io: &mut impl Io) {
        let Some(peer) = self.peers.get_mut(&member) else { return };
        let draining = peer.draining.is_some();
        if draining && (peer.is_idle() || peer.conns().next().is_none()) {
            self.cut(member, Status::Goodbye, io);
            return;
        }
        if peer.change_over(&self.shared, io) {
            for own in [LaneRef::Data, LaneRef::Reply] {
                self.pump_lane(member, own, io);
            }
            return;
        }
        let request = self.next_request;
        let shared = &self.shared;
        let (asked, due) = match lane {
            LaneRef::Tribes(at) => {
                let Some(found) = peer.tribes(at) else { return };
                let asked = found.pump(shared, request, io);
                let due = found.deadline().filter(|due| found.timer.is_none_or(|set| *due < set));
                found.timer = due.or(found.timer);
                (asked, due)
            }
            own => {
                let Some(found) = peer.own(own) else { return };
                let asked = found.pump(shared, request, io);
                let due =
                    found.deadline(shared).filter(|due| found.timer.is_none_or(|set| *due < set));
                found.timer = due.or(found.timer);
                (asked, due)
            }
        };
        if asked {
            self.requests.insert(request, (member, lane));
            self.next_request += 1;
        }
        self.dues.extend(due.map(|due| Reverse((due, Due::Lane(member, lane)))));
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

    fn goodbye(&mut self, is_final: bool, io: &mut impl Io) {
        for (member, peer) in &mut self.peers {
            if let Some(reply) = peer.own(LaneRef::Reply) {
                reply.say_goodbye(is_final);
                self.to_pump.push((*member, LaneRef::Reply));
            }
        }
        // At once: the next order may close everything.
        self.pump(io);
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
        match order {
            Order::Send { message, destinations } => {
                for destination in destinations {
                    self.enqueue(&message, destination);
                }
            }
            Order::Outcome { conn, sequence, status } => self.outcome(conn, sequence, status),
            Order::Outcomes { stream } => self.stream_news(stream, |s| s.take_outcomes()),
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
        match event {
            IoEvent::Accepted { conn, peer } => self.accept(conn, peer, io),
            IoEvent::HandedOver { conn, peer, read } => {
                self.greet(conn, peer, io);
                self.greeting(conn, &read, io);
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
        self.expire(io);
        self.pump(io);
        self.flush(io);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.dues.peek().map(|Reverse((due, _))| *due)
    }

    fn is_finished(&self) -> bool {
        self.closing.is_some() && self.conns.is_empty()
    }
}

impl WorkerCore {
    /// Tells the node that this worker cannot go on; used by the loop after a panic.
    pub fn report_bug(shared: &Shared, text: &str) {
        let text = format!("a worker stopped because of a defect: {text}; the node closes");
        shared.deliveries.event(Event::Log { level: LogLevel::Error, text });
    }
}
