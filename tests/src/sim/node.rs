//! A simulated Ringtribe node: it starts, its workers and its membership get what happens, it leaves.

use std::collections::VecDeque;

use ringtribe::delivery::Delivery;
use ringtribe::directory::Incarnation;
use ringtribe::ids::{Instant, MemberId};
use ringtribe::io::{ConnId, Errno, Evidence, IoEvent};
use ringtribe::order::{Order, Orders};
use ringtribe::protocol::core::{Crew, WorkerCore};
use ringtribe::protocol::membership::{Input, LocalMember, Membership, Output};
use ringtribe::shared::Bounds;
use ringtribe::status::Status;
use ringtribe::worker::Core;

use ringtribe_wire::tribes;

use super::clock::Clock;
use super::net::SimIo;
use super::plan::CHANGING;
use super::*;

/// When the first node says that it speaks the own format, where formats change.
const CHANGE_NS: u64 = 900 * MS;

/// The inboxes of a node.
pub(super) struct Inboxes {
    queues: Mutex<Vec<VecDeque<Order>>>,
    place: Place,
    waiting: Arc<Mutex<Vec<Place>>>,
}

impl Orders for Inboxes {
    fn push(&self, worker: u16, order: Order) {
        let worker = usize::from(worker);
        let mut all = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = all.get_mut(worker) {
            if queue.is_empty() {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.push(Place { worker, ..self.place });
            }
            queue.push_back(order);
        }
    }
}

/// A poller that runs a listener.
pub(super) struct Listener {
    pub(super) deliveries: Vec<Delivery>,
    /// It waits for the reply to this message.
    pub(super) waits_for: Option<u64>,
    pub(super) until: u64,
}

/// How far a node has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    Draining { until: u64 },
    Closing,
}

pub(super) struct Node {
    pub(super) life: u32,
    pub(super) shared: Arc<Shared>,
    pub(super) cores: Vec<Option<WorkerCore>>,
    pub(super) turns: Vec<Option<u64>>,
    pub(super) membership: Membership,
    pub(super) membership_tick: Option<u64>,
    pub(super) poll_at: Option<u64>,
    pub(super) listeners: BTreeMap<u64, Listener>,
    /// Whom the application knows.
    pub(super) members: BTreeMap<MemberId, usize>,
    pub(super) next_accepting: usize,
    pub(super) listens: bool,
    pub(super) clock: Clock,
    pub(super) leaving: Leaving,
    /// Open questions of the join barrier.
    pub(super) asked: Vec<(MemberId, u64, Life)>,
    inboxes: Arc<Inboxes>,
}

