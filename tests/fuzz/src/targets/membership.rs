//! Membership among packets of anybody.

use std::net::{Ipv4Addr, SocketAddr};

use ringtribe::directory::{Identity, Incarnation, MAX_MEMBERS_COUNT};
use ringtribe::ids::{BootId, Instant};
use ringtribe::io::Evidence;
use ringtribe::protocol::membership::{
    Input, LocalMember, Membership, Output, ProbeResult, StaticMember,
};
use ringtribe::status::Status;
use ringtribe_wire::native::extension::Extension;
use ringtribe_wire::tribes::{Member, SHUTDOWN_COMMAND};

use super::allocations::held_bytes;
use super::native::seal_extension;
use super::script::Script;

const MS: u64 = 1_000_000;
const OWN: [u8; 16] = [0xee; 16];
/// Probes in flight at most, beside those of members and of the one static member.
const PROBES_COUNT: usize = 64;

struct World {
    membership: Membership,
    now: u64,
    probes: Vec<u64>,
    members: usize,
    fed_bytes: usize,
    inputs_count: usize,
    base_bytes: isize,
}

fn heartbeat(script: &mut Script<'_>) -> (Vec<u8>, SocketAddr) {
    let (who, shape) = (script.u8() % 24, script.u8());
    let id = [if shape & 1 == 0 { who } else { script.u8() }; 16];
    let host: &[u8] = match shape >> 1 & 3 {
        0..=2 => &[127, 0, 0, 1],
        _ => script.counted(),
    };
    let mut bytes = Vec::new();
    Member {
        alive_ms: script.number().cast_signed(),
        port: if shape & 8 == 0 { 4_000 + i32::from(who) } else { script.number32().cast_signed() },
        secure_port: -1,
        udp_port: -1,
        host: &host[..host.len().min(127)],
        command: if shape & 16 == 0 { b"" } else { SHUTDOWN_COMMAND },
        domain: b"",
        unique_id: &id,
        payload: if shape & 32 == 0 { b"" } else { script.counted() },
    }
    .encode(&mut bytes);
    if shape & 64 == 0 {
        bytes.extend_from_slice(&block(who, script));
    }
    let port = u16::from(script.u8());
    let ip = if shape & 128 == 0 { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(10, 0, 0, who) };
    (bytes, SocketAddr::from((ip, 1_000 + port)))
}

fn block(who: u8, script: &mut Script<'_>) -> Vec<u8> {
    let shape = script.u8();
    let package = script.counted();
    let mut bytes = Vec::new();
    let block = Extension {
        version_min: 1,
        version_max: 1 + shape % 2,
        features: 0,
        boot_id: match shape >> 1 & 7 {
            0..=4 => [who; 16],
            5 => OWN,
            _ => [script.u8(); 16],
        },
        oldest_unfinished_ms: script.number32(),
        members_count: script.u16(),
        ready: shape & 16 == 0,
        draining: shape & 32 != 0,
        view_hash: script.number(),
        package: (shape & 64 != 0).then_some(package),
        cluster_name: if shape & 128 == 0 { b"" } else { b"other" },
    };
    block.encode(&mut bytes).expect("it is short");
    bytes
}

