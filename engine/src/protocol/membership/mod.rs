//! Who is there: heartbeats, goodbyes and silence, as stock Tomcat's `McastService` with its
//! `TcpFailureDetector` understands them.
//!
//! A state machine: datagrams, probe results, evidence and time come in; datagrams, probes and
//! changes of the view go out. A member is announced after its port has accepted a connection, and
//! dropped when its port refuses one, or when it is silent and does not answer a probe: a stopped
//! process still accepts connections, so a silent member has to acknowledge a message.

mod interface;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringtribe_wire::tribes::{self, Datagram, Member, TCP_FAILURE_DETECTOR_MAGIC, options};

use crate::directory::{Identity, MAX_MEMBERS_COUNT};
use crate::event::LogLevel;
use crate::ids::Instant;
use crate::io::Evidence;
use crate::status::Status;

pub use interface::{Input, LocalMember, MembershipCounters, Output, ProbeResult};

/// Longest wait for a probe (`TcpFailureDetector.connectTimeout`).
const PROBE_TIMEOUT_MS: u64 = 1_000;
/// Probes in flight at a time.
const PROBES_LIMIT_COUNT: usize = 64;
/// A silent member that answers probes is dropped after this
/// (`TcpFailureDetector.removeSuspectsTimeout`).
const SUSPECT_MS: u64 = 300_000;
/// Time between probes of a member that said goodbye.
const GOODBYE_PROBE_MS: u64 = 100;
/// A fault of the same kind is logged once in this time.
const LOG_EVERY_MS: u64 = 1_000;

#[derive(Debug)]
struct Known {
    package: Vec<u8>,
    alive_ms: i64,
    heard: Instant,
    /// Announced; else a candidate.
    is_member: bool,
    probe: Option<u64>,
    next_probe: Option<Instant>,
    back_off_ms: u64,
    suspect_since: Option<Instant>,
    /// Said goodbye then, with this package.
    leaving: Option<(Instant, Vec<u8>)>,
}

/// See the module.
#[derive(Debug)]
pub struct Membership {
    frequency_ms: u64,
    drop_time_ms: u64,
    local: LocalMember,
    receiving: bool,
    sending: bool,
    started: Option<Instant>,
    next_heartbeat: Option<Instant>,
    known: BTreeMap<Identity, Known>,
    probes: BTreeMap<u64, Identity>,
    next_probe: u64,
    last_log: Option<Instant>,
    counters: MembershipCounters,
}