impl World {
    pub(super) fn node(&mut self, node: usize, life: u32) -> Option<&mut Node> {
        self.nodes[node].as_mut().filter(|running| running.life == life)
    }

    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].is_some() || self.stocks[node].is_some() {
            return;
        }
        self.spots[node].lives_count += 1;
        let life = self.spots[node].lives_count;
        self.trace.say(self.now, node, life, format_args!("starts"));
        self.trouble(node, self.now);
        if self.plan.scene.is_stock(node) {
            self.start_stock(node, life);
            return;
        }
        let scene = self.plan.scene;
        let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let unique_id = self.random.id();
        let worker_count = u16::try_from(scene.workers).unwrap_or(1).max(1);
        let bounds = Bounds {
            worker_count,
            pool_size: count(scene.pool_size),
            ack_timeout_ms: scene.ack_timeout_ms,
            max_message_bytes: count(scene.max_message_bytes),
            max_queue_bytes: count(scene.max_queue_bytes),
            max_receive_bytes: count(scene.max_receive_bytes),
            echo_ms: scene.frequency_ms,
            drop_time_ms: scene.drop_time_ms,
            planted: self.plan.planted,
            ..Bounds::default()
        };
        let place = Place { node, life, worker: 0 };
        let queues = (0..worker_count).map(|_| VecDeque::new()).collect();
        let (queues, waiting) = (Mutex::new(queues), Arc::clone(&self.waiting));
        let inboxes = Arc::new(Inboxes { queues, place, waiting });
        let orders: Arc<dyn Orders> = Arc::clone(&inboxes) as Arc<dyn Orders>;
        let boot_id = BootId(self.random.id());
        self.boots.insert(boot_id, (node, life));
        let shared = Shared::new(bounds, boot_id, orders);
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
        let cores = (0..worker_count)
            .map(|index| Some(WorkerCore::new(Arc::clone(&shared), Arc::clone(&crew), index)))
            .collect();
        let mut membership =
            Membership::new(scene.frequency_ms, scene.drop_time_ms).planting(self.plan.planted);
        if scene.speaks_own(node) {
            let incarnation = Incarnation { boot_id, features: 0, version_min: 1, version_max: 1 };
            membership = membership.speaking(incarnation);
        }
        let drifts = self.random.chance(self.faults.clock_drift);
        let rate = if drifts { self.random.between(970, 1_030) } else { 1_000 };
        self.nodes[node] = Some(Node {
            life,
            shared,
            cores,
            turns: vec![None; usize::from(worker_count)],
            membership,
            membership_tick: None,
            poll_at: None,
            listeners: BTreeMap::new(),
            members: BTreeMap::new(),
            next_accepting: 0,
            listens: true,
            clock: Clock::new(self.now, rate),
            leaving: Leaving::No,
            asked: Vec::new(),
            inboxes,
        });
        for input in [Input::SetLocal(local), Input::StartReceiving, Input::StartSending] {
            self.membership(node, life, input);
        }
        let gap_ns = scene.submit_gap_us * 1_000;
        self.soon(200 * MS, 250 * MS + gap_ns, Happening::Submit { node, life });
        if scene.newcomers > 0 || life > 1 {
            self.soon(MS, 400 * MS, Happening::Join { node, life });
        }
    }

    /// Gives a worker its orders and perhaps an event, and ends its turn.
    pub(super) fn worker(&mut self, place: Place, what: Option<Occurrence>) {
        let now = self.now;
        let Some(node) = self.nodes[place.node].as_mut().filter(|node| node.life == place.life)
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
        let clock = node.clock;
        // Bytes are read outside of the borrow that the core's calls need.
        let mut call = Call {
            now,
            random: &mut self.random,
            faults: &self.faults,
            effects: &mut self.effects,
        };
        let event = match what {
            Some(Occurrence::Readable { conn }) => {
                let Some(read) = self.net.read(place, conn, &mut call) else { return };
                Some(Stimulus::Read(conn, read))
            }
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
        let Some(mut core) = node.cores[place.worker].take() else { return };
        let orders = {
            let mut all = node.inboxes.queues.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut all[place.worker])
        };
        let mut io = SimIo { net: &mut self.net, call, place, clock };
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
            Some(Stimulus::Other(what)) => core.event(what.into_event(), &mut io),
            None => {}
        }
        core.finish_turn(&mut io);
        let deadline = core.next_deadline();
        node.cores[place.worker] = Some(core);
        if let Some(due) = deadline {
            self.wake(place, clock.when(due.0).max(now + 1));
        }
        self.poll_soon(place.node);
    }

    /// Makes sure that a worker has a turn at `at` at the latest.
    pub(super) fn wake(&mut self, place: Place, at: u64) {
        let Some(node) = self.node(place.node, place.life) else { return };
        if node.turns[place.worker].is_none_or(|set| at < set) {
            node.turns[place.worker] = Some(at);
            self.at(at, Happening::Turn { place });
        }
    }

    pub(super) fn evidence(&mut self, node: usize, member: MemberId, evidence: Evidence) {
        let Some(running) = &self.nodes[node] else { return };
        let life = running.life;
        let Some(entry) = running.shared.directory.get(member) else { return };
        let identity = entry.identity.clone();
        let what = format_args!("notices of node {}: {evidence:?}", node_of(entry.address));
        self.trace.say(self.now, node, life, what);
        self.membership(node, life, Input::Evidence { identity: &identity, evidence });
    }

    pub(super) fn datagram(&mut self, to: usize, bytes: &[u8], from: SocketAddr) {
        if self.stocks[to].is_some() {
            self.stock_datagram(to, bytes);
            return;
        }
        let Some(life) = self.nodes[to].as_ref().map(|node| node.life) else { return };
        self.membership(to, life, Input::Datagram { bytes, from });
    }

    pub(super) fn probe_ended(&mut self, node: usize, life: u32, probe: u64, result: ProbeResult) {
        self.membership(node, life, Input::ProbeEnded { probe, result });
    }

    pub(super) fn membership_tick(&mut self, node: usize, life: u32) {
        let now = self.now;
        let Some(running) = self.node(node, life) else { return };
        if running.membership_tick != Some(now) {
            return;
        }
        running.membership_tick = None;
        let at = Instant(running.clock.shows(now));
        let oldest_ms = running.shared.oldest_unfinished_ms(at);
        let oldest_unfinished_ms = u32::try_from(oldest_ms).unwrap_or(u32::MAX);
        let draining = running.leaving != Leaving::No;
        self.membership(node, life, Input::SetVitals { oldest_unfinished_ms, draining });
    }

    fn membership(&mut self, node: usize, life: u32, input: Input<'_>) {
        let now = self.now;
        let Some(running) = self.nodes[node].as_mut().filter(|running| running.life == life) else {
            return;
        };
        let clock = running.clock;
        let mut outputs = Vec::new();
        running.membership.handle(input, Instant(clock.shows(now)), &mut outputs);
        let shared = Arc::clone(&running.shared);
        if let Some(due) = running.membership.next_deadline() {
            let at = clock.when(due.0).max(now + 1);
            if running.membership_tick.is_none_or(|set| at < set) {
                running.membership_tick = Some(at);
                self.at(at, Happening::MembershipTick { node, life });
            }
        }
        let has_news = !outputs.is_empty();
        for mut output in outputs {
            if let Output::Added { incarnation, .. } | Output::Changed { incarnation, .. } =
                &mut output
                && !self.plan.scene.speaks_own(node)
            {
                // As a stock node, which knows nothing of the own format.
                *incarnation = None;
            }
            match output {
                Output::SendDatagram(mut bytes) => {
                    if !self.speaks_yet(node) {
                        bytes.truncate(bytes.len() - said_bytes(&bytes));
                    }
                    self.send_datagram(node, &bytes.into());
                }
                Output::Probe { probe, address, frame, timeout_ms } => {
                    let to = node_of(address);
                    let (at, result) = self.probe(node, to, frame.is_some(), timeout_ms);
                    let what = format_args!(
                        "probes node {to}, acked {}: {}",
                        frame.is_some(),
                        probe_text(&result)
                    );
                    self.trace.say(now, node, life, what);
                    self.at(at, Happening::Probe { node, life, probe, result });
                }
                other => shared.apply(other),
            }
        }
        if has_news {
            self.poll_soon(node);
        }
    }

    pub(super) fn send_datagram(&mut self, from: usize, bytes: &Arc<[u8]>) {
        for to in 0..self.nodes.len() {
            let blocked = self.net.blocked(from, to, self.now).is_some();
            if to == from || blocked || self.random.chance(self.faults.lose_datagram) {
                continue;
            }
            let copies = if self.random.chance(self.faults.double_datagram) { 2 } else { 1 };
            for _ in 0..copies {
                let late = self.random.chance(self.faults.late_datagram);
                let (bytes, from) = (Arc::clone(bytes), address(from));
                let most = if late { 1_000 * MS } else { 3 * MS };
                self.soon(10_000, most, Happening::Datagram { to, bytes, from });
            }
        }
    }

    /// Whether a node says already that it speaks the own format: where formats change, one after
    /// the other does.
    fn speaks_yet(&self, node: usize) -> bool {
        let begins = CHANGE_NS + node as u64 * 200 * MS;
        self.plan.scene.formats != CHANGING || self.now >= begins
    }

    /// How a probe will end, and when.
    fn probe(
        &mut self,
        from: usize,
        to: usize,
        acked: bool,
        timeout_ms: u64,
    ) -> (u64, ProbeResult) {
        let now = self.now;
        let at = now + self.random.between(20_000, 3 * MS);
        let times_out = now + timeout_ms * MS;
        let heals = [(from, to), (to, from)]
            .into_iter()
            .filter_map(|(from, to)| self.net.blocked(from, to, now))
            .max()
            .map_or(0, |heals| heals + 200 * MS);
        // A process that stands still has a kernel that accepts, but acknowledges nothing.
        let paused_until = self.spots[to].paused_until;
        let at = at.max(heals).max(if acked { paused_until } else { 0 });
        if at > times_out {
            return (times_out, ProbeResult::TimedOut);
        }
        let result = match (&self.nodes[to], &self.stocks[to]) {
            (Some(node), _) if node.listens => {
                let says = acked && self.plan.scene.speaks_own(to) && self.speaks_yet(to);
                let extension = says.then(|| node.shared.extension().to_vec());
                ProbeResult::Answered { extension }
            }
            (_, Some(_)) => ProbeResult::Answered { extension: None },
            _ => ProbeResult::Refused,
        };
        (at, result)
    }

    /// A node begins to leave in order.
    pub(super) fn begin_leaving(&mut self, node: usize) {
        let until = self.now + self.random.between(20 * MS, 1_000 * MS);
        let Some(running) = &mut self.nodes[node] else { return };
        if running.leaving != Leaving::No || self.spots[node].paused_until > self.now {
            return;
        }
        running.leaving = Leaving::Draining { until };
        let life = running.life;
        running.shared.orders().push(0, Order::Goodbye { is_final: false });
        self.trace.say(self.now, node, life, format_args!("begins to leave"));
        self.trouble(node, u64::MAX / 2);
        self.membership(node, life, Input::SetVitals { oldest_unfinished_ms: 0, draining: true });
        self.membership(node, life, Input::StopSending);
        self.soon(MS, 2 * MS, Happening::Leaves { node, life });
    }

    /// Looks how far a leaving node is, as `Node::close` does.
    pub(super) fn leaves(&mut self, node: usize, life: u32) {
        let now = self.now;
        let Some(running) = self.node(node, life) else { return };
        match running.leaving {
            Leaving::No => return,
            Leaving::Draining { until } => {
                let used = |entry: &Arc<ringtribe::directory::MemberEntry>| {
                    entry.budget.used_and_most_bytes().0
                };
                let entries = running.shared.directory.entries();
                let is_done = entries.iter().all(|entry| used(entry) == 0)
                    && running.shared.deliveries.is_idle();
                if is_done || now >= until {
                    running.leaving = Leaving::Closing;
                    running.listens = false;
                    let orders = running.shared.orders();
                    orders.push(0, Order::Goodbye { is_final: true });
                    for worker in 0..running.shared.bounds.worker_count {
                        orders.push(worker, Order::Close { status: Status::Closed });
                    }
                    self.membership(node, life, Input::StopReceiving);
                }
            }
            Leaving::Closing => {
                let is_finished = running.cores.iter().flatten().all(Core::is_finished);
                if is_finished {
                    self.take_events(node, life);
                    let Some(gone) = self.nodes[node].take() else { return };
                    self.duplicates_count += counter(&gone.shared, "duplicates_count");
                    self.trace.say(now, node, life, format_args!("has left"));
                    self.checker.left((node, life));
                    self.spots[node].troubled_until = 0;
                    let (net, mut call) = self.kernel();
                    net.crash(node, life, false, &mut call);
                    self.ends((node, life), false);
                    return;
                }
            }
        }
        self.soon(MS, 4 * MS, Happening::Leaves { node, life });
    }
}

