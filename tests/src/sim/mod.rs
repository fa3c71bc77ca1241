//! A cluster in one thread: the real core, membership and delivery queue of every node, on a
//! simulated kernel, network and clock. One seed, one history.

mod application;
mod check;
mod clock;
mod net;
mod node;
mod plan;
pub(crate) mod random;
mod record;
mod shrink;
mod stock;
mod trace;
mod weather;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use ringtribe::ids::{BootId, MemberId};
use ringtribe::protocol::membership::ProbeResult;
use ringtribe::shared::{Planted, Shared};

use check::{Checker, Life};
use net::{Call, Effect, Net, Occurrence, Place};
use node::Node;
pub use plan::{Faults, Plan, Scene};
use random::Random;
use record::Record;
pub use shrink::shrink;
use stock::Stock;
use trace::Trace;

use crate::history::History;

const MS: u64 = 1_000_000;
/// How long everything has to settle after the storm at most: acknowledgements time out, members
/// come back. A history that is settled earlier ends earlier.
const CALM_NS: u64 = 20_000 * MS;
/// Events of a history at most; the longest that end have some hundred thousand.
const EVENTS_MOST_COUNT: u64 = 3_000_000;
/// How often it is looked at whether everything has settled.
const LOOK_NS: u64 = 100 * MS;

/// What a history was like.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The first sentence of the promise that did not hold.
    pub broken: Option<String>,
    /// Events that happened.
    pub events_count: u64,
    /// Messages submitted.
    pub submitted_count: u64,
    /// Messages delivered.
    pub delivered_count: u64,
    /// Outcomes acknowledged as applied.
    pub acknowledged_count: u64,
    /// Messages that failed at some member, by name.
    pub failed_count: u64,
    /// Frames recognised as sent again.
    pub duplicates_count: u64,
    /// A fingerprint of the history: equal for equal plans.
    pub fingerprint: u64,
    /// What happened, if the plan asked for it.
    pub trace: Vec<String>,
}

enum Happening {
    Worker { place: Place, what: Occurrence },
    Turn { place: Place },
    Datagram { to: usize, bytes: Arc<[u8]>, from: SocketAddr },
    Probe { node: usize, life: u32, probe: u64, result: ProbeResult },
    MembershipTick { node: usize, life: u32 },
    Poll { node: usize, life: u32 },
    ListenerEnds { node: usize, life: u32, listener: u64 },
    Submit { node: usize, life: u32 },
    Join { node: usize, life: u32 },
    Leaves { node: usize, life: u32 },
    Stock { node: usize, life: u32 },
    Weather,
    Resume { node: usize },
    Start { node: usize },
    Calm,
}

impl Happening {
    /// Whose process has to run for it.
    const fn node(&self) -> Option<usize> {
        match self {
            Self::Worker { place, .. } | Self::Turn { place } => Some(place.node),
            Self::Datagram { to, .. } => Some(*to),
            Self::Probe { node, .. }
            | Self::MembershipTick { node, .. }
            | Self::Poll { node, .. }
            | Self::ListenerEnds { node, .. }
            | Self::Submit { node, .. }
            | Self::Join { node, .. }
            | Self::Leaves { node, .. }
            | Self::Stock { node, .. } => Some(*node),
            Self::Weather | Self::Resume { .. } | Self::Start { .. } | Self::Calm => None,
        }
    }
}

/// What is known of a place in the cluster, whoever lives there.
#[derive(Clone, Copy, Debug, Default)]
struct Spot {
    lives_count: u32,
    /// It stands still until then.
    paused_until: u64,
    /// Its application takes nothing until then.
    hangs_until: u64,
    /// Nobody comes back.
    is_abandoned: bool,
    /// Last time at which something happened to it that explains that a member is dropped.
    troubled_until: u64,
}

struct World {
    plan: Plan,
    now: u64,
    random: Random,
    faults: Faults,
    calm: bool,
    /// No fault was asked for.
    kind: bool,
    queue: BinaryHeap<Reverse<(u64, u64, u32)>>,
    happenings: Vec<Option<Happening>>,
    free: Vec<u32>,
    next_id: u64,
    nodes: Vec<Option<Node>>,
    stocks: Vec<Option<Stock>>,
    spots: Vec<Spot>,
    boots: BTreeMap<BootId, Life>,
    /// The handles that each message was sent to.
    addressed: BTreeMap<u64, Vec<(MemberId, usize)>>,
    /// Workers that have orders.
    waiting: Arc<Mutex<Vec<Place>>>,
    net: Net,
    checker: Checker,
    effects: Vec<Effect>,
    next_message: u64,
    next_listener: u64,
    duplicates_count: u64,
    fingerprint: u64,
    events_count: u64,
    /// The messages after the storm that must all arrive were sent.
    last_round: bool,
    is_over: bool,
    trace: Trace,
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 4000 + u16::try_from(node).unwrap_or(0)))
}

