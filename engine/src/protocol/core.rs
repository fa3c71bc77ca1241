//! The sans-IO core of one worker: lanes to members, connections from them.
//!
//! Bytes, completions, orders and time come in; sends, connections and deliveries go out. It runs
//! on the ring, and the same code runs in the simulator.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::delivery::Item;
use crate::directory::MemberEntry;
use crate::event::{Event, LogLevel};
use crate::ids::{Instant, MemberId};
use crate::io::{ConnId, Io, IoEvent};
use crate::message::Message;
use crate::order::{Destination, Order};
use crate::protocol::accepted::{Accepted, Lines};
use crate::protocol::lane::{Ask, Lane, Queued, SETTLE_MS};
use crate::protocol::lately::{Seen, Waiting};
use crate::shared::{Shared, count, planted};
use crate::status::Status;
use crate::worker::Core;

/// What the workers of one node share beside [`Shared`].
#[derive(Debug, Default)]
pub struct Crew {
    lines: Lines,
    accepted_number: AtomicU64,
}

/// The lanes of this worker to one member: ordered ones, free ones, and one for replies.
#[derive(Debug)]
struct Peer {
    lanes: Vec<Lane>,
    ordered_count: usize,
}

impl Peer {
    fn new(entry: &MemberEntry, lanes_count: usize, settled: Option<Instant>) -> Self {
        let ordered_count = lanes_count.div_ceil(2);
        // One more than the lanes for data: the last is the reply lane.
        let lanes =
            (0..=lanes_count).map(|_| Lane::new(entry.id, entry.address, settled)).collect();
        Self { lanes, ordered_count }
    }

    fn choose(&self, message: &Message) -> usize {
        let data_count = self.lanes.len() - 1;
        if message.reply {
            return data_count;
        }
        if let Some(key) = message.key {
            return key.lane(self.ordered_count);
        }
        // The first that is free and connected, else the first that is free, else the shortest.
        let free = if self.ordered_count == data_count { 0 } else { self.ordered_count };
        (free..data_count)
            .min_by_key(|n| (self.lanes[*n].load(), !self.lanes[*n].is_used(), *n))
            .unwrap_or(0)
    }
}

#[derive(Debug)]
enum Role {
    Lane {
        member: MemberId,
        lane: usize,
    },
    Accepted(Box<Accepted>),
    /// Nobody's any more; the kernel still holds something.
    Leaving,
}