/// Bytes behind the member package of a heartbeat.
fn said_bytes(datagram: &[u8]) -> usize {
    match tribes::decode_datagram(datagram, &ringtribe_wire::Limits::default()) {
        Ok(tribes::Datagram::Member(_, trailing)) => trailing.len(),
        _ => 0,
    }
}

/// What a worker gets, with bytes read.
enum Stimulus {
    Read(ConnId, Result<Vec<u8>, Option<Errno>>),
    Other(Occurrence),
}

impl Occurrence {
    fn into_event(self) -> IoEvent<'static> {
        match self {
            Self::Connected { request, conn } => IoEvent::Connected { request, conn },
            Self::ConnectFailed { request, error } => IoEvent::ConnectFailed { request, error },
            Self::Accepted { conn, peer } => IoEvent::Accepted { conn, peer },
            Self::HandedOver { conn, peer, read } => IoEvent::HandedOver { conn, peer, read },
            Self::Paused { conn } | Self::Readable { conn } => IoEvent::Paused { conn },
            Self::Sent { conn, batch, result } => IoEvent::Sent { conn, batch, result },
            Self::Closed { conn } => IoEvent::Closed { conn },
        }
    }
}

const fn probe_text(result: &ProbeResult) -> &'static str {
    match result {
        ProbeResult::Answered { extension: None } => "answered",
        ProbeResult::Answered { extension: Some(_) } => "answered, with who it is",
        ProbeResult::Refused => "refused",
        ProbeResult::Unreachable => "unreachable",
        ProbeResult::TimedOut => "timed out",
    }
}
