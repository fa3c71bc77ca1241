//! Who is there: heartbeats, goodbyes and silence, as stock Tomcat's `McastService` with its
//! `TcpFailureDetector` understands them.
//!
//! A state machine: datagrams, probe results, evidence and time come in; datagrams, probes and
//! changes of the view go out. A member is announced after its port has accepted a connection, and
//! dropped when its port refuses one, or when it is silent and does not answer a probe: a stopped
//! process still accepts connections, so a silent member has to acknowledge a message.
//!
//! A Ringtribe node says more of itself than a stock one (`speech`): which incarnation it is. Members
//! that are configured are found by probes instead of heartbeats (`statics`).

mod candidates;
mod cluster;
mod foreign;
mod interface;
mod probes;
mod speech;
mod statics;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ringtribe_wire::native::extension::Extension;
use ringtribe_wire::tribes::{self, Datagram, Member};

use crate::directory::{Identity, Incarnation, MAX_MEMBERS_COUNT, Vitals};
use crate::event::LogLevel;
use crate::ids::{BootId, Instant};
use crate::io::Evidence;
#[cfg(feature = "planted-bugs")]
use crate::planted::Planted;
use crate::planted::planted;
use crate::status::Status;

pub use interface::{Input, LocalMember, MembershipCounters, Output, ProbeResult, StaticMember};

use crate::protocol::foreign::Named;
use candidates::Candidates;
use cluster::Cluster;
use probes::{SECOND_LOOKS_COUNT, Target};
use speech::Spoken;
use statics::Endpoint;

/// A silent member that answers probes is dropped after this
/// (`TcpFailureDetector.removeSuspectsTimeout`).
const SUSPECT_MS: u64 = 300_000;
/// So late is a node that stood still, and not one that only had much to do.
const LATE_MS: u64 = 250;
/// A fault of the same kind is logged once in this time.
const LOG_EVERY_MS: u64 = 1_000;
/// Packets that come sooner after a look at all that are known bring no other look.
const TICK_NS: u64 = 1_000_000;

#[derive(Debug)]
struct Known {
    package: Vec<u8>,
    alive_ms: i64,
    heard: Instant,
    /// When it last answered an echo on a connection.
    answered: Instant,
    /// When it last acknowledged a probe.
    acknowledged: Option<Instant>,
    /// The last sign of life after which it was asked for another, early.
    asked_early: Option<Instant>,
    /// Announced; else a candidate.
    is_member: bool,
    probe: Option<u64>,
    next_probe: Option<Instant>,
    back_off_ms: u64,
    /// When it was dropped, or asked in vain. It is asked again if it is heard after that: otherwise
    /// its successor's answer could bring it back.
    in_vain: Option<Instant>,
    suspect_since: Option<Instant>,
    /// Looks that are still to come after it lost a connection.
    second_looks_count: u8,
    /// Said goodbye then, with this package.
    leaving: Option<(Instant, Vec<u8>)>,
    /// Its own host, if its first heartbeat came from there.
    source: Option<IpAddr>,
    spoken: Spoken,
}

impl Known {
    fn new(package: Vec<u8>, alive_ms: i64, back_off_ms: u64, now: Instant) -> Self {
        Self {
            package,
            alive_ms,
            heard: now,
            answered: now,
            acknowledged: None,
            asked_early: None,
            is_member: false,
            probe: None,
            next_probe: None,
            back_off_ms,
            in_vain: None,
            suspect_since: None,
            second_looks_count: 0,
            leaving: None,
            source: None,
            spoken: Spoken::default(),
        }
    }

    /// The last sign of life. Heartbeats alone do not do: one or two that are lost before a pause
    /// would make it longer than it was.
    fn last_sign(&self) -> Instant {
        self.heard.max(self.answered)
    }

    /// Whether it was asked for a sign since the last one.
    fn was_asked_early(&self) -> bool {
        self.asked_early == Some(self.last_sign())
    }