fn node_of(address: SocketAddr) -> usize {
    usize::from(address.port().saturating_sub(4000))
}

/// Plays the history of a seed with these faults.
#[must_use]
pub fn play(seed: u64, faults: Faults, planted: Option<Planted>) -> Report {
    play_plan(&Plan { faults, planted, ..Plan::of(seed) })
}

/// Plays a history.
#[must_use]
pub fn play_plan(plan: &Plan) -> Report {
    play_with(plan, None).0
}

/// Plays a history to its end, whatever our checkers say, and writes it down for others. Where formats
/// change the own one is spoken from the start: a member of no life that turns out to be one of a life
/// is more than a written history says.
#[must_use]
pub fn record(plan: &Plan) -> (Report, History) {
    let name = format!("sim-{}", plan.seed);
    let mut plan = plan.clone();
    if plan.scene.formats == plan::CHANGING {
        plan.scene.formats = 0;
    }
    let (report, record) = play_with(&plan, Some(Record::new(&name)));
    (report, record.map_or_else(|| History::new(&name), Record::into_history))
}

fn play_with(plan: &Plan, record: Option<Record>) -> (Report, Option<Record>) {
    let members = usize::try_from(plan.scene.members).unwrap_or(2);
    let mut world = World {
        plan: plan.clone(),
        now: 0,
        random: Random::new(plan.seed),
        faults: plan.faults,
        calm: false,
        kind: plan.faults.is_none(),
        queue: BinaryHeap::new(),
        happenings: Vec::new(),
        free: Vec::new(),
        next_id: 0,
        nodes: (0..members).map(|_| None).collect(),
        stocks: (0..members).map(|_| None).collect(),
        spots: vec![Spot::default(); members],
        boots: BTreeMap::new(),
        addressed: BTreeMap::new(),
        waiting: Arc::default(),
        net: Net::new(members),
        checker: Checker::new(plan),
        effects: Vec::new(),
        next_message: 0,
        next_listener: 0,
        duplicates_count: 0,
        fingerprint: plan.seed,
        events_count: 0,
        last_round: false,
        is_over: false,
        trace: Trace::new(plan.trace),
    };
    world.checker.record = record;
    world.run();
    let report = Report {
        seed: plan.seed,
        broken: world.checker.broken().map(str::to_owned),
        events_count: world.events_count,
        submitted_count: world.next_message,
        delivered_count: world.checker.delivered_count,
        acknowledged_count: world.checker.acknowledged_count,
        failed_count: world.checker.failed_count,
        duplicates_count: world.duplicates_count,
        fingerprint: world.fingerprint,
        trace: world.trace.take(),
    };
    (report, world.checker.record)
}

