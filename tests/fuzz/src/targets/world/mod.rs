//! A node's workers among hostile peers: the real cores on a kernel that does what a script says.
//!
//! What must hold: no panic, the rules of the seam (`kernel`), memory within what was sent, an end to
//! every message and every connection.

mod says;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ringtribe::delivery::{Delivery, Polled, PollerClass};
use ringtribe::directory::{Identity, Incarnation, Vitals};
use ringtribe::event::Event;
use ringtribe::ids::{BootId, Instant, Key, MemberId};
use ringtribe::io::{ConnId, Errno, Evidence, IoEvent};
use ringtribe::message::Waiter;
use ringtribe::order::{Order, Orders};
use ringtribe::protocol::core::{Crew, WorkerCore};
use ringtribe::protocol::membership::{LocalMember, Output};
use ringtribe::shared::{Bounds, Shared};
use ringtribe::status::Status;
use ringtribe::submit::Envelope;
use ringtribe::worker::Core;

use super::allocations::held_bytes;
use super::kernel::{Kernel, Report, View};
use super::script::Script;

const MS: u64 = 1_000_000;
const WORKERS_COUNT: u16 = 2;
const ACK_TIMEOUT_MS: u64 = 1_000;
const DROP_TIME_MS: u64 = 1_000;
const CONNECTIONS_COUNT: usize = 8;
const RECEIVE_BYTES: usize = 40_000;
/// Acts of one script at most.
const ACTS_COUNT: usize = 400;
const OWN_BOOT_ID: [u8; 16] = [0xee; 16];
const CLUSTER: &str = "production";
const SESSION: &[u8] = include_bytes!("../../../../../wire/testdata/java/session-delta.bin");

/// Bytes that a node may hold for a connection though little came on it: its first room, what is due
/// on it.
const CONNECTION_BYTES: usize = 80 << 10;
/// And for itself: log records, tables.
const NODE_BYTES: usize = 1 << 20;

#[derive(Default)]
struct Inboxes(Mutex<[VecDeque<Order>; WORKERS_COUNT as usize]>);

impl Orders for Inboxes {
    fn push(&self, worker: u16, order: Order) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all[usize::from(worker)].push_back(order);
    }
}

struct World {
    shared: Arc<Shared>,
    inboxes: Arc<Inboxes>,
    cores: Vec<WorkerCore>,
    kernel: Kernel,
    held: Vec<Delivery>,
    /// Completions that came of each message that was submitted.
    tokens: BTreeMap<u64, u32>,
    entries: Vec<Arc<ringtribe::directory::MemberEntry>>,
    opened_count: usize,
    fed_bytes: usize,
    base_bytes: isize,
}

fn package(who: u8) -> Vec<u8> {
    let member = LocalMember {
        host: vec![127, 0, 0, 1],
        port: 39_000 + i32::from(who),
        secure_port: -1,
        udp_port: -1,
        unique_id: [who; 16],
        ..LocalMember::default()
    };
    member.package(1)
}

impl World {
    fn new() -> Self {
        let base_bytes = held_bytes();
        let bounds = Bounds {
            worker_count: WORKERS_COUNT,
            pool_size: 4,
            ack_timeout_ms: ACK_TIMEOUT_MS,
            max_message_bytes: 20_000,
            max_queue_bytes: 60_000,
            max_receive_bytes: RECEIVE_BYTES,
            max_connections: CONNECTIONS_COUNT,
            echo_ms: 200,
            drop_time_ms: DROP_TIME_MS,
            cluster_name: CLUSTER.into(),
            ..Bounds::default()
        };
        let inboxes = Arc::new(Inboxes::default());
        let orders: Arc<dyn Orders> = Arc::clone(&inboxes) as Arc<dyn Orders>;
        let shared = Shared::new(bounds, BootId(OWN_BOOT_ID), orders);
        shared.set_local_package(package(0).into());
        let crew = Arc::new(Crew::default());
        let core = |index| WorkerCore::new(Arc::clone(&shared), Arc::clone(&crew), index);
        let cores = (0..WORKERS_COUNT).map(core).collect();
        let kernel = Kernel::at(1_000 * MS);
        Self {
            shared,
            inboxes,
            cores,
            kernel,
            held: Vec::new(),
            tokens: BTreeMap::new(),
            entries: Vec::new(),
            opened_count: 0,
            fed_bytes: 0,
            base_bytes,
        }
    }

    /// One of the connections of either side.
    fn conn(&self, number: u8, accepted: bool) -> Option<ConnId> {
        let of_side = self.kernel.conns.iter().filter(|(_, conn)| conn.accepted == accepted);
        let conns: Vec<ConnId> = of_side.map(|(conn, _)| *conn).collect();
        let count = conns.len();
        (count > 0).then(|| conns[count - 1 - usize::from(number) % count])
    }