/// See the module.
#[derive(Debug)]
pub struct WorkerCore {
    shared: Arc<Shared>,
    crew: Arc<Crew>,
    index: u16,
    lanes_count: usize,
    peers: BTreeMap<MemberId, Peer>,
    /// Addresses of members that were cut a moment ago. Who is there now may be the one that still
    /// reads what the cut lanes carried: a process that restarted, before membership knew.
    settling: BTreeMap<SocketAddr, Instant>,
    conns: BTreeMap<ConnId, Role>,
    accepted_count: usize,
    requests: BTreeMap<u64, (MemberId, usize)>,
    next_request: u64,
    to_pump: Vec<(MemberId, usize)>,
    to_flush: Vec<ConnId>,
    items: Vec<Item>,
    deadlines: BinaryHeap<Reverse<(Instant, MemberId, usize)>>,
    /// When lines of connections that were held back may be followed by others.
    releases: BinaryHeap<Reverse<(Instant, ConnId)>>,
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
            settling: BTreeMap::new(),
            conns: BTreeMap::new(),
            accepted_count: 0,
            requests: BTreeMap::new(),
            next_request: 0,
            to_pump: Vec::new(),
            to_flush: Vec::new(),
            items: Vec::new(),
            deadlines: BinaryHeap::new(),
            releases: BinaryHeap::new(),
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
            return;
        }
        let lanes_count = self.lanes_count;
        let settled = self.settling.get(&entry.address).copied();
        let peer =
            self.peers.entry(entry.id).or_insert_with(|| Peer::new(&entry, lanes_count, settled));
        let lane = if planted!(self.shared, AnyLane) {
            index.wrapping_add(message.payload_bytes) % peer.lanes.len()
        } else {
            peer.choose(message)
        };
        peer.lanes[lane].push(queued);
        self.to_pump.push((entry.id, lane));
    }

    fn cut(&mut self, member: MemberId, status: Status, io: &mut impl Io) {
        let Some(mut peer) = self.peers.remove(&member) else { return };
        let now = io.now();
        self.settling.retain(|_, until| *until > now);
        if let Some(lane) = peer.lanes.iter().find(|lane| lane.conn().is_some()) {
            self.settling.insert(lane.address(), now.plus_ms(SETTLE_MS));
        }
        for lane in &mut peer.lanes {
            if let Some(conn) = lane.conn() {
                self.conns.insert(conn, Role::Leaving);
            }
            lane.cut(status, &self.shared, io);
        }
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
        for role in self.conns.values_mut() {
            if let Role::Accepted(accepted) = role {
                accepted.close(false, &self.crew.lines, &self.shared, io);
            }
        }
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

    fn lane(&mut self, conn: ConnId) -> Option<(&mut Lane, MemberId, usize)> {
        let Some(Role::Lane { member, lane }) = self.conns.get(&conn) else { return None };
        let (member, lane) = (*member, *lane);
        let peer = self.peers.get_mut(&member)?;
        Some((&mut peer.lanes[lane], member, lane))
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
        self.accepted_count += 1;
        let number = self.crew.accepted_number.fetch_add(1, Ordering::Relaxed);
        let accepted = Accepted::new(self.index, conn, peer, number);
        self.conns.insert(conn, Role::Accepted(Box::new(accepted)));
        io.arm_receive(conn);
    }

    fn connected(&mut self, request: u64, conn: ConnId, io: &mut impl Io) {
        let wanted = self.requests.remove(&request).filter(|(member, lane)| {
            self.peers
                .get_mut(member)
                .is_some_and(|peer| peer.lanes[*lane].connected(request, conn, io))
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

    fn closed(&mut self, conn: ConnId, io: &mut impl Io) {
        match self.conns.remove(&conn) {
            Some(Role::Lane { member, lane }) => {
                if let Some(peer) = self.peers.get_mut(&member) {
                    let ask = peer.lanes[lane].closed(conn, &self.shared, io);
                    self.ask(ask, member, lane);
                }
            }
            Some(Role::Accepted(mut accepted)) => {
                self.accepted_count -= 1;
                self.orphans
                    .extend(accepted.running().map(|(sequence, seen)| ((conn, sequence), seen)));
            }
            Some(Role::Leaving) | None => {}
        }
    }

    fn ask(&mut self, ask: Ask, member: MemberId, lane: usize) {
        if ask == Ask::Pump {
            self.to_pump.push((member, lane));
        }
    }

    fn expire(&mut self, io: &mut impl Io) {
        let now = io.now();
        while let Some(Reverse((due, member, lane))) = self.deadlines.peek().copied() {
            if due > now {
                break;
            }
            self.deadlines.pop();
            if let Some(peer) = self.peers.get_mut(&member) {
                peer.lanes[lane].timer = None;
                let ask = peer.lanes[lane].expire(&self.shared, io);
                self.ask(ask, member, lane);
            }
        }
        while let Some(Reverse((due, conn))) = self.releases.peek().copied() {
            if due > now {
                break;
            }
            self.releases.pop();
            if let Some(Role::Accepted(accepted)) = self.conns.get_mut(&conn)
                && accepted.held_until == Some(due)
            {
                accepted.release_line(&self.crew.lines, &self.shared);
            }
        }
    }

    fn pump(&mut self, io: &mut impl Io) {
        let mut to_pump = std::mem::take(&mut self.to_pump);
        to_pump.sort_unstable();
        to_pump.dedup();
        for (member, lane_index) in to_pump.drain(..) {
            let Some(peer) = self.peers.get_mut(&member) else { continue };
            let lane = &mut peer.lanes[lane_index];
            if lane.pump(&self.shared, self.next_request, io) {
                self.requests.insert(self.next_request, (member, lane_index));
                self.next_request += 1;
            }
            if let Some(due) = lane.deadline()
                && lane.timer.is_none_or(|set| due < set)
            {
                lane.timer = Some(due);
                self.deadlines.push(Reverse((due, member, lane_index)));
            }
        }
        self.to_pump = to_pump;
    }

    fn flush(&mut self, io: &mut impl Io) {
        let mut to_flush = std::mem::take(&mut self.to_flush);
        to_flush.sort_unstable();
        to_flush.dedup();
        for conn in to_flush.drain(..) {
            if let Some(Role::Accepted(accepted)) = self.conns.get_mut(&conn) {
                accepted.flush(&self.crew.lines, &self.shared, io);
            }
        }
        self.to_flush = to_flush;
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
            Order::Resume { conn } => {
                if let Some(Role::Accepted(accepted)) = self.conns.get_mut(&conn) {
                    accepted.resume(io);
                    self.releases.extend(accepted.held_until.map(|due| Reverse((due, conn))));
                }
            }
            Order::Cut { entry, status } => self.cut(entry.id, status, io),
            Order::CloseAccepted => self.close_accepted(io),
            Order::Close { status } => self.close(status, io),
        }
    }

    fn event<I: Io>(&mut self, event: IoEvent<'_>, io: &mut I) {
        let shared = Arc::clone(&self.shared);
        let crew = Arc::clone(&self.crew);
        match event {
            IoEvent::Accepted { conn, peer } => self.accept(conn, peer, io),
            IoEvent::HandedOver { conn, peer, .. } => self.accept(conn, peer, io),
            IoEvent::Connected { request, conn } => self.connected(request, conn, io),
            IoEvent::ConnectFailed { request, error } => {
                let Some((member, lane)) = self.requests.remove(&request) else { return };
                if let Some(peer) = self.peers.get_mut(&member) {
                    peer.lanes[lane].connect_failed(request, error, &shared, io);
                    self.to_pump.push((member, lane));
                }
            }
            IoEvent::Received { conn, bytes } => {
                if let Some(Role::Accepted(accepted)) = self.conns.get_mut(&conn) {
                    accepted.received(bytes, &mut self.items, &crew.lines, &shared, io);
                    shared.deliveries.push(&mut self.items);
                    accepted.hold_back(&crew.lines, &shared, io);
                    self.to_flush.push(conn);
                } else if let Some((lane, member, index)) = self.lane(conn) {
                    let ask = lane.received(conn, bytes, &shared, io);
                    self.ask(ask, member, index);
                }
            }
            IoEvent::ReceiveEnded { conn, error } => {
                if let Some(Role::Accepted(accepted)) = self.conns.get_mut(&conn) {
                    accepted.receive_ended(error, &crew.lines, &shared, io);
                } else if let Some((lane, ..)) = self.lane(conn) {
                    lane.lost(conn, &shared, io);
                }
            }
            IoEvent::Paused { conn } => {
                if let Some(Role::Accepted(accepted)) = self.conns.get_mut(&conn) {
                    accepted.paused(io);
                    self.releases.extend(accepted.held_until.map(|due| Reverse((due, conn))));
                }
            }
            IoEvent::Sent { conn, batch, result } => {
                if let Some(Role::Accepted(accepted)) = self.conns.get_mut(&conn) {
                    accepted.sent(batch, result, &crew.lines, &shared, io);
                    self.to_flush.push(conn);
                } else if let Some((lane, member, index)) = self.lane(conn) {
                    let ask = lane.sent(conn, batch, result, &shared, io);
                    self.ask(ask, member, index);
                }
            }
            IoEvent::Closed { conn } => self.closed(conn, io),
        }
    }

    fn finish_turn<I: Io>(&mut self, io: &mut I) {
        self.expire(io);
        self.pump(io);
        self.flush(io);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let lane = self.deadlines.peek().map(|Reverse((due, ..))| *due);
        let release = self.releases.peek().map(|Reverse((due, _))| *due);
        lane.into_iter().chain(release).min()
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
