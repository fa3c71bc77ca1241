//! A cluster in one thread: the real core, membership and delivery queue of every node, on a
//! simulated kernel, network and clock. One seed, one history.

mod application;
mod check;
mod net;
mod random;

use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ringtribe::delivery::Delivery;
use ringtribe::directory::Incarnation;
use ringtribe::ids::{BootId, Instant, MemberId};
use ringtribe::io::{ConnId, IoEvent};
use ringtribe::order::{Order, Orders};
use ringtribe::protocol::core::{Crew, WorkerCore};
use ringtribe::protocol::membership::{Input, LocalMember, Membership, Output, ProbeResult};
use ringtribe::shared::{Bounds, Planted, Shared};
use ringtribe::worker::Core;

use check::Checker;
pub use net::Faults;
use net::{Effect, Net, Occurrence, Place, SimIo};
use random::Random;

const MS: u64 = 1_000_000;
const NODES_COUNT: usize = 3;
const WORKERS_COUNT: u16 = 2;
const POLLERS_COUNT: usize = 4;
const KEYS_COUNT: u64 = 5;
/// How long messages are sent and faults happen.
const STORM_NS: u64 = 4_000 * MS;
/// How long everything then has to settle: acknowledgements time out, members come back.
const CALM_NS: u64 = 12_000 * MS;
const ACK_TIMEOUT_MS: u64 = 2_500;

/// What a history was like.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The first sentence of the promise that did not hold.
    pub broken: Option<String>,
    /// Events that happened.
    pub events_count: u64,
    /// Messages delivered.
    pub delivered_count: u64,
    /// Outcomes acknowledged as applied.
    pub acknowledged_count: u64,
    /// Messages that failed at some member, by name.
    pub failed_count: u64,
    /// Frames recognised as sent again.
    pub duplicates_count: u64,
    /// A fingerprint of the history: equal for equal seeds.
    pub fingerprint: u64,
}

enum Happening {
    Worker { place: Place, what: Occurrence },
    Turn { place: Place },
    Datagram { to: usize, bytes: Vec<u8>, from: SocketAddr },
    Probe { node: usize, life: u32, probe: u64, result: ProbeResult },
    MembershipTick { node: usize, life: u32 },
    Poll { node: usize, life: u32 },
    ListenerEnds { node: usize, life: u32, listener: u64 },
    Submit { node: usize, life: u32 },
    Crash { node: usize },
    Restart { node: usize },
}

/// The inboxes of a node.
#[derive(Default)]
struct Inboxes(Mutex<Vec<VecDeque<Order>>>);

impl Orders for Inboxes {
    fn push(&self, worker: u16, order: Order) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = all.get_mut(usize::from(worker)) {
            queue.push_back(order);
        }
    }
}

struct Node {
    life: u32,
    shared: Arc<Shared>,
    inboxes: Arc<Inboxes>,
    cores: Vec<Option<WorkerCore>>,
    turns: Vec<Option<u64>>,
    membership: Membership,
    membership_tick: Option<u64>,
    listeners: BTreeMap<u64, Vec<Delivery>>,
    members: BTreeMap<MemberId, usize>,
    next_accepting: usize,
}

struct World {
    now: u64,
    random: Random,
    faults: Faults,
    calm: bool,
    /// No fault was asked for.
    kind: bool,
    formats: Formats,
    planted: Option<Planted>,
    queue: BinaryHeap<std::cmp::Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next_happening: u64,
    nodes: Vec<Option<Node>>,
    lives: Vec<u32>,
    net: Net,
    checker: Checker,
    effects: Vec<Effect>,
    next_message: u64,
    next_listener: u64,
    crashes_left_count: u64,
    duplicates_count: u64,
    fingerprint: u64,
    events_count: u64,
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 4000 + u16::try_from(node).unwrap_or(0)))
}

fn node_of(address: SocketAddr) -> usize {
    usize::from(address.port().saturating_sub(4000))
}

/// Which nodes of a history speak the own format; between the others, and towards them, it is Tribes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Formats {
    Own,
    Tribes,
    /// The last node does not speak it.
    Mixed,
}