    /// A candidate was dropped or asked in vain: the next question waits, longer each time.
    fn asked_in_vain(&mut self, most_ms: u64, now: Instant) {
        self.in_vain = Some(now);
        self.postpone(most_ms, now);
    }

    fn postpone(&mut self, most_ms: u64, now: Instant) {
        self.next_probe = Some(now.plus_ms(self.back_off_ms));
        self.back_off_ms = (2 * self.back_off_ms).min(most_ms);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Membership {
    frequency_ms: u64,
    drop_time_ms: u64,
    local: LocalMember,
    /// Which incarnation this node says it is; `None`: it speaks as a stock node does.
    own: Option<Incarnation>,
    cluster: Cluster,
    oldest_unfinished_ms: u32,
    draining: bool,
    /// Incarnations that left, until no heartbeat of theirs can be on the way.
    departed: BTreeMap<BootId, Instant>,
    /// What is said behind acknowledgements has changed.
    extension_is_stale: bool,
    /// Members, this node included, and their hash; of the sort that heartbeats carry.
    view: (u16, u64),
    has_group: bool,
    endpoints: BTreeMap<SocketAddr, Endpoint>,
    receiving: bool,
    sending: bool,
    started: Option<Instant>,
    next_heartbeat: Option<Instant>,
    known: BTreeMap<Identity, Known>,
    candidates: Candidates,
    /// Who cannot be a member, by name.
    foreign: Named<String>,
    ticked: Option<Instant>,
    /// When it last noticed that it had stood still.
    woke: Option<Instant>,
    probes: BTreeMap<u64, Target>,
    next_probe: u64,
    last_log: Option<Instant>,
    counters: MembershipCounters,
    /// The bug that is planted, if any.
    #[cfg(feature = "planted-bugs")]
    planted: Option<Planted>,
}

impl Membership {
    /// Nobody known, nothing started (mcastFrequency, mcastDropTime).
    #[must_use]
    pub fn new(frequency_ms: u64, drop_time_ms: u64) -> Self {
        Self {
            frequency_ms,
            drop_time_ms,
            local: LocalMember::default(),
            own: None,
            cluster: Cluster::default(),
            oldest_unfinished_ms: 0,
            draining: false,
            departed: BTreeMap::new(),
            extension_is_stale: true,
            view: (0, 0),
            has_group: true,
            endpoints: BTreeMap::new(),
            receiving: false,
            sending: false,
            started: None,
            next_heartbeat: None,
            known: BTreeMap::new(),
            candidates: Candidates::default(),
            foreign: Named::default(),
            ticked: None,
            woke: None,
            probes: BTreeMap::new(),
            next_probe: 0,
            last_log: None,
            counters: MembershipCounters::default(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    /// With a bug, or none.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub const fn planting(mut self, bug: Option<Planted>) -> Self {
        self.planted = bug;
        self
    }

    /// A node that says which incarnation it is. Without this it speaks as a stock node does.
    #[must_use]
    pub const fn speaking(mut self, own: Incarnation) -> Self {
        self.own = Some(own);
        self
    }

    /// A member of the cluster of this name alone (clusterName); others may share the group.
    #[must_use]
    pub fn of_cluster(mut self, name: &str) -> Self {
        self.cluster = Cluster::new(name);
        self
    }

    /// Looks for these members too (staticMembers).
    #[must_use]
    pub fn with_static_members(mut self, members: &[StaticMember]) -> Self {
        let endpoint = |member: &StaticMember| (member.address, Endpoint::new(member.unique_id));
        self.endpoints = members.iter().map(endpoint).collect();
        self
    }

    /// Sends no heartbeats: there is no group (membership="static").
    #[must_use]
    pub const fn without_group(mut self) -> Self {
        self.has_group = false;
        self
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> MembershipCounters {
        self.counters
    }

    /// The announced members, the oldest first (by alive time, as stock).
    #[must_use]
    pub fn members(&self) -> Vec<&Identity> {
        let mut members: Vec<_> = self.known.iter().filter(|(_, known)| known.is_member).collect();
        members.sort_by_key(|(_, known)| std::cmp::Reverse(known.alive_ms));
        members.into_iter().map(|(identity, _)| identity).collect()
    }

    /// How a member was when it last spoke of itself; `None` for a stock member, or nobody.
    #[must_use]
    pub fn vitals(&self, identity: &Identity) -> Option<Vitals> {
        self.known.get(identity)?.spoken.vitals
    }

    fn alive_ms(&self, now: Instant) -> i64 {
        let alive_ms = self.started.map_or(0, |started| now.ms_since(started));
        i64::try_from(alive_ms).unwrap_or(i64::MAX)
    }

    /// Whether this node stood still: something was due long ago. What waits in its kernel is older
    /// than it seems.
    fn is_late(&self, now: Instant) -> bool {
        self.ticked.is_some_and(|last| now.ms_since(last) >= LATE_MS)
            && self.next_deadline().is_some_and(|due| now.ms_since(due) >= LATE_MS)
    }

    /// Takes an input; what has to be done is added to `out`.
    pub fn handle(&mut self, input: Input<'_>, now: Instant, out: &mut Vec<Output>) {
        if self.is_late(now) {
            self.woke = Some(now);
        }
        // Packets may come faster than anybody is to be looked at.
        let is_flood = matches!(input, Input::Datagram { .. })
            && self.ticked.is_some_and(|last| now.0.saturating_sub(last.0) < TICK_NS);
        match input {
            Input::Datagram { bytes, from } => self.datagram(bytes, from, now, out),
            Input::ProbeEnded { probe, result } => self.probe_ended(probe, result, now, out),
            Input::Evidence { identity, evidence: Evidence::Ended(cause) } => {
                if self.known.get(identity).is_some_and(|known| known.is_member) {
                    if cause == Status::Goodbye {
                        self.departs(identity, now);
                    }
                    self.gone(&identity.clone(), cause, now, out);
                }
            }
            Input::Evidence { identity, evidence: Evidence::Alive } => {
                if let Some(known) = self.known.get_mut(identity) {
                    known.answered = now;
                    known.suspect_since = None;
                }
            }
            Input::Evidence { identity, evidence: Evidence::ConnectionLost }
                if planted!(in self.planted, DroppedWhileReachable)
                    && self.known.get(identity).is_some_and(|known| known.is_member) =>
            {
                self.gone(&identity.clone(), Status::Cut, now, out);
            }
            Input::Evidence { identity, evidence } => {
                // A member that cannot be connected to is refused at once; one that does not
                // acknowledge has to show that its process runs.
                let acked = evidence == Evidence::AckTimeout || self.is_static(identity);
                if let Some(known) = self.known.get_mut(identity).filter(|known| known.is_member) {
                    if evidence == Evidence::ConnectionLost {
                        known.second_looks_count = SECOND_LOOKS_COUNT;
                    }
                    self.probe(&identity.clone(), acked, now, out);
                }
            }
            Input::SetLocal(local) => {
                let changed = local != self.local;
                self.local = local;
                if changed {
                    self.view_changed();
                    self.wake_endpoints(now);
                    if self.sending {
                        self.heartbeat(now, out);
                    }
                }
            }
            Input::SetVitals { oldest_unfinished_ms, draining } => {
                let changed = draining != self.draining;
                self.oldest_unfinished_ms = oldest_unfinished_ms;
                self.draining = draining;
                self.extension_is_stale = true;
                if changed && self.sending {
                    self.heartbeat(now, out);
                }
            }
            Input::StartReceiving => {
                self.receiving = true;
                self.started.get_or_insert(now);
                self.view_changed();
                self.wake_endpoints(now);
            }
            Input::StartSending => {
                self.sending = true;
                self.started.get_or_insert(now);
                self.heartbeat(now, out);
            }
            Input::StopReceiving => {
                let was = std::mem::take(&mut self.receiving);
                for (identity, known) in std::mem::take(&mut self.known) {
                    if known.is_member {
                        let (package, cause) = (known.package, Status::Closed);
                        out.push(Output::Gone { identity, package, cause });
                    }
                }
                self.probes.clear();
                self.candidates = Candidates::default();
                self.endpoints.values_mut().for_each(Endpoint::stop);
                self.view_changed();
                self.say_goodbye(was, now, out);
            }
            Input::StopSending => {
                let was = std::mem::take(&mut self.sending);
                self.next_heartbeat = None;
                self.extension_is_stale = true;
                self.say_goodbye(was, now, out);
            }
            Input::Tick => {}
        }
        if !is_flood {
            self.ticked = Some(now);
            self.tick(now, out);
        }
        self.tell_extension(now, out);
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let silence = self.known.values().filter_map(|known| {
            if known.suspect_since.is_some() {
                return Some(known.heard.plus_ms(SUSPECT_MS));
            }
            // A probe in flight brings an event of its own.
            let probing = known.is_member && (known.probe.is_some() || known.next_probe.is_some());
            let early_ms = self.early_ms().filter(|_| known.is_member && !known.was_asked_early());
            (!probing).then(|| known.last_sign().plus_ms(early_ms.unwrap_or(self.drop_time_ms)))
        });
        let probes = self.known.values().filter_map(|known| known.next_probe);
        let leaving = self.known.values().filter_map(|known| {
            let (since, _) = known.leaving.as_ref()?;
            Some(since.plus_ms(2 * self.frequency_ms))
        });
        let endpoints = self.endpoints.values().filter_map(|endpoint| endpoint.next_probe);
        silence.chain(probes).chain(leaving).chain(endpoints).chain(self.next_heartbeat).min()
    }

    fn heartbeat(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.has_group {
            self.counters.heartbeats_sent_count += 1;
            let package = self.local.package(self.alive_ms(now));
            out.push(Output::SendDatagram(self.with_extension(package)));
        }
        // The age in the package behind acknowledgements grows with the heartbeats.
        self.extension_is_stale = true;
        self.next_heartbeat = Some(now.plus_ms(self.frequency_ms));
    }

    /// As stock: one packet when the last level stops.
    fn say_goodbye(&mut self, stopped: bool, now: Instant, out: &mut Vec<Output>) {
        if stopped && !self.sending && !self.receiving {
            if self.has_group {
                let package = self.local.goodbye(self.alive_ms(now));
                out.push(Output::SendDatagram(self.with_extension(package)));
            }
            self.started = None;
        }
    }

    fn log(&mut self, now: Instant, text: String, out: &mut Vec<Output>) {
        let quiet = self.last_log.is_some_and(|last| now.ms_since(last) < LOG_EVERY_MS);
        if !quiet {
            self.last_log = Some(now);
            out.push(Output::Log { level: LogLevel::Warn, text });
        }
    }

    fn datagram(&mut self, bytes: &[u8], from: SocketAddr, now: Instant, out: &mut Vec<Output>) {
        if !self.receiving || self.is_of_tomcat_55(bytes, from, out) {
            return;
        }
        let mut ignore = |text: String| {
            self.counters.malformed_datagrams_count += 1;
            self.log(now, format!("a packet from {from} is ignored: {text}"), out);
        };
        match tribes::decode_datagram(bytes, &ringtribe_wire::Limits::default()) {
            Ok(Datagram::Member(member, trailing)) => match Extension::decode(trailing) {
                Ok(extension) => {
                    let package = &bytes[..bytes.len() - trailing.len()];
                    self.heard(&member, package, extension.as_ref(), from, now, out);
                }
                Err(error) => ignore(error.to_string()),
            },
            Ok(Datagram::Broadcast(data)) => {
                if !self.is_local(&data.member) {
                    out.push(Output::Broadcast { bytes: bytes.to_vec() });
                }
            }
            Err(error) => ignore(error.to_string()),
        }
    }

    fn is_local(&self, member: &Member<'_>) -> bool {
        *member.unique_id == self.local.unique_id
            && member.port == self.local.port
            && member.host == self.local.host.as_slice()
    }

    fn heard(
        &mut self,
        member: &Member<'_>,
        package: &[u8],
        extension: Option<&Extension<'_>>,
        from: SocketAddr,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        if self.is_local(member) {
            return;
        }
        self.counters.heartbeats_received_count += 1;
        if self.has_tls_alone(member, from, out) {
            return;
        }
        let identity = Identity::of(member);
        if (&identity.host, identity.port) == (&self.local.host, self.local.port) {
            // The last word of a former life here, or a forged one.
            let text = format!(
                "a heartbeat from {from} is ignored: it names this node's own address {}, and \
                 somebody else there",
                name(&identity)
            );
            self.log(now, text, out);
            return;
        }
        // Anyone can send a member's package; which incarnation it is, only its own host may say.
        let own_host = identity.address().is_some_and(|at| at.ip() == from.ip().to_canonical());
        let believed = extension.filter(|_| own_host);
        if let Some(extension) = believed
            && self.is_foreign(extension, &identity, from, now, out)
        {
            return;
        }
        if let Some(extension) = believed
            && !member.is_shutdown()
            && (extension.draining || self.has_departed(BootId(extension.boot_id), now))
        {
            // It leaves: it is no member any more, and none again.
            self.departs(&identity, now);
            if self.known.get(&identity).is_some_and(|known| known.is_member) {
                self.gone(&identity, Status::Goodbye, now, out);
            }
            return;
        }
        if member.is_shutdown() {
            self.heard_goodbye(&identity, package, believed, now, out);
            return;
        }
        let Some(former) =
            self.judge_life(&identity, member.alive_ms, believed, own_host, now, out)
        else {
            return;
        };
        let Some(known) = self.known.get_mut(&identity) else {
            if identity.address().is_none() {
                let text = format!(
                    "a member with {} address bytes and port {} is ignored: it cannot be reached",
                    identity.host.len(),
                    identity.port
                );
                self.log(now, text, out);
            } else if self.known.len() < MAX_MEMBERS_COUNT
                && self.candidates.take(own_host.then(|| from.ip().to_canonical()))
            {
                let package = package.to_vec();
                let mut known = Known::new(package, member.alive_ms, self.frequency_ms, now);
                known.source = own_host.then(|| from.ip().to_canonical());
                known.spoken.former = former;
                self.known.insert(identity.clone(), known);
                self.spoke(&identity, believed, now, out);
                let acked = self.is_taken(&identity);
                self.probe(&identity, acked, now, out);
            }
            return;
        };
        known.heard = now;
        known.suspect_since = None;
        if known.leaving.is_some() && member.alive_ms > known.alive_ms {
            known.leaving = None;
        }
        if let (Some(_), None) = (extension, believed)
            && !std::mem::replace(&mut known.spoken.disbelieved, true)
        {
            out.push(Output::Log {
                level: LogLevel::Warn,
                text: format!(
                    "{} is a Ringtribe node by its heartbeats, but they come from {from} and not \
                     from its own address: it is treated as a stock node; give it the \
                     tcpListenAddress that its heartbeats come from, or set mcastBindAddr there",
                    name(&identity)
                ),
            });
        }
        self.update(&identity, member.alive_ms, package, believed, now, out);
    }

    /// A member said on its reply lane, or in a heartbeat, that it leaves. A heartbeat of before may
    /// still be on the way and must not bring it back.
    fn departs(&mut self, identity: &Identity, now: Instant) {
        self.departed.retain(|_, until| *until > now);
        let boot_id = self.known.get(identity).and_then(|known| known.spoken.boot_id());
        if let Some(boot_id) = boot_id
            && self.departed.len() < MAX_MEMBERS_COUNT
        {
            self.departed.insert(boot_id, now.plus_ms(self.drop_time_ms));
        }
    }

    fn has_departed(&self, boot_id: BootId, now: Instant) -> bool {
        self.departed.get(&boot_id).is_some_and(|until| *until > now)
    }

    /// A member that is known has said this of itself, in a heartbeat or behind an acknowledgement.
    fn update(
        &mut self,
        identity: &Identity,
        alive_ms: i64,
        package: &[u8],
        extension: Option<&Extension<'_>>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(known) = self.known.get_mut(identity) else { return };
        let mut changed = false;
        if alive_ms != known.alive_ms {
            known.alive_ms = alive_ms;
            // The alive time is 8 bytes at offset 14; everything else is content.
            changed = known.package.get(22..) != package.get(22..);
            known.package = package.to_vec();
        }
        changed |= known.spoken.incarnation.is_none() && extension.is_some();
        let is_member = known.is_member;
        self.spoke(identity, extension, now, out);
        if let Some(known) = self.known.get(identity).filter(|_| changed && is_member) {
            let (package, incarnation) = (known.package.clone(), known.spoken.incarnation);
            out.push(Output::Changed { identity: identity.clone(), package, incarnation });
        }
    }

    fn heard_goodbye(
        &mut self,
        identity: &Identity,
        package: &[u8],
        extension: Option<&Extension<'_>>,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(known) = self.known.get_mut(identity) else { return };
        let boot_id = extension.map(|extension| BootId(extension.boot_id));
        if let (Some(said), Some(is)) = (boot_id, known.spoken.incarnation)
            && said != is.boot_id
        {
            // The last word of a life that another one has followed.
            return;
        }
        if known.is_member {
            known.leaving.get_or_insert_with(|| (now, package.to_vec()));
            // Anyone can forge a goodbye, so the member's port has the last word.
            self.probe(identity, false, now, out);
        } else {
            self.forget(identity);
        }
    }

    fn announce(&mut self, identity: &Identity, now: Instant, out: &mut Vec<Output>) {
        let Some(known) = self.known.get(identity) else { return };
        let heard = known.heard;
        if let Some(boot_id) = known.spoken.boot_id()
            && self.is_elsewhere(boot_id, identity, now, out)
        {
            self.forget(identity);
            return;
        }
        // A node that restarted at the same address has a new id; the port is the new one's now.
        let (mut former, mut heard_last) = (Vec::new(), heard);
        for (other, known) in &self.known {
            if known.is_member && other != identity && other.shares_address(identity) {
                former.push(other.clone());
                heard_last = heard_last.max(known.heard);
            }
        }
        // Whoever lives at the address now answers a probe that was meant for a former life: what was
        // heard of last is the one that lives.
        if heard_last > heard {
            self.forget(identity);
            return;
        }
        for other in former {
            self.cut(&other, Status::Cut, now, out);
        }
        let Some(known) = self.known.get_mut(identity) else { return };
        known.is_member = true;
        known.back_off_ms = self.frequency_ms;
        self.candidates.give_back(known.source);
        let (package, incarnation) = (known.package.clone(), known.spoken.incarnation);
        let vitals = known.spoken.vitals.unwrap_or_default();
        self.counters.members_added_count += 1;
        self.enter_endpoint(identity, now);
        self.view_changed();
        out.push(Output::Added { identity: identity.clone(), package, incarnation, vitals });
    }

    /// Drops a member and all that is known of it; returns the incarnation it was.
    fn cut(
        &mut self,
        identity: &Identity,
        cause: Status,
        now: Instant,
        out: &mut Vec<Output>,
    ) -> Option<BootId> {
        let known = self.forget(identity)?;
        let boot_id = known.spoken.boot_id();
        if let (true, Some(boot_id)) = (planted!(in self.planted, CutStaysOut), boot_id) {
            self.departed.insert(boot_id, Instant(u64::MAX));
        }
        if known.is_member {
            self.counters.members_gone_count += 1;
            let package = known.leaving.map_or(known.package, |(_, farewell)| farewell);
            out.push(Output::Gone { identity: identity.clone(), package, cause });
            self.leave_endpoint(identity, now);
            self.view_changed();
        }
        boot_id
    }

    fn forget(&mut self, identity: &Identity) -> Option<Known> {
        let known = self.known.remove(identity)?;
        if !known.is_member {
            self.candidates.give_back(known.source);
        }
        if let Some(probe) = known.probe {
            self.probes.remove(&probe);
        }
        Some(known)
    }

    fn gone(&mut self, identity: &Identity, cause: Status, now: Instant, out: &mut Vec<Output>) {
        let comes_back = matches!(
            cause,
            Status::Refused | Status::Stalled | Status::WrongIncarnation | Status::Protocol
        );
        let stays_out = planted!(in self.planted, CutStaysOut);
        if !comes_back || self.is_static(identity) || stays_out {
            self.cut(identity, cause, now, out);
            return;
        }
        let Some(known) = self.known.get_mut(identity) else { return };
        self.counters.members_gone_count += 1;
        // Its heartbeats may go on: then it is tried again, ever less often.
        known.is_member = false;
        self.candidates.keep(known.source);
        known.suspect_since = None;
        known.asked_in_vain(self.drop_time_ms, now);
        let package = known.package.clone();
        out.push(Output::Gone { identity: identity.clone(), package, cause });
        self.view_changed();
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.next_heartbeat.is_some_and(|due| due <= now) {
            self.heartbeat(now, out);
        }
        let mut forgotten = Vec::new();
        let mut probed = Vec::new();
        let mut dropped = Vec::new();
        let mut early = Vec::new();
        for known in self.known.values_mut() {
            let is_due = known.next_probe.is_some_and(|due| due <= now);
            if is_due && !known.is_member && known.in_vain.is_some_and(|at| known.heard <= at) {
                known.postpone(self.drop_time_ms, now);
            }
        }
        for (identity, known) in &self.known {
            let silent = now.ms_since(known.last_sign()) >= self.drop_time_ms;
            let due = known.next_probe.is_some_and(|due| due <= now);
            if !known.is_member {
                if silent {
                    forgotten.push(identity.clone());
                } else if due {
                    probed.push((identity.clone(), self.is_taken(identity)));
                }
                continue;
            }
            if let Some((since, _)) = &known.leaving {
                if now.ms_since(*since) >= 2 * self.frequency_ms {
                    dropped.push((identity.clone(), Status::Goodbye));
                } else if due {
                    probed.push((identity.clone(), false));
                }
            } else if silent {
                if now.ms_since(known.heard) >= SUSPECT_MS {
                    dropped.push((identity.clone(), Status::Cut));
                } else if due || (known.suspect_since.is_none() && known.next_probe.is_none()) {
                    probed.push((identity.clone(), true));
                }
            } else if due {
                probed.push((identity.clone(), self.is_static(identity)));
            } else if self.is_due_early(known, now) {
                early.push(identity.clone());
            }
        }
        for identity in forgotten {
            self.forget(&identity);
        }
        for (identity, cause) in dropped {
            self.gone(&identity, cause, now, out);
        }
        for (identity, acked) in probed {
            self.probe(&identity, acked, now, out);
        }
        for identity in early {
            self.probe_early(&identity, now, out);
        }
        self.probe_endpoints(now, out);
    }
}

/// A member in a log line.
fn name(identity: &Identity) -> String {
    identity.address().map_or_else(|| "a member without address".into(), |at| at.to_string())
}
