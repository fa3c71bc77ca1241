//! A membership whose time, packets and probe results are the test's.

#![allow(dead_code, reason = "each test file uses a part")]

use std::net::{Ipv4Addr, SocketAddr};

use ringtribe::directory::{Identity, Incarnation};
use ringtribe::ids::{BootId, Instant};
use ringtribe::protocol::membership::{
    Input, LocalMember, Membership, Output, ProbeResult, StaticMember,
};
use ringtribe::status::Status;
use ringtribe_wire::native::extension::Extension;
use ringtribe_wire::tribes::Member;

pub(crate) const FREQUENCY_MS: u64 = 500;
pub(crate) const DROP_MS: u64 = 3_000;
pub(crate) const ANSWERED: ProbeResult = ProbeResult::Answered { extension: None };
pub(crate) const FROM: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

pub(crate) fn packet(id: u8, port: i32, alive_ms: i64, command: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Member {
        alive_ms,
        port,
        secure_port: -1,
        udp_port: -1,
        host: &[10, 0, 0, 1],
        command,
        domain: b"",
        unique_id: &[id; 16],
        payload,
    }
    .encode(&mut bytes);
    bytes
}

pub(crate) const OWN: Incarnation = life(99);
/// Where the members of these tests live.
pub(crate) const HOST: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 9);

pub(crate) const fn life(id: u8) -> Incarnation {
    Incarnation { boot_id: BootId([id; 16]), features: 5, version_min: 1, version_max: 3 }
}

pub(crate) fn said(id: u8) -> Extension<'static> {
    let Incarnation { boot_id, features, version_min, version_max } = life(id);
    Extension {
        version_min,
        version_max,
        features,
        boot_id: boot_id.0,
        oldest_unfinished_ms: 0,
        members_count: 0,
        ready: true,
        draining: false,
        view_hash: 0,
        package: None,
        cluster_name: b"",
    }
}

pub(crate) fn block(extension: &Extension<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    extension.encode(&mut bytes).expect("it fits");
    bytes
}

pub(crate) fn answer_of(extension: &Extension<'_>) -> ProbeResult {
    ProbeResult::Answered { extension: Some(block(extension)) }
}

pub(crate) struct Bench {
    pub(crate) membership: Membership,
    pub(crate) now: Instant,
    pub(crate) out: Vec<Output>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::of(Membership::new(FREQUENCY_MS, DROP_MS).speaking(OWN))
    }

    /// A node that looks for these members alone.
    pub(crate) fn with_static(members: &[StaticMember]) -> Self {
        let membership = Membership::new(FREQUENCY_MS, DROP_MS).speaking(OWN);
        Self::of(membership.with_static_members(members).without_group())
    }

    pub(crate) fn of(membership: Membership) -> Self {
        let mut bench = Self { membership, now: Instant::default(), out: Vec::new() };
        let local = LocalMember { host: vec![10, 0, 0, 9], port: 4000, ..LocalMember::default() };
        bench.give(Input::SetLocal(local));
        bench.give(Input::StartReceiving);
        bench
    }

    pub(crate) fn give(&mut self, input: Input<'_>) {
        self.membership.handle(input, self.now, &mut self.out);
    }

    pub(crate) fn hear(&mut self, bytes: &[u8]) {
        self.give(Input::Datagram { bytes, from: FROM });
    }

    /// A heartbeat of a Ringtribe node, from its own host.
    pub(crate) fn hear_ringtribe(&mut self, packet: &[u8], extension: &Extension<'_>) {
        let bytes = [packet, &block(extension)].concat();
        self.give(Input::Datagram { bytes: &bytes, from: HOST });
    }

    /// What has become of members and what was logged, in order; the rest is forgotten.
    pub(crate) fn story(&mut self) -> Vec<String> {
        let of = |identity: &Identity, life: Option<Incarnation>| {
            let boot = life.map_or("tribes".into(), |life| format!("life {}", life.boot_id.0[0]));
            format!("{} id {} {boot}", identity.port, identity.unique_id[0])
        };
        let (probes, told): (Vec<_>, Vec<_>) =
            self.out.drain(..).partition(|output| matches!(output, Output::Probe { .. }));
        self.out = probes;
        told.into_iter()
            .filter_map(|output| match output {
                Output::Added { identity, incarnation, package, .. } => {
                    assert_package(&package);
                    Some(format!("added {}", of(&identity, incarnation)))
                }
                Output::Changed { identity, incarnation, package } => {
                    assert_package(&package);
                    Some(format!("changed {}", of(&identity, incarnation)))
                }
                Output::Gone { identity, cause, package } => {
                    assert_package(&package);
                    Some(format!("gone {} {cause:?}", identity.port))
                }
                Output::Log { text, .. } => Some(text),
                _ => None,
            })
            .collect()
    }

    /// Time passes; every deadline on the way is met.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now.plus_ms(ms);
        while let Some(due) = self.membership.next_deadline().filter(|due| *due <= until) {
            assert!(due >= self.now, "a deadline in the past would spin");
            self.now = due.max(Instant(self.now.0 + 1));
            self.give(Input::Tick);
        }
        self.now = until;
    }

    /// Answers the probes that are open; tells how many of them wanted an acknowledgement.
    pub(crate) fn answer(&mut self, result: &ProbeResult) -> usize {
        let mut acked_count = 0;
        for output in std::mem::take(&mut self.out) {
            if let Output::Probe { probe, frame, .. } = output {
                acked_count += usize::from(frame.is_some());
                self.give(Input::ProbeEnded { probe, result: result.clone() });
            } else {
                self.out.push(output);
            }
        }
        acked_count
    }

    pub(crate) fn added_count(&self) -> usize {
        self.out.iter().filter(|output| matches!(output, Output::Added { .. })).count()
    }

    pub(crate) fn gone(&self) -> Vec<Status> {
        self.out
            .iter()
            .filter_map(|output| match output {
                Output::Gone { cause, .. } => Some(*cause),
                _ => None,
            })
            .collect()
    }

    /// A bench with one announced member.
    pub(crate) fn with_member() -> Self {
        let mut bench = Self::new();
        bench.hear(&packet(1, 4001, 100, b"", b""));
        bench.answer(&ANSWERED);
        assert_eq!(bench.added_count(), 1);
        bench
    }
}

/// The application sees a member package and nothing behind it.
pub(crate) fn assert_package(package: &[u8]) {
    let limits = ringtribe_wire::Limits::default();
    let (_, package_bytes) = Member::decode(package, &limits).expect("a member package");
    assert_eq!(package_bytes, package.len());
}