impl Formats {
    /// Most histories are about the own format.
    const fn of(seed: u64) -> Self {
        match seed / 5 % 4 {
            0 | 1 => Self::Own,
            2 => Self::Tribes,
            _ => Self::Mixed,
        }
    }

    const fn speaks_own(self, node: usize) -> bool {
        match self {
            Self::Own => true,
            Self::Tribes => false,
            Self::Mixed => node + 1 < NODES_COUNT,
        }
    }
}

/// Plays the history of `seed`.
#[must_use]
pub fn play(seed: u64, faults: Faults, planted: Option<Planted>) -> Report {
    let mut world = World {
        now: 0,
        random: Random::new(seed),
        faults,
        calm: false,
        kind: faults.is_none(),
        formats: Formats::of(seed),
        planted,
        queue: BinaryHeap::new(),
        happenings: BTreeMap::new(),
        next_happening: 0,
        nodes: (0..NODES_COUNT).map(|_| None).collect(),
        lives: vec![0; NODES_COUNT],
        net: Net::default(),
        checker: Checker::default(),
        effects: Vec::new(),
        next_message: 0,
        next_listener: 0,
        crashes_left_count: faults.crashes_count,
        duplicates_count: 0,
        fingerprint: seed,
        events_count: 0,
    };
    world.run();
    Report {
        seed,
        broken: world.checker.broken().map(str::to_owned),
        events_count: world.events_count,
        delivered_count: world.checker.delivered_count,
        acknowledged_count: world.checker.acknowledged_count,
        failed_count: world.checker.failed_count,
        duplicates_count: world.duplicates_count,
        fingerprint: world.fingerprint,
    }
}

impl World {
    fn at(&mut self, at: u64, happening: Happening) {
        let id = self.next_happening;
        self.next_happening += 1;
        self.happenings.insert(id, happening);
        self.queue.push(std::cmp::Reverse((at, id)));
    }

    fn soon(&mut self, least_ns: u64, most_ns: u64, happening: Happening) {
        let at = self.now + self.random.between(least_ns, most_ns);
        self.at(at, happening);
    }

    fn run(&mut self) {
        for node in 0..NODES_COUNT {
            self.soon(0, 300 * MS, Happening::Restart { node });
        }
        if self.crashes_left_count > 0 {
            let node = self.random.index(NODES_COUNT);
            self.soon(1000 * MS, 3000 * MS, Happening::Crash { node });
        }
        while let Some(std::cmp::Reverse((at, id))) = self.queue.pop() {
            if at > STORM_NS + CALM_NS || self.checker.broken().is_some() {
                break;
            }
            if at > STORM_NS && !self.calm {
                self.calm = true;
                self.faults = Faults::NONE;
            }
            self.now = at;
            self.events_count += 1;
            self.fingerprint =
                (self.fingerprint ^ at ^ id).rotate_left(13).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if let Some(happening) = self.happenings.remove(&id) {
                self.happen(happening);
                self.settle_effects();
            }
        }
        self.judge_end();
    }

    fn judge_end(&mut self) {
        if self.checker.broken().is_some() {
            return;
        }
        self.checker.settled(self.kind);
        for node in self.nodes.iter().flatten() {
            self.duplicates_count += counter(&node.shared, "duplicates_count");
            let used: usize = node
                .shared
                .directory
                .entries()
                .iter()
                .map(|entry| entry.budget.used_and_most_bytes().0)
                .sum();
            self.checker.require(used == 0, "what is queued gives its budget back exactly once");
            self.checker.require(
                node.shared.deliveries.used_bytes() == 0,
                "every delivery ends with an outcome",
            );
            self.checker.require(
                node.membership.members().len() == NODES_COUNT - 1,
                "after the faults heal everyone sees everyone",
            );
        }
        for (from, to) in self.ended_epochs() {
            self.checker.epoch_ended(from, to);
        }
        for node in 0..NODES_COUNT {
            // Lanes to two members and from them, and what is being opened or closed.
            self.checker.require(self.net.count(node) <= 250, "connections stay bounded");
        }
    }