impl Membership {
    /// Nobody known, nothing started (mcastFrequency, mcastDropTime).
    #[must_use]
    pub fn new(frequency_ms: u64, drop_time_ms: u64) -> Self {
        Self {
            frequency_ms,
            drop_time_ms,
            local: LocalMember::default(),
            receiving: false,
            sending: false,
            started: None,
            next_heartbeat: None,
            known: BTreeMap::new(),
            probes: BTreeMap::new(),
            next_probe: 0,
            last_log: None,
            counters: MembershipCounters::default(),
        }
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

    fn alive_ms(&self, now: Instant) -> i64 {
        let alive_ms = self.started.map_or(0, |started| now.ms_since(started));
        i64::try_from(alive_ms).unwrap_or(i64::MAX)
    }

    /// Takes an input; what has to be done is added to `out`.
    pub fn handle(&mut self, input: Input<'_>, now: Instant, out: &mut Vec<Output>) {
        match input {
            Input::Datagram { bytes, from } => self.datagram(bytes, from, now, out),
            Input::ProbeEnded { probe, result } => self.probe_ended(probe, result, now, out),
            Input::Evidence { identity, evidence } => {
                // A member that cannot be connected to is refused at once; one that does not
                // acknowledge has to show that its process runs.
                let acked = evidence == Evidence::AckTimeout;
                if self.known.get(identity).is_some_and(|known| known.is_member) {
                    self.probe(&identity.clone(), acked, now, out);
                }
            }
            Input::SetLocal(local) => {
                let changed = local != self.local;
                self.local = local;
                if changed && self.sending {
                    self.heartbeat(now, out);
                }
            }
            Input::StartReceiving => {
                self.receiving = true;
                self.started.get_or_insert(now);
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
                self.say_goodbye(was, now, out);
            }
            Input::StopSending => {
                let was = std::mem::take(&mut self.sending);
                self.next_heartbeat = None;
                self.say_goodbye(was, now, out);
            }
            Input::Tick => {}
        }
        self.tick(now, out);
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
            (!probing).then(|| known.heard.plus_ms(self.drop_time_ms))
        });
        let probes = self.known.values().filter_map(|known| known.next_probe);
        let leaving = self.known.values().filter_map(|known| {
            let (since, _) = known.leaving.as_ref()?;
            Some(since.plus_ms(2 * self.frequency_ms))
        });
        silence.chain(probes).chain(leaving).chain(self.next_heartbeat).min()
    }

    fn heartbeat(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.counters.heartbeats_sent_count += 1;
        out.push(Output::SendDatagram(self.local.package(self.alive_ms(now))));
        self.next_heartbeat = Some(now.plus_ms(self.frequency_ms));
    }

    /// As stock: one packet when the last level stops.
    fn say_goodbye(&mut self, stopped: bool, now: Instant, out: &mut Vec<Output>) {
        if stopped && !self.sending && !self.receiving {
            out.push(Output::SendDatagram(self.local.goodbye(self.alive_ms(now))));
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
        if !self.receiving {
            return;
        }
        match tribes::decode_datagram(bytes, &ringtribe_wire::Limits::default()) {
            Ok(Datagram::Member(member, trailing)) => {
                let package = &bytes[..bytes.len() - trailing.len()];
                self.heard(&member, package, now, out);
            }
            Ok(Datagram::Broadcast(data)) => {
                if !self.is_local(&data.member) {
                    out.push(Output::Broadcast { bytes: bytes.to_vec() });
                }
            }
            Err(error) => {
                self.counters.malformed_datagrams_count += 1;
                self.log(now, format!("a packet from {from} is ignored: {error}"), out);
            }
        }
    }

    fn is_local(&self, member: &Member<'_>) -> bool {
        *member.unique_id == self.local.unique_id
            && member.port == self.local.port
            && member.host == self.local.host.as_slice()
    }

    fn heard(&mut self, member: &Member<'_>, package: &[u8], now: Instant, out: &mut Vec<Output>) {
        if self.is_local(member) {
            return;
        }
        self.counters.heartbeats_received_count += 1;
        let identity = Identity::of(member);
        if member.is_shutdown() {
            let is_member = match self.known.get_mut(&identity) {
                Some(known) if known.is_member => {
                    known.leaving.get_or_insert_with(|| (now, package.to_vec()));
                    true
                }
                _ => false,
            };
            if is_member {
                // Anyone can forge a goodbye, so the member's port has the last word.
                self.probe(&identity, false, now, out);
            } else {
                self.known.remove(&identity);
            }
            return;
        }
        let Some(known) = self.known.get_mut(&identity) else {
            if identity.address().is_none() {
                let text = format!(
                    "a member with {} address bytes and port {} is ignored: it cannot be reached",
                    identity.host.len(),
                    identity.port
                );
                self.log(now, text, out);
            } else if self.known.len() < MAX_MEMBERS_COUNT {
                let known = Known {
                    package: package.to_vec(),
                    alive_ms: member.alive_ms,
                    heard: now,
                    is_member: false,
                    probe: None,
                    next_probe: None,
                    back_off_ms: self.frequency_ms,
                    suspect_since: None,
                    leaving: None,
                };
                self.known.insert(identity.clone(), known);
                self.probe(&identity, false, now, out);
            }
            return;
        };
        known.heard = now;
        known.suspect_since = None;
        if known.leaving.is_some() && member.alive_ms > known.alive_ms {
            known.leaving = None;
        }
        if member.alive_ms == known.alive_ms {
            return;
        }
        known.alive_ms = member.alive_ms;
        // The alive time is 8 bytes at offset 14; everything else is content.
        let changed = known.package.get(22..) != package.get(22..);
        known.package = package.to_vec();
        if changed && known.is_member {
            out.push(Output::Changed { identity, package: package.to_vec() });
        }
    }

    fn probe(&mut self, identity: &Identity, acked: bool, now: Instant, out: &mut Vec<Output>) {
        let busy = self.probes.len() >= PROBES_LIMIT_COUNT;
        let frame = acked.then(|| self.probe_frame(now));
        let Some(known) = self.known.get_mut(identity) else { return };
        if known.probe.is_some() {
            return;
        }
        let Some(address) = identity.address() else { return };
        if busy {
            known.next_probe = Some(now.plus_ms(self.frequency_ms));
            return;
        }
        let probe = self.next_probe;
        self.next_probe += 1;
        self.counters.probes_count += 1;
        known.probe = Some(probe);
        known.next_probe = None;
        self.probes.insert(probe, identity.clone());
        out.push(Output::Probe { probe, address, frame, timeout_ms: PROBE_TIMEOUT_MS });
    }

    /// A frame that stock's `TcpFailureDetector` swallows and every receiver acknowledges.
    fn probe_frame(&self, now: Instant) -> Vec<u8> {
        let package = self.local.package(self.alive_ms(now));
        let mut frame = Vec::new();
        tribes::encode_data_head(
            &mut frame,
            options::BYTE_MESSAGE | options::USE_ACK,
            self.alive_ms(now),
            &self.local.unique_id,
            &package,
            TCP_FAILURE_DETECTOR_MAGIC.len(),
        );
        frame.extend_from_slice(&TCP_FAILURE_DETECTOR_MAGIC);
        frame.extend_from_slice(&tribes::FOOTER);
        frame
    }

    fn probe_ended(
        &mut self,
        probe: u64,
        result: ProbeResult,
        now: Instant,
        out: &mut Vec<Output>,
    ) {
        let Some(identity) = self.probes.remove(&probe) else { return };
        let drop_time_ms = self.drop_time_ms;
        let Some(known) = self.known.get_mut(&identity) else { return };
        known.probe = None;
        if !known.is_member {
            if result == ProbeResult::Answered {
                self.announce(&identity, out);
            } else {
                known.next_probe = Some(now.plus_ms(known.back_off_ms));
                known.back_off_ms = (2 * known.back_off_ms).min(drop_time_ms);
            }
            return;
        }
        let leaving = known.leaving.is_some();
        let silent = now.ms_since(known.heard) >= drop_time_ms;
        match result {
            ProbeResult::Answered if leaving => {
                let pause_ms = GOODBYE_PROBE_MS.min(self.frequency_ms);
                known.next_probe = Some(now.plus_ms(pause_ms));
            }
            ProbeResult::Answered if silent => {
                known.suspect_since.get_or_insert(now);
                known.next_probe = Some(now.plus_ms(drop_time_ms));
            }
            ProbeResult::Answered => {}
            ProbeResult::Refused => {
                let cause = if leaving { Status::Goodbye } else { Status::Refused };
                self.gone(&identity, cause, now, out);
            }
            ProbeResult::Unreachable | ProbeResult::TimedOut if silent || leaving => {
                let cause = if leaving { Status::Goodbye } else { Status::Cut };
                self.gone(&identity, cause, now, out);
            }
            // It still speaks: a lost packet, or a full accept queue.
            ProbeResult::Unreachable | ProbeResult::TimedOut => {}
        }
    }

    fn announce(&mut self, identity: &Identity, out: &mut Vec<Output>) {
        // A node that restarted at the same address has a new id; the port is the new one's now.
        let former: Vec<Identity> = self
            .known
            .iter()
            .filter(|(other, known)| {
                known.is_member
                    && *other != identity
                    && other.host == identity.host
                    && other.port == identity.port
            })
            .map(|(other, _)| other.clone())
            .collect();
        for other in former {
            if let Some(known) = self.known.remove(&other) {
                self.counters.members_gone_count += 1;
                let (package, cause) = (known.package, Status::Cut);
                out.push(Output::Gone { identity: other, package, cause });
            }
        }
        let Some(known) = self.known.get_mut(identity) else { return };
        known.is_member = true;
        known.back_off_ms = self.frequency_ms;
        self.counters.members_added_count += 1;
        out.push(Output::Added { identity: identity.clone(), package: known.package.clone() });
    }

    fn gone(&mut self, identity: &Identity, cause: Status, now: Instant, out: &mut Vec<Output>) {
        let Some(known) = self.known.get_mut(identity) else { return };
        self.counters.members_gone_count += 1;
        let farewell = known.leaving.take().map(|(_, package)| package);
        let package = farewell.unwrap_or_else(|| known.package.clone());
        out.push(Output::Gone { identity: identity.clone(), package, cause });
        if cause == Status::Refused {
            // Its heartbeats may go on: then it is tried again, ever less often.
            known.is_member = false;
            known.suspect_since = None;
            known.next_probe = Some(now.plus_ms(known.back_off_ms));
            known.back_off_ms = (2 * known.back_off_ms).min(self.drop_time_ms);
        } else {
            self.known.remove(identity);
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.next_heartbeat.is_some_and(|due| due <= now) {
            self.heartbeat(now, out);
        }
        let mut forgotten = Vec::new();
        let mut probed = Vec::new();
        let mut dropped = Vec::new();
        for (identity, known) in &self.known {
            let silent = now.ms_since(known.heard) >= self.drop_time_ms;
            let due = known.next_probe.is_some_and(|due| due <= now);
            if !known.is_member {
                if silent {
                    forgotten.push(identity.clone());
                } else if due {
                    probed.push((identity.clone(), false));
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
                probed.push((identity.clone(), false));
            }
        }
        for identity in forgotten {
            if let Some(probe) = self.known.remove(&identity).and_then(|known| known.probe) {
                self.probes.remove(&probe);
            }
        }
        for (identity, cause) in dropped {
            self.gone(&identity, cause, now, out);
        }
        for (identity, acked) in probed {
            self.probe(&identity, acked, now, out);
        }
    }
}