    fn turn(&mut self, worker: u16, act: impl FnOnce(&mut WorkerCore, &mut View<'_>)) {
        let core = &mut self.cores[usize::from(worker)];
        let mut view = View { kernel: &mut self.kernel, worker };
        act(core, &mut view);
        core.finish_turn(&mut view);
    }

    /// Lets everything happen that waits for nothing else.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "it does not come to rest");
            let mut happened = false;
            for worker in 0..WORKERS_COUNT {
                let orders = {
                    let mut all = self.inboxes.0.lock().unwrap_or_else(PoisonError::into_inner);
                    std::mem::take(&mut all[usize::from(worker)])
                };
                for order in orders {
                    happened = true;
                    self.turn(worker, |core, io| core.order(order, io));
                }
            }
            while let Some((worker, report)) = self.kernel.next_report() {
                happened = true;
                self.turn(worker, |core, io| {
                    let event = match report {
                        Report::Paused(conn) => IoEvent::Paused { conn },
                        Report::Sent(conn, batch, result) => IoEvent::Sent { conn, batch, result },
                        Report::Closed(conn) => IoEvent::Closed { conn },
                        Report::HandedOver { conn, peer, read } => {
                            IoEvent::HandedOver { conn, peer, read }
                        }
                    };
                    core.event(event, io);
                });
            }
            for (member, evidence) in std::mem::take(&mut self.kernel.evidence) {
                if let Evidence::Ended(cause) = evidence {
                    self.shared.cut(member, cause);
                }
            }
            if !self.kernel.send_all() && !happened {
                break;
            }
        }
        let most_bytes = NODE_BYTES
            + CONNECTION_BYTES * self.opened_count
            + 8 * (self.fed_bytes + RECEIVE_BYTES);
        let held_bytes = held_bytes() - self.base_bytes;
        assert!(
            held_bytes <= most_bytes.cast_signed(),
            "{held_bytes} bytes are held for {} that came on {} connections",
            self.fed_bytes,
            self.opened_count
        );
        assert!(self.kernel.accepted_count() <= CONNECTIONS_COUNT, "connections stay bounded");
    }

    /// Bytes come on a connection, if it is read.
    fn feed(&mut self, conn: ConnId, bytes: &[u8]) {
        let Some(found) = self.kernel.conns.get(&conn) else { return };
        if bytes.is_empty() || !found.armed || found.closing || found.ended {
            return;
        }
        let worker = found.worker;
        self.fed_bytes += bytes.len();
        self.turn(worker, |core, io| core.event(IoEvent::Received { conn, bytes }, io));
        self.settle();
    }

    /// The same in up to two pieces, or the first of them only.
    fn feed_cut(&mut self, conn: ConnId, bytes: &[u8], script: &mut Script<'_>) {
        match script.u8() {
            0..=127 => self.feed(conn, bytes),
            128..=223 => {
                let at = usize::from(script.u16()) % (bytes.len() + 1);
                self.feed(conn, &bytes[..at]);
                self.feed(conn, &bytes[at..]);
            }
            _ => {
                let at = usize::from(script.u16()) % (bytes.len() + 1);
                self.feed(conn, &bytes[..at]);
            }
        }
    }

    fn open(&mut self, worker: u16) {
        let peer = self.kernel.stranger();
        let conn = self.kernel.open(worker, peer, true);
        self.opened_count += 1;
        self.turn(worker, |core, io| core.event(IoEvent::Accepted { conn, peer }, io));
        self.settle();
    }

    /// Time passes; each worker has its turns when they are due.
    fn later(&mut self, ms: u64) {
        let until = self.kernel.now + ms * MS;
        for round in 0.. {
            assert!(round < 20_000, "its deadlines do not come to rest");
            let due = self.cores.iter().filter_map(Core::next_deadline).min();
            let due = due.map_or(until, |due| due.0.max(self.kernel.now + MS).min(until));
            self.kernel.now = due;
            for worker in 0..WORKERS_COUNT {
                self.turn(worker, |_, _| {});
            }
            self.settle();
            if due == until {
                return;
            }
        }
    }

    /// All that can be taken is taken; what is a message is kept.
    fn poll(&mut self, class: PollerClass) {
        let mut taken = Vec::new();
        let deliveries = Arc::clone(&self.shared.deliveries);
        let now = Instant(self.kernel.now);
        while deliveries.try_poll(class, 1 << 30, 4, now, &mut taken).is_some() {
            for polled in taken.drain(..) {
                match polled {
                    Polled::Message(delivery) => {
                        assert!(delivery.incoming().payload().len() <= self.fed_bytes);
                        self.held.push(delivery);
                    }
                    Polled::Event(Event::Completed { token, .. }) => {
                        *self.tokens.get_mut(&token).expect("a message of ours") += 1;
                    }
                    Polled::Event(Event::Gap { member, .. }) => self.shared.repaired(member),
                    Polled::Event(_) => {}
                }
            }
        }
        self.settle();
    }

    fn finish(&mut self, number: u8, status: Status) {
        if !self.held.is_empty() {
            let at = usize::from(number) % self.held.len();
            self.held.swap_remove(at).complete(status);
            self.settle();
        }
    }

    fn add(&mut self, who: u8, speaks: bool) {
        let identity = Identity {
            host: vec![127, 0, 0, 1],
            port: 39_000 + i32::from(who),
            unique_id: [who; 16],
        };
        let boot_id = BootId([who; 16]);
        let incarnation =
            speaks.then_some(Incarnation { boot_id, features: 0, version_min: 1, version_max: 1 });
        let vitals = Vitals::default();
        self.shared.apply(Output::Added { identity, package: package(who), incarnation, vitals });
        self.settle();
        for entry in self.shared.directory.entries() {
            if self.entries.iter().all(|known| known.id != entry.id) {
                self.entries.push(entry);
            }
        }
    }

    fn cut(&mut self, who: u8, status: Status) {
        let entries = self.shared.directory.entries();
        if let Some(entry) = entries.get(usize::from(who) % entries.len().max(1)) {
            self.shared.cut(entry.id, status);
            self.settle();
        }
    }

    fn submit(&mut self, script: &mut Script<'_>) {
        let members: Vec<MemberId> =
            self.shared.directory.entries().iter().map(|entry| entry.id).collect();
        let mask = script.u8();
        let to: Vec<MemberId> = (0..)
            .zip(&members)
            .filter(|(at, _)| mask >> (at % 8) & 1 == 0)
            .map(|(_, m)| *m)
            .collect();
        let options = [7, 3, 9, 1, 0, 2, 6][usize::from(script.u8() % 7)];
        let bytes = [0, 1, 50, 300, 5_000, 20_000][usize::from(script.u8() % 6)];
        let key = script.u8();
        let token = self.tokens.len() as u64;
        let envelope = Envelope { options, timestamp_ms: 1, unique_id: [key; 16] };
        let builder = self.shared.compose(bytes, &envelope).expect("in bounds");
        let builder = if key & 1 == 1 { builder.short() } else { builder };
        let key = (key > 9).then(|| Key::of(&[key]));
        let deadline = Instant(self.kernel.now).plus_ms(ACK_TIMEOUT_MS);
        let reply = mask & 0x80 != 0;
        if to.is_empty() {
            return;
        }
        self.tokens.insert(token, 0);
        let routed = self.shared.route(builder, key, reply, &to, deadline, Waiter::Token(token));
        match routed.try_admit() {
            Ok(tokens) => self.shared.dispatch(routed, tokens),
            Err(_) => {
                for (index, _) in &routed.live {
                    self.shared.complete(&routed.message, *index, Status::QueueFull);
                }
            }
        }
        self.settle();
    }

    /// A connection that was asked for is there, or is not.
    fn connected(&mut self, is_there: bool) {
        let Some(asked) = self.kernel.asked.pop_front() else { return };
        let (worker, request) = (asked.worker, asked.request);
        if is_there {
            let conn = self.kernel.open(worker, asked.address, false);
            self.opened_count += 1;
            self.turn(worker, |core, io| core.event(IoEvent::Connected { request, conn }, io));
        } else {
            let error = Errno(111);
            self.turn(worker, |core, io| {
                core.event(IoEvent::ConnectFailed { request, error }, io);
            });
        }
        self.settle();
    }

    fn end(&mut self, conn: ConnId, error: Option<Errno>) {
        let Some(found) = self.kernel.conns.get_mut(&conn) else { return };
        if !found.armed || found.closing || found.ended {
            return;
        }
        found.ended = true;
        let worker = found.worker;
        self.turn(worker, |core, io| core.event(IoEvent::ReceiveEnded { conn, error }, io));
        self.settle();
    }

    /// Everything is over: all messages and connections come to their end.
    fn close(mut self) {
        for conn in self.kernel.conns.values_mut() {
            conn.stuck = false;
        }
        self.settle();
        let orders = self.shared.orders();
        (0..WORKERS_COUNT).for_each(|worker| {
            orders.push(worker, Order::Close { status: Status::Closed });
        });
        self.settle();
        while !self.kernel.asked.is_empty() {
            self.connected(false);
        }
        // Each round takes a few messages of each line, and lines wait for lines.
        for _ in 0..40 {
            self.later(ACK_TIMEOUT_MS);
            self.poll(PollerClass::General);
            self.poll(PollerClass::Reserved);
            while !self.held.is_empty() {
                self.finish(0, Status::Ok);
            }
        }
        assert!(self.kernel.conns.is_empty(), "a connection is left: {:?}", self.kernel.conns);
        assert!(self.cores.iter().all(Core::is_finished), "a worker does not end");
        for (token, count) in &self.tokens {
            assert_eq!(*count, 1, "message {token} completes once");
        }
        for entry in &self.entries {
            let used_bytes = entry.budget.used_and_most_bytes().0;
            assert_eq!(used_bytes, 0, "what is queued gives its budget back");
        }
        assert_eq!(self.shared.deliveries.used_bytes(), 0, "every delivery ends");
    }

    fn act(&mut self, op: u8, script: &mut Script<'_>) {
        match op {
            0 => self.open(u16::from(script.u8()) % WORKERS_COUNT),
            1..=6 => {
                let Some(conn) = self.conn(script.u8(), true) else { return };
                match op {
                    1 => self.raw(conn, script),
                    2 => self.hello(conn, script),
                    3 | 4 => self.data(conn, script),
                    5 => self.frame(conn, script),
                    _ => self.tribes(conn, script),
                }
            }
            7..=9 => {
                let Some(conn) = self.conn(script.u8(), false) else { return };
                match op {
                    7 => self.answer(conn, script),
                    8 => self.frame(conn, script),
                    _ => self.raw(conn, script),
                }
            }
            10 | 11 => {
                let Some(conn) = self.conn(script.u8(), op == 10) else { return };
                let error = (script.u8() & 1 == 1).then_some(Errno(104));
                self.end(conn, error);
            }
            12 | 13 => {
                let Some(conn) = self.conn(script.u8(), op == 12) else { return };
                let (kind, bytes) = (script.u8(), usize::from(script.u16()));
                let Some(found) = self.kernel.conns.get_mut(&conn) else { return };
                found.stuck = kind & 1 == 1;
                self.kernel.progress(conn, bytes, (kind & 6 == 6).then_some(Errno(32)));
                self.settle();
            }
            14 => self.later(u64::from(script.u8()) * 8),
            15 => {
                // The process stood still.
                self.kernel.now += u64::from(script.u8()) * 50 * MS;
                self.later(1);
            }
            16 => self.poll(PollerClass::General),
            17 => self.poll(PollerClass::Reserved),
            18 => {
                let (number, failed) = (script.u8(), script.u8() & 3 == 3);
                self.finish(number, if failed { Status::RemoteFailed } else { Status::Ok });
            }
            19 => self.add(1 + script.u8() % 4, script.u8() & 1 == 0),
            20 => {
                let causes = [Status::Cut, Status::Goodbye, Status::Refused];
                self.cut(script.u8(), causes[usize::from(script.u8() % 3)]);
            }
            21 => self.submit(script),
            22 => self.connected(script.u8() & 7 != 7),
            23 => {
                let is_final = script.u8() & 1 == 1;
                self.shared.orders().push(0, Order::Goodbye { is_final });
                self.settle();
            }
            _ => {
                let entries = self.shared.directory.entries();
                let entry = entries.get(usize::from(script.u8()) % entries.len().max(1));
                if let Some(entry) = entry.filter(|entry| entry.boot_id().is_some()) {
                    let (entry, token) = (Arc::clone(entry), script.u64());
                    self.shared.orders().push(0, Order::AskJoin { entry, token });
                    self.settle();
                }
            }
        }
    }
}

fn play(mut world: World, input: &[u8], ops: &[u8]) {
    let mut script = Script::new(input);
    for _ in 0..ACTS_COUNT {
        if script.is_over() {
            break;
        }
        let op = ops[usize::from(script.u8()) % ops.len()];
        world.act(op, &mut script);
    }
    world.close();
}

/// Hostile peers connect to the node.
pub fn accept(input: &[u8]) {
    let ops = [0, 1, 2, 3, 4, 5, 6, 0, 2, 3, 6, 10, 12, 14, 15, 16, 17, 18, 19, 20];
    play(World::new(), input, &ops);
}

/// The node sends to members that answer as they like.
pub fn send(input: &[u8]) {
    let mut world = World::new();
    world.add(1, true);
    world.add(2, false);
    let ops = [21, 22, 7, 8, 9, 11, 13, 14, 17, 20, 19, 21, 22, 7, 8, 23, 24, 15, 22, 7];
    play(world, input, &ops);
}