    /// Links between living nodes of which an epoch ended.
    fn ended_epochs(&self) -> Vec<((usize, u32), (usize, u32))> {
        let mut ended = Vec::new();
        for (from, running) in self.nodes.iter().enumerate() {
            let Some(running) = running else { continue };
            for entry in running.shared.directory.entries() {
                let to = node_of(entry.address);
                if let (Some(_), Some(other)) = (entry.after_cut.get(), &self.nodes[to]) {
                    ended.push(((from, running.life), (to, other.life)));
                }
            }
        }
        ended
    }

    fn node(&mut self, node: usize, life: u32) -> Option<&mut Node> {
        self.nodes[node].as_mut().filter(|running| running.life == life)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Worker { place, what } => self.worker(place, Some(what)),
            Happening::Turn { place } => self.worker(place, None),
            Happening::Datagram { to, bytes, from } => {
                self.membership(to, None, Input::Datagram { bytes: &bytes, from });
            }
            Happening::Probe { node, life, probe, result } => {
                self.membership(node, Some(life), Input::ProbeEnded { probe, result });
            }
            Happening::MembershipTick { node, life } => {
                let now = self.now;
                let Some(running) = self.node(node, life) else { return };
                if running.membership_tick != Some(now) {
                    return;
                }
                running.membership_tick = None;
                self.membership(node, Some(life), Input::Tick);
            }
            Happening::Poll { node, life } => self.poll(node, life),
            Happening::ListenerEnds { node, life, listener } => {
                self.listener_ends(node, life, listener);
            }
            Happening::Submit { node, life } => self.submit(node, life),
            Happening::Crash { node } => self.crash(node),
            Happening::Restart { node } => self.restart(node),
        }
    }

    /// Gives a worker its orders and perhaps an event, and ends its turn.
    fn worker(&mut self, place: Place, what: Option<Occurrence>) {
        let now = self.now;
        let Some(node) =
            self.nodes[place.node].as_mut().filter(|running| running.life == place.life)
        else {
            return;
        };
        if what.is_none() {
            // A turn that was put forward leaves its former time behind.
            if node.turns[place.worker] != Some(now) {
                return;
            }
            node.turns[place.worker] = None;
        }
        let Some(mut core) = node.cores[place.worker].take() else { return };
        let orders = {
            let mut all = node.inboxes.0.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut all[place.worker])
        };
        // Bytes are read outside of the borrow that the core's calls need.
        let event = match what {
            Some(Occurrence::Readable { conn }) => self
                .net
                .read(place, conn, now, &mut self.random, &mut self.effects)
                .map(|read| Stimulus::Read(conn, read)),
            Some(Occurrence::Closed { conn }) => {
                self.net.forget(place, conn);
                Some(Stimulus::Other(Occurrence::Closed { conn }))
            }
            Some(Occurrence::Sent { conn, batch, result }) => {
                self.net.send_reported(place, conn);
                Some(Stimulus::Other(Occurrence::Sent { conn, batch, result }))
            }
            other => other.map(Stimulus::Other),
        };
        let mut io = SimIo {
            net: &mut self.net,
            random: &mut self.random,
            place,
            now,
            faults: self.faults,
            effects: &mut self.effects,
        };
        for order in orders {
            core.order(order, &mut io);
        }
        match event {
            Some(Stimulus::Read(conn, Ok(bytes))) => {
                core.event(IoEvent::Received { conn, bytes: &bytes }, &mut io);
            }
            Some(Stimulus::Read(conn, Err(error))) => {
                core.event(IoEvent::ReceiveEnded { conn, error }, &mut io);
            }
            Some(Stimulus::Other(what)) => {
                let event = match what {
                    Occurrence::Connected { request, conn } => IoEvent::Connected { request, conn },
                    Occurrence::ConnectFailed { request, error } => {
                        IoEvent::ConnectFailed { request, error }
                    }
                    Occurrence::Accepted { conn, peer } => IoEvent::Accepted { conn, peer },
                    Occurrence::HandedOver { conn, peer, read } => {
                        IoEvent::HandedOver { conn, peer, read }
                    }
                    Occurrence::Paused { conn } | Occurrence::Readable { conn } => {
                        IoEvent::Paused { conn }
                    }
                    Occurrence::Sent { conn, batch, result } => {
                        IoEvent::Sent { conn, batch, result }
                    }
                    Occurrence::Closed { conn } => IoEvent::Closed { conn },
                };
                core.event(event, &mut io);
            }
            None => {}
        }
        core.finish_turn(&mut io);
        let deadline = core.next_deadline();
        if let Some(node) = self.nodes[place.node].as_mut() {
            node.cores[place.worker] = Some(core);
        }
        if let Some(due) = deadline {
            self.wake(place, due.0.max(now + 1));
        }
    }

    /// Makes sure that a worker has a turn at `at` at the latest.
    fn wake(&mut self, place: Place, at: u64) {
        let Some(node) = self.nodes[place.node].as_mut() else { return };
        if node.turns[place.worker].is_none_or(|set| at < set) {
            node.turns[place.worker] = Some(at);
            self.at(at, Happening::Turn { place });
        }
    }

    fn settle_effects(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::At { at, place, what } => {
                        self.at(at.max(self.now), Happening::Worker { place, what });
                    }
                    Effect::Connect { from, request, address } => {
                        self.connect(from, request, address);
                    }
                    Effect::Evidence { node, member, evidence } => {
                        let identity = self.nodes[node]
                            .as_ref()
                            .and_then(|running| running.shared.directory.get(member))
                            .map(|entry| entry.identity.clone());
                        if let Some(identity) = identity {
                            let input = Input::Evidence { identity: &identity, evidence };
                            self.membership(node, None, input);
                        }
                    }
                }
            }
        }
        // Whoever has orders gets a turn.
        for node in 0..NODES_COUNT {
            let Some(running) = &self.nodes[node] else { continue };
            let life = running.life;
            let waiting: Vec<usize> = {
                let all = running.inboxes.0.lock().unwrap_or_else(PoisonError::into_inner);
                (0..all.len()).filter(|worker| !all[*worker].is_empty()).collect()
            };
            for worker in waiting {
                let at = self.now + self.random.between(500, 60_000);
                self.wake(Place { node, life, worker }, at);
            }
        }
    }

    fn connect(&mut self, from: Place, request: u64, address: SocketAddr) {
        let to = node_of(address);
        let Some(node) = self.nodes.get_mut(to).and_then(Option::as_mut) else {
            let what = Occurrence::ConnectFailed { request, error: net::refused() };
            self.soon(1_000, 300_000, Happening::Worker { place: from, what });
            return;
        };
        let worker = node.next_accepting % usize::from(WORKERS_COUNT);
        node.next_accepting += 1;
        let place = Place { node: to, life: node.life, worker };
        let peer = address_of_client(from.node);
        self.net.open(from, place, request, peer, self.now, &mut self.random, &mut self.effects);
    }

    fn membership(&mut self, node: usize, life: Option<u32>, input: Input<'_>) {
        let now = Instant(self.now);
        let Some(running) = self.nodes[node].as_mut() else { return };
        if life.is_some_and(|life| life != running.life) {
            return;
        }
        let life = running.life;
        let mut outputs = Vec::new();
        running.membership.handle(input, now, &mut outputs);
        let shared = Arc::clone(&running.shared);
        let speaks = self.formats.speaks_own(node);
        for mut output in outputs {
            if let Output::Added { incarnation, .. } | Output::Changed { incarnation, .. } =
                &mut output
                && !speaks
            {
                // As a stock node, which knows nothing of the own format.
                *incarnation = None;
            }
            match output {
                Output::SendDatagram(bytes) => {
                    for to in 0..NODES_COUNT {
                        if !self.random.chance(self.faults.lose_datagram) {
                            let bytes = bytes.clone();
                            let from = address(node);
                            let datagram = Happening::Datagram { to, bytes, from };
                            self.soon(10_000, 3 * MS, datagram);
                        }
                    }
                }
                Output::Probe { probe, address, .. } => {
                    let alive = self.nodes.get(node_of(address)).is_some_and(Option::is_some);
                    let result = if alive {
                        ProbeResult::Answered { extension: None }
                    } else {
                        ProbeResult::Refused
                    };
                    self.soon(20_000, 3 * MS, Happening::Probe { node, life, probe, result });
                }
                other => shared.apply(other),
            }
        }
        if let Some(running) = self.node(node, life)
            && let Some(due) = running.membership.next_deadline()
        {
            let at = due.0.max(now.0 + 1);
            if running.membership_tick.is_none_or(|set| at < set) {
                running.membership_tick = Some(at);
                self.at(at, Happening::MembershipTick { node, life });
            }
        }
    }

    fn crash(&mut self, node: usize) {
        if self.now > STORM_NS || self.crashes_left_count == 0 {
            return;
        }
        self.crashes_left_count -= 1;
        let Some(dead) = self.nodes[node].take() else { return };
        self.duplicates_count += counter(&dead.shared, "duplicates_count");
        self.net.crash(node, dead.life, self.now, &mut self.random, &mut self.effects);
        self.checker.forget_sender((node, dead.life));
        self.soon(100 * MS, 1500 * MS, Happening::Restart { node });
        let next = self.random.index(NODES_COUNT);
        self.soon(500 * MS, 2000 * MS, Happening::Crash { node: next });
    }

    fn restart(&mut self, node: usize) {
        if self.nodes[node].is_some() {
            return;
        }
        self.lives[node] += 1;
        let life = self.lives[node];
        let unique_id = self.random.id();
        let bounds = Bounds {
            worker_count: WORKERS_COUNT,
            pool_size: 6,
            ack_timeout_ms: ACK_TIMEOUT_MS,
            max_queue_bytes: 300_000,
            max_receive_bytes: 200_000,
            echo_ms: 200,
            drop_time_ms: 1_000,
            planted: self.planted,
            ..Bounds::default()
        };
        let inboxes = Arc::new(Inboxes::default());
        inboxes
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .resize_with(usize::from(WORKERS_COUNT), VecDeque::new);
        let orders: Arc<dyn Orders> = Arc::clone(&inboxes) as Arc<dyn Orders>;
        let shared = Shared::new(bounds, BootId(self.random.id()), orders);
        let crew = Arc::new(Crew::default());
        let local = LocalMember {
            host: vec![127, 0, 0, 1],
            port: i32::from(address(node).port()),
            secure_port: -1,
            udp_port: -1,
            unique_id,
            ..LocalMember::default()
        };
        shared.set_local_package(local.package(0).into());
        let cores = (0..WORKERS_COUNT)
            .map(|index| Some(WorkerCore::new(Arc::clone(&shared), Arc::clone(&crew), index)))
            .collect();
        let mut membership = Membership::new(200, 1_000).planting(self.planted);
        if self.formats.speaks_own(node) {
            let boot_id = shared.boot_id;
            membership = membership.speaking(Incarnation {
                boot_id,
                features: 0,
                version_min: 1,
                version_max: 1,
            });
        }
        self.nodes[node] = Some(Node {
            life,
            shared,
            inboxes,
            cores,
            turns: vec![None; usize::from(WORKERS_COUNT)],
            membership,
            membership_tick: None,
            listeners: BTreeMap::new(),
            members: BTreeMap::new(),
            next_accepting: 0,
        });
        for input in [Input::SetLocal(local), Input::StartReceiving, Input::StartSending] {
            self.membership(node, Some(life), input);
        }
        self.soon(0, MS, Happening::Poll { node, life });
        self.soon(300 * MS, 500 * MS, Happening::Submit { node, life });
    }
}

/// What a worker gets, with bytes read.
enum Stimulus {
    Read(ConnId, Result<Vec<u8>, Option<ringtribe::io::Errno>>),
    Other(Occurrence),
}

fn address_of_client(node: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000 + u16::try_from(node).unwrap_or(0)))
}

fn counter(shared: &Shared, name: &str) -> u64 {
    shared.counters.list().iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value)
}
