//! Attackers: what they do to a node until they are told to stop, over and over.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringtribe_wire::native::extension::Extension;
use ringtribe_wire::native::{
    Ack, DataHead, Frame, Gap, Hello, LaneClass, MAX_BODY_BYTES, crc32c, decode_hello_ack, flags,
    hash,
};
use ringtribe_wire::tribes::{self, FOOTER, Member, TCP_FAILURE_DETECTOR_MAGIC, encode_data_head};

/// Whom an attack is aimed at.
#[derive(Clone, Debug)]
pub struct Aim {
    /// Where the node listens.
    pub address: SocketAddr,
    /// Its group.
    pub group: SocketAddr,
    /// Its incarnation.
    pub boot_id: [u8; 16],
    /// Its cluster's name.
    pub cluster: String,
    /// Where another member of its cluster listens.
    pub member: SocketAddr,
}

/// An attack: runs until told to stop, returns how many packets, connections or bytes it made.
pub type Attack = fn(&Aim, &AtomicBool) -> u64;

/// All of them by name.
pub const ATTACKS: [(&str, Attack); 8] = [
    ("slow-tribes", slow_tribes),
    ("slow-own", slow_own),
    ("half-open", half_open),
    ("every-place", every_place),
    ("heartbeats", heartbeats),
    ("stolen-names", stolen_names),
    ("lies-own", lies_own),
    ("lies-tribes", lies_tribes),
];

/// Packets a second that a forger wants to reach.
pub const HEARTBEATS_PER_SECOND: u64 = 100_000;

/// The member package of somebody at a port of loopback.
#[must_use]
pub fn package(port: u16, unique_id: [u8; 16]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Member {
        alive_ms: 1,
        port: i32::from(port),
        secure_port: -1,
        udp_port: -1,
        host: &[127, 0, 0, 1],
        command: b"",
        domain: b"",
        unique_id: &unique_id,
        payload: b"",
    }
    .encode(&mut bytes);
    bytes
}

/// A Tribes frame that asks whether somebody is there; it is acknowledged.
#[must_use]
pub fn probe() -> Vec<u8> {
    tribes_frame(3, &TCP_FAILURE_DETECTOR_MAGIC)
}

/// A Tribes frame from somebody who is no member.
#[must_use]
pub fn tribes_frame(options: i32, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_data_head(&mut bytes, options, 1, &[1; 16], &package(39_999, [3; 16]), message.len());
    bytes.extend_from_slice(message);
    bytes.extend_from_slice(&FOOTER);
    bytes
}

/// A sound hello of somebody who is no member, for stream 0 of 64.
#[must_use]
pub fn hello(aim: &Aim, boot_id: [u8; 16]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Hello {
        after_cut: false,
        boot_id,
        expected_boot_id: aim.boot_id,
        tribes_id: [3; 16],
        cluster_hash: hash(aim.cluster.as_bytes()),
        epoch: 1,
        stream: 0,
        streams: 64,
        lane_class: LaneClass::Data,
        max_frame_bytes: 65_536,
        max_message_bytes: 4 << 20,
        next_sequence: 1,
        member_package: &package(39_999, [3; 16]),
        cluster_name: aim.cluster.as_bytes(),
    }
    .encode(&mut bytes);
    bytes
}

fn connect(aim: &Aim) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&aim.address, Duration::from_secs(1)).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    // Its end leaves no port behind.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok()?;
    Some(stream)
}

/// Numbers that do not repeat soon (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        ringtribe_wire::native::mix(self.0)
    }

    fn id(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.next().to_le_bytes());
        id[8..].copy_from_slice(&self.next().to_le_bytes());
        id
    }
}