impl World {
    fn new() -> Self {
        let base_bytes = held_bytes();
        let own = Incarnation { boot_id: BootId(OWN), features: 0, version_min: 1, version_max: 1 };
        let fixed = StaticMember {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 4_001)),
            unique_id: None,
        };
        let membership = Membership::new(200, 1_000).speaking(own).with_static_members(&[fixed]);
        let mut world = Self {
            membership,
            now: 1_000 * MS,
            probes: Vec::new(),
            members: 0,
            fed_bytes: 0,
            inputs_count: 0,
            base_bytes,
        };
        let local = LocalMember {
            host: vec![127, 0, 0, 1],
            port: 4_000,
            unique_id: [0; 16],
            ..LocalMember::default()
        };
        [Input::SetLocal(local), Input::StartReceiving, Input::StartSending]
            .into_iter()
            .for_each(|input| world.give(input));
        world
    }

    fn give(&mut self, input: Input<'_>) {
        let is_tick = matches!(input, Input::Tick | Input::StopReceiving | Input::StartReceiving);
        let before = self.membership.members().len() + self.probes.len();
        let mut out = Vec::new();
        self.inputs_count += 1;
        self.membership.handle(input, Instant(self.now), &mut out);
        // What one packet brings about does not grow with what came before; silence may be noticed of
        // many at once.
        assert!(out.len() <= 8 + 4 * before || is_tick, "{} outputs", out.len());
        for output in out {
            match output {
                Output::Probe { probe, .. } => self.probes.push(probe),
                Output::Added { .. } => self.members += 1,
                Output::Gone { .. } => {
                    self.members = self.members.checked_sub(1).expect("it was added");
                }
                Output::SendDatagram(bytes) => assert!(bytes.len() < 1_000),
                Output::Log { text, .. } => assert!(text.len() < 4_000, "{text}"),
                _ => {}
            }
        }
        assert_eq!(self.membership.members().len(), self.members, "each is told once");
        assert!(self.members <= MAX_MEMBERS_COUNT);
        let most = PROBES_COUNT + self.members + 2;
        assert!(self.probes.len() <= most, "{} probes in flight", self.probes.len());
        let held_bytes = held_bytes() - self.base_bytes;
        let most_bytes = (64 << 10) + 8 * self.fed_bytes + 1_024 * self.inputs_count;
        assert!(held_bytes <= most_bytes.cast_signed(), "{held_bytes} of {}", self.fed_bytes);
        if let Some(due) = self.membership.next_deadline() {
            assert!(due.0 < self.now + 1_000_000 * MS);
        }
    }

    fn later(&mut self, ms: u64) {
        let until = self.now + ms * MS;
        for round in 0.. {
            assert!(round < 50_000, "its deadlines do not come to rest");
            let due = self.membership.next_deadline().map_or(until, |due| due.0);
            self.now = due.max(self.now + MS).min(until);
            self.give(Input::Tick);
            if self.now == until {
                return;
            }
        }
    }

    fn act(&mut self, script: &mut Script<'_>) {
        match script.u8() % 12 {
            0..=4 => {
                let (mut bytes, from) = heartbeat(script);
                let changes = script.u8();
                if changes >= 240 {
                    let at = usize::from(script.u16()) % bytes.len();
                    bytes[at] = script.u8();
                }
                self.fed_bytes += bytes.len();
                self.give(Input::Datagram { bytes: &bytes, from });
            }
            5 => {
                let bytes = script.counted();
                let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
                self.fed_bytes += bytes.len();
                self.give(Input::Datagram { bytes, from });
            }
            6..=8 => {
                let (number, shape) = (usize::from(script.u8()), script.u8());
                let probe = if self.probes.is_empty() || shape >= 250 {
                    script.u64()
                } else {
                    self.probes.swap_remove(number % self.probes.len())
                };
                let result = match shape % 8 {
                    0 | 1 => ProbeResult::Answered { extension: None },
                    2 => {
                        let mut bytes = script.counted().to_vec();
                        let _ = seal_extension(&mut bytes);
                        ProbeResult::Answered { extension: Some(bytes) }
                    }
                    3 | 4 => {
                        let who = script.u8() % 24;
                        ProbeResult::Answered { extension: Some(block(who, script)) }
                    }
                    5 => ProbeResult::Refused,
                    6 => ProbeResult::Unreachable,
                    _ => ProbeResult::TimedOut,
                };
                self.give(Input::ProbeEnded { probe, result });
            }
            9 => self.later(u64::from(script.u8()) * 20),
            10 => {
                let number = usize::from(script.u8());
                let members: Vec<Identity> =
                    self.membership.members().into_iter().cloned().collect();
                let Some(identity) = members.get(number % members.len().max(1)) else { return };
                let evidence = match script.u8() % 5 {
                    0 => Evidence::Refused,
                    1 => Evidence::ConnectionLost,
                    2 => Evidence::AckTimeout,
                    3 => Evidence::Ended(Status::Cut),
                    _ => Evidence::Ended(Status::Goodbye),
                };
                self.give(Input::Evidence { identity, evidence });
            }
            _ => {
                self.give(match script.u8() % 8 {
                    0 => Input::StopReceiving,
                    1 => Input::StartReceiving,
                    2 => Input::StopSending,
                    3 => Input::StartSending,
                    _ => Input::SetVitals { oldest_unfinished_ms: 5, draining: false },
                });
            }
        }
    }
}

/// Packets, answers to probes, silence.
pub fn play(input: &[u8]) {
    let mut world = World::new();
    let mut script = Script::new(input);
    for _ in 0..400 {
        if script.is_over() {
            break;
        }
        world.act(&mut script);
    }
    // Nobody answers any more: nobody is left.
    world.give(Input::Tick);
    for _ in 0..40 {
        world.later(400);
        for probe in std::mem::take(&mut world.probes) {
            world.give(Input::ProbeEnded { probe, result: ProbeResult::Unreachable });
        }
    }
    assert_eq!(world.members, 0, "who is silent is dropped");
}