impl World {
    fn at(&mut self, at: u64, happening: Happening) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.happenings.push(None);
            u32::try_from(self.happenings.len() - 1).unwrap_or(u32::MAX)
        });
        self.happenings[slot as usize] = Some(happening);
        self.queue.push(Reverse((at, self.next_id, slot)));
        self.next_id += 1;
    }

    fn soon(&mut self, least_ns: u64, most_ns: u64, happening: Happening) {
        let at = self.now + self.random.between(least_ns, most_ns);
        self.at(at, happening);
    }

    fn storm_ns(&self) -> u64 {
        self.plan.scene.storm_ms * MS
    }

    fn run(&mut self) {
        let storm_ns = self.storm_ns();
        for node in 0..self.nodes.len() {
            let late = node > 1 && self.random.chance(self.plan.scene.newcomers);
            let most = if late { storm_ns / 2 } else { 100 * MS };
            self.soon(0, most, Happening::Start { node });
        }
        self.soon(300 * MS, 400 * MS, Happening::Weather);
        // What the storm began may end a second later: an attempt to connect that gets no answer, a
        // heartbeat of a life that is over.
        let faults = &self.plan.faults;
        let after_ns =
            if faults.fail_connect + faults.late_datagram > 0 { 1_500 * MS } else { LOOK_NS };
        self.at(storm_ns + after_ns, Happening::Calm);
        while let Some(Reverse((at, id, slot))) = self.queue.pop() {
            let is_decided = self.checker.broken().is_some() && self.checker.record.is_none();
            if at > storm_ns + CALM_NS || is_decided || self.is_over {
                break;
            }
            if at > storm_ns && !self.calm {
                self.calm = true;
                self.faults = Faults { short_io: self.faults.short_io, ..Faults::NONE };
            }
            self.now = at;
            let Some(happening) = &self.happenings[slot as usize] else { continue };
            if let Some(paused_until) = happening.node().map(|node| self.spots[node].paused_until)
                && paused_until > at
            {
                // It keeps its place among what waits.
                self.queue.push(Reverse((paused_until, id, slot)));
                continue;
            }
            let Some(happening) = self.happenings[slot as usize].take() else { continue };
            self.free.push(slot);
            self.events_count += 1;
            if self.events_count > EVENTS_MOST_COUNT {
                let sentence = "a history ends: a deadline that has passed comes again and again";
                self.checker.require(false, sentence);
            }
            self.fingerprint =
                (self.fingerprint ^ at ^ id).rotate_left(13).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.happen(happening);
            self.settle_effects();
        }
        if !self.is_over {
            self.judge_end();
        }
        if let Some(sentence) = self.checker.broken() {
            let sentence = sentence.to_owned();
            self.trace.say(self.now, 0, 0, format_args!("BROKEN: {sentence}"));
        }
        for node in self.nodes.iter().flatten() {
            self.duplicates_count += counter(&node.shared, "duplicates_count");
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Worker { place, what } => {
                if self.plan.scene.is_stock(place.node) {
                    self.stock_event(place, what);
                } else {
                    self.worker(place, Some(what));
                }
            }
            Happening::Turn { place } => self.worker(place, None),
            Happening::Datagram { to, bytes, from } => self.datagram(to, &bytes, from),
            Happening::Probe { node, life, probe, result } => {
                self.probe_ended(node, life, probe, result);
            }
            Happening::MembershipTick { node, life } => self.membership_tick(node, life),
            Happening::Poll { node, life } => self.poll(node, life),
            Happening::ListenerEnds { node, life, listener } => {
                self.listener_ends(node, life, listener);
            }
            Happening::Submit { node, life } => self.submit(node, life),
            Happening::Join { node, life } => self.join(node, life),
            Happening::Leaves { node, life } => self.leaves(node, life),
            Happening::Stock { node, life } => self.stock_turn(node, life),
            Happening::Weather => self.weather(),
            Happening::Resume { node } => self.resume(node),
            Happening::Start { node } => self.start(node),
            Happening::Calm => self.look_whether_settled(),
        }
    }

    /// What a call of the kernel needs, and the kernel.
    fn kernel(&mut self) -> (&mut Net, Call<'_>) {
        let call = Call {
            now: self.now,
            random: &mut self.random,
            faults: &self.faults,
            effects: &mut self.effects,
        };
        (&mut self.net, call)
    }

    fn settle_effects(&mut self) {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::At { at, place, what } => {
                        self.at(at.max(self.now), Happening::Worker { place, what });
                    }
                    Effect::Connect { from, request, address, timeout_ms } => {
                        self.connect(from, request, address, timeout_ms);
                    }
                    Effect::Evidence { node, member, evidence } => {
                        self.evidence(node, member, evidence);
                    }
                    Effect::Lost { place, conn } => {
                        let what = format_args!("connection {} is lost", conn.slot);
                        self.trace.say(self.now, place.node, place.life, what);
                    }
                }
            }
        }
        // Whoever has orders gets a turn.
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for place in waiting {
            let at = self.now + self.random.between(500, 60_000);
            self.wake(place, at);
        }
    }

    fn connect(&mut self, from: Place, request: u64, address: SocketAddr, timeout_ms: u64) {
        let now = self.now;
        let to = node_of(address);
        let timeout_ns = timeout_ms * MS;
        let fails = |error| Occurrence::ConnectFailed { request, error };
        // A handshake needs both directions.
        let heals = [(from.node, to), (to, from.node)]
            .into_iter()
            .filter_map(|(from, to)| self.net.blocked(from, to, now))
            .max();
        let least = heals.map_or(0, |heals| heals + self.random.between(MS, 500 * MS));
        if least > now + timeout_ns || self.random.chance(self.faults.fail_connect) {
            let what = fails(net::timed_out());
            self.at(now + timeout_ns, Happening::Worker { place: from, what });
            return;
        }
        let Some((life, worker)) = self.accepting(to) else {
            let what = fails(net::refused());
            let at = (now + self.random.between(1_000, 300_000)).max(least);
            self.at(at, Happening::Worker { place: from, what });
            return;
        };
        let place = Place { node: to, life, worker };
        self.trace.say(now, from.node, from.life, format_args!("connects to node {to}"));
        let peer = address_of_client(from.node);
        let (net, mut call) = self.kernel();
        net.open(from, place, request, peer, least, &mut call);
    }

    /// The life and the worker that gets the next connection at a place.
    fn accepting(&mut self, to: usize) -> Option<(u32, usize)> {
        if let Some(node) = self.nodes[to].as_mut().filter(|node| node.listens) {
            node.next_accepting += 1;
            return Some((node.life, node.next_accepting % node.cores.len()));
        }
        self.stocks[to].as_ref().map(|stock| (stock.life, 0))
    }

    /// Who lives.
    fn living(&self) -> usize {
        self.nodes.iter().flatten().count() + self.stocks.iter().flatten().count()
    }

    /// What has not settled yet, as the sentence that does not hold then.
    fn unsettled(&self) -> Option<String> {
        let living_count = self.living();
        for (at, spot) in self.spots.iter().enumerate() {
            if !spot.is_abandoned && self.nodes[at].is_none() && self.stocks[at].is_none() {
                return Some(format!("after the faults heal everyone sees everyone: {at} is down"));
            }
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            let seen_count = node.membership.members().len();
            if seen_count != living_count - 1 || node.members.len() != seen_count {
                return Some(format!(
                    "after the faults heal everyone sees everyone: node {at} sees {seen_count} of \
                     {} others, its application {}",
                    living_count - 1,
                    node.members.len(),
                ));
            }
            let former = node.shared.directory.entries().into_iter().find_map(|entry| {
                let (of, life) = *self.boots.get(&entry.boot_id()?)?;
                let now = self.nodes[of].as_ref().map(|other| other.life);
                (now != Some(life)).then_some((of, life))
            });
            if let Some(former) = former {
                return Some(format!(
                    "after the faults heal everyone sees everyone: node {at} sees {former:?}, which \
                     lives no more"
                ));
            }
            let used: usize = node
                .shared
                .directory
                .entries()
                .iter()
                .map(|entry| entry.budget.used_and_most_bytes().0)
                .sum();
            if used != 0 {
                return Some(format!(
                    "what is queued gives its budget back exactly once: node {at} has {used} bytes"
                ));
            }
            let undelivered = node.shared.deliveries.used_bytes();
            if undelivered != 0 || !node.listeners.is_empty() {
                return Some(format!(
                    "every delivery ends with an outcome: node {at} has {undelivered} bytes"
                ));
            }
        }
        for (at, stock) in self.stocks.iter().enumerate() {
            let seen_count = stock.as_ref().map(Stock::members_count);
            if seen_count.is_some_and(|count| count != living_count - 1) {
                return Some(format!(
                    "after the faults heal everyone sees everyone: stock member {at} sees \
                     {seen_count:?}"
                ));
            }
        }
        self.checker.unsettled(&self.ended_epochs())
    }

    fn look_whether_settled(&mut self) {
        match (self.unsettled(), self.last_round) {
            (None, true) => {
                self.is_over = true;
                self.judge_end();
            }
            (None, false) => {
                self.last_round = true;
                self.last_round();
            }
            _ => {}
        }
        self.at(self.now + LOOK_NS, Happening::Calm);
    }

    fn judge_end(&mut self) {
        let living: Vec<Life> = (self.nodes.iter().enumerate())
            .filter_map(|(at, node)| Some((at, node.as_ref()?.life)))
            .collect();
        if let Some(record) = &mut self.checker.record {
            record.settled(&living);
        }
        if self.checker.broken().is_some() {
            return;
        }
        if let Some(sentence) = self.unsettled() {
            self.checker.require(false, &sentence);
        }
        self.checker.judge_end(&living, self.kind);
        for node in 0..self.nodes.len() {
            // Lanes to the members and from them, and what is being opened or closed.
            let lanes = self.plan.scene.pool_size + 2 * self.plan.scene.workers + 2;
            let most = 4 * lanes * self.plan.scene.members;
            let count = self.net.count(node) as u64;
            self.checker.require(
                count <= most,
                &format!("connections stay bounded: {count} of node {node}, {most} at most"),
            );
        }
    }

    /// Links between living nodes of which an epoch ended.
    fn ended_epochs(&self) -> Vec<(Life, Life)> {
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
}

fn address_of_client(node: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 50_000 + u16::try_from(node).unwrap_or(0)))
}

fn counter(shared: &Shared, name: &str) -> u64 {
    shared.counters.list().iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value)
}