/// Keeps `count` connections on which `bytes` come one by one, a byte of each every 20 ms; one that
/// the node has closed is opened again.
fn trickle(aim: &Aim, stop: &AtomicBool, count: usize, bytes: impl Fn(u64) -> Vec<u8>) -> u64 {
    let mut opened_count = 0;
    let mut conns: Vec<Option<(TcpStream, Vec<u8>, usize)>> = (0..count).map(|_| None).collect();
    while !stop.load(Ordering::Acquire) {
        for conn in &mut conns {
            if let Some((stream, bytes, at)) = conn {
                let next = bytes.get(*at..*at + 1);
                *at += 1;
                let is_over = next.is_none_or(|next| stream.write_all(next).is_err());
                if is_over {
                    *conn = None;
                }
            } else if let Some(stream) = connect(aim) {
                opened_count += 1;
                *conn = Some((stream, bytes(opened_count), 0));
            }
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    opened_count
}

/// Half frames of the Tribes format.
fn slow_tribes(aim: &Aim, stop: &AtomicBool) -> u64 {
    trickle(aim, stop, 200, |_| tribes_frame(3, &[7; 10_000]))
}

/// Half hellos.
fn slow_own(aim: &Aim, stop: &AtomicBool) -> u64 {
    trickle(aim, stop, 200, |number| {
        let mut boot_id = [0xc0; 16];
        boot_id[..8].copy_from_slice(&number.to_le_bytes());
        hello(aim, boot_id)
    })
}

/// Connections that say nothing.
fn half_open(aim: &Aim, stop: &AtomicBool) -> u64 {
    trickle(aim, stop, 500, |_| Vec::new())
}

/// More connections than there are places for, each with a sound frame first; they stay.
fn every_place(aim: &Aim, stop: &AtomicBool) -> u64 {
    let mut opened_count = 0;
    let mut conns = std::collections::VecDeque::new();
    while !stop.load(Ordering::Acquire) {
        if let Some(mut stream) = connect(aim) {
            let _ = stream.write_all(&probe());
            conns.push_back(stream);
            opened_count += 1;
        }
        if conns.len() > 400 {
            conns.pop_front();
        }
        if opened_count % 10 == 0 {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
    opened_count
}

/// Sends packets to the group, [`HEARTBEATS_PER_SECOND`] of them if it can.
fn forge(aim: &Aim, stop: &AtomicBool, mut packet: impl FnMut(&mut Numbers) -> Vec<u8>) -> u64 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    let reference = socket2::SockRef::from(&socket);
    reference.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("loopback");
    reference.set_multicast_ttl_v4(0).expect("this host only");
    // They are made before, so that sending is all that takes time.
    let mut numbers = Numbers(std::process::id().into());
    let packets: Vec<Vec<u8>> = (0..20_000).map(|_| packet(&mut numbers)).collect();
    let clock = Instant::now();
    let mut sent_count = 0_u64;
    while !stop.load(Ordering::Acquire) {
        let due = clock.elapsed().as_nanos() * u128::from(HEARTBEATS_PER_SECOND) / 1_000_000_000;
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        if sent_count >= due {
            std::thread::park_timeout(Duration::from_micros(200));
        }
        // What it cannot send in time it does not send later.
        let count = due.saturating_sub(sent_count).min(1_000);
        for number in 0..count {
            let at = usize::try_from(sent_count + number).unwrap_or(0) % packets.len();
            let _ = socket.send_to(&packets[at], aim.group);
        }
        sent_count += count;
    }
    sent_count
}

fn with_block(aim: &Aim, mut package: Vec<u8>, boot_id: [u8; 16]) -> Vec<u8> {
    Extension {
        version_min: 1,
        version_max: 1,
        features: 0,
        boot_id,
        oldest_unfinished_ms: 0,
        members_count: 9,
        ready: true,
        draining: false,
        view_hash: 1,
        package: None,
        cluster_name: aim.cluster.as_bytes(),
    }
    .encode(&mut package)
    .expect("it fits");
    package
}

/// Heartbeats of members that do not exist.
fn heartbeats(aim: &Aim, stop: &AtomicBool) -> u64 {
    forge(aim, stop, |numbers| {
        let port = u16::try_from(1 + numbers.next() % 1_000).unwrap_or(1);
        with_block(aim, package(port, numbers.id()), numbers.id())
    })
}

/// Heartbeats that name the address of a member that lives, and somebody else there.
fn stolen_names(aim: &Aim, stop: &AtomicBool) -> u64 {
    let ports = [aim.member.port(), aim.address.port()];
    forge(aim, stop, |numbers| {
        let port = ports[usize::from(numbers.next() & 1 == 1)];
        let package = package(port, numbers.id());
        if numbers.next() & 1 == 1 { with_block(aim, package, numbers.id()) } else { package }
    })
}

fn data(flags: u16, place: u32, sequence: u64, body: &[u8]) -> Vec<u8> {
    let head = DataHead { flags, place, sequence, key: 77 };
    [&head.encode(body.len(), crc32c(0, body))[..], body].concat()
}

/// Frames that lie, each behind a hello: about numbers, places, lengths, credit, acks.
#[must_use]
pub fn lies() -> Vec<(&'static str, Vec<u8>)> {
    let mut ack = Vec::new();
    let said = Ack {
        received: u64::MAX,
        applied: u64::MAX,
        credit: u64::MAX,
        granted: u64::MAX,
        oldest_ms: u32::MAX,
        entries: &[],
    };
    said.encode(&[], &mut ack);
    let gap = Gap { cause: 1, sequence: 1, key: 0, refused: u64::MAX };
    let second = Gap { sequence: 2, ..gap };
    let whole = flags::FIRST | flags::LAST;
    let mut pushed = data(flags::FIRST, 4 << 20, 1, &[0; MAX_BODY_BYTES]);
    for sequence in 2..8 {
        pushed.extend(data(whole, 60_000, sequence, &[0; 60_000]));
    }
    vec![
        ("a hole in the numbers", data(whole, 5, 4_000_000, b"hello")),
        ("the largest number", data(whole, 5, u64::MAX, b"hello")),
        ("a length above what comes", data(whole, 500, 1, b"hello")),
        ("a length below what comes", data(whole, 2, 1, b"hello")),
        ("a message of 4 GiB", data(flags::FIRST, u32::MAX, 1, b"hello")),
        ("a later piece first", data(flags::LAST, 5, 1, b"hello")),
        ("more than its credit", pushed),
        ("an ack to who sends none", ack),
        ("a confirmation of nothing", Frame::encode_confirm(u64::MAX).to_vec()),
        ("gaps of more than there is", [&gap.encode()[..], &second.encode()].concat()),
    ]
}

/// Opens streams and lies, one lie after the other.
fn lies_own(aim: &Aim, stop: &AtomicBool) -> u64 {
    let lies = lies();
    let mut numbers = Numbers(7);
    let mut told_count = 0;
    while !stop.load(Ordering::Acquire) {
        for (_, lie) in &lies {
            let Some(mut stream) = connect(aim) else { continue };
            if stream.write_all(&hello(aim, numbers.id())).is_err() {
                continue;
            }
            let mut answer = Vec::new();
            let mut room = [0; 1_024];
            while decode_hello_ack(&answer).is_ok_and(|ack| ack.is_none()) {
                match stream.read(&mut room) {
                    Ok(count @ 1..) => answer.extend_from_slice(&room[..count]),
                    _ => break,
                }
            }
            let _ = stream.write_all(lie);
            told_count += 1;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    told_count
}

/// Frames of the Tribes format whose lengths lie, and acknowledgements that nobody waits for.
fn lies_tribes(aim: &Aim, stop: &AtomicBool) -> u64 {
    let mut numbers = Numbers(9);
    let mut told_count = 0;
    while !stop.load(Ordering::Acquire) {
        for kind in 0..6 {
            let Some(mut stream) = connect(aim) else { continue };
            let mut frame = tribes_frame(7, &[7; 300]);
            let length = u32::try_from(numbers.next() & 0xffff_ffff).unwrap_or(0).to_be_bytes();
            // Lengths: of the frame, the id, the member package, the message.
            match kind {
                0 => frame[7..11].copy_from_slice(&length),
                1 => frame[23..27].copy_from_slice(&length),
                2 => frame[43..47].copy_from_slice(&length),
                3 => {
                    let at = frame.len() - 300 - FOOTER.len() - 4;
                    frame[at..at + 4].copy_from_slice(&length);
                }
                4 => frame = tribes::ACK.to_vec(),
                _ => frame = [&tribes::ACK[..], &tribes::FAIL_ACK].concat(),
            }
            let _ = stream.write_all(&frame);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read(&mut [0; 100]);
            told_count += 1;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    told_count
}
