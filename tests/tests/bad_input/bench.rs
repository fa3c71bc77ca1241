//! A node under test beside a healthy member, and what a stranger needs to speak to it.

use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ringtribe::event::Event;
use ringtribe::ids::{Key, MemberId};
use ringtribe_tests::member::{APPLIED, Member};
use ringtribe_tests::tomcat::free_mcast_port;
use ringtribe_wire::native::{DataHead, Hello, LaneClass, crc32c, flags, hash};
use ringtribe_wire::tribes;

pub(super) const WITHIN: Duration = Duration::from_secs(20);
/// ackTimeout of the node under test.
pub(super) const ACK_MS: u64 = 1_000;
/// Its maxMessageBytes and maxReceiveBytes.
pub(super) const MOST_BYTES: usize = 4 << 20;
pub(super) const CLUSTER: &str = "production";

/// The member package of somebody at a port of loopback.
pub(super) fn package(port: u16, unique_id: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    tribes::Member {
        alive_ms: 1,
        port: i32::from(port),
        secure_port: -1,
        udp_port: -1,
        host: &[127, 0, 0, 1],
        command: b"",
        domain: b"",
        unique_id: &[unique_id; 16],
        payload: b"",
    }
    .encode(&mut bytes);
    bytes
}

/// A node under test and a healthy member that exchange messages all the time.
pub(super) struct Bench {
    pub(super) node: Member,
    pub(super) healthy: Member,
    pub(super) mcast_port: String,
    pub(super) exchanged_count: AtomicU64,
    ended: AtomicBool,
}

impl Bench {
    /// Runs `story` while the two exchange messages; none of these fails.
    pub(super) fn during(settings: &[(&str, &str)], story: impl FnOnce(&Self)) {
        let mcast_port = free_mcast_port().to_string();
        let common = [
            ("mcastPort", mcast_port.as_str()),
            ("mcastBindAddr", "127.0.0.1"),
            ("mcastDropTime", "10000"),
            ("clusterName", CLUSTER),
        ];
        let (ack_ms, most) = (ACK_MS.to_string(), MOST_BYTES.to_string());
        let own = [
            ("ackTimeout", ack_ms.as_str()),
            ("maxMessageBytes", &most),
            ("maxReceiveBytes", &most),
        ];
        let all: Vec<_> = common.iter().chain(&own).chain(settings).copied().collect();
        let node = Member::start(1, &all).expect("it starts");
        let healthy = Member::start(2, &common).expect("it starts");
        let (exchanged_count, ended) = (AtomicU64::new(0), AtomicBool::new(false));
        let bench = Self { node, healthy, mcast_port: mcast_port.clone(), exchanged_count, ended };
        std::thread::scope(|scope| {
            for (key, from, to) in
                [(1, &bench.node, &bench.healthy), (2, &bench.healthy, &bench.node)]
            {
                let (bench, member) =
                    (&bench, from.member_at(to.address.port()).expect("it is seen"));
                scope.spawn(move || bench.exchange(key, from, member.id));
            }
            let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                story(&bench);
                // It is as well as before.
                let count = bench.exchanged_count.load(Ordering::Acquire);
                bench.node.wait("an exchange", |_| {
                    (bench.exchanged_count.load(Ordering::Acquire) > count + 20).then_some(())
                })
            }));
            bench.ended.store(true, Ordering::Release);
            match told {
                Ok(exchanged) => exchanged.expect("the healthy member goes on"),
                Err(why) => std::panic::resume_unwind(why),
            }
        });
        let gone = |event: &Event| matches!(event, Event::Gap { .. });
        assert!(!bench.node.look(|seen| seen.events.iter().any(gone)), "nothing was missed");
    }

    fn exchange(&self, key: u64, from: &Member, to: MemberId) {
        for number in 0.. {
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            let message = from.compose(key, number, 500, APPLIED).expect("in bounds");
            let key = Some(Key::of(&key.to_le_bytes()));
            let sent = from.node.send(message, key, false, &[to], Some(20_000));
            sent.expect("a healthy member is not touched");
            self.exchanged_count.fetch_add(1, Ordering::AcqRel);
            // This program forgets what it need not check.
            if number % 1_000 == 0 {
                self.node.look(|seen| seen.delivered.clear());
                self.healthy.look(|seen| seen.delivered.clear());
            }
        }
    }

    pub(super) fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.node.address)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_nodelay(true)?;
        // Its end leaves no port behind.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(stream)
    }

    /// A sound hello of a stranger that opens stream 0 of 64.
    pub(super) fn hello<'a>(&self, boot_id: [u8; 16], package: &'a [u8]) -> Hello<'a> {
        Hello {
            after_cut: false,
            boot_id,
            expected_boot_id: self.node.node.boot_id().0,
            tribes_id: [3; 16],
            cluster_hash: hash(CLUSTER.as_bytes()),
            epoch: 1,
            stream: 0,
            streams: 64,
            lane_class: LaneClass::Data,
            max_frame_bytes: 65_536,
            max_message_bytes: MOST_BYTES as u64,
            next_sequence: 1,
            member_package: package,
            cluster_name: CLUSTER.as_bytes(),
        }
    }
}

pub(super) fn encoded(hello: &Hello<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    hello.encode(&mut bytes);
    bytes
}

pub(super) fn data(flags: u16, place: usize, sequence: u64, body: &[u8]) -> Vec<u8> {
    let place = u32::try_from(place).expect("short");
    let head = DataHead { flags, place, sequence, key: 77 };
    [&head.encode(body.len(), crc32c(0, body))[..], body].concat()
}

pub(super) fn whole(sequence: u64, body: &[u8]) -> Vec<u8> {
    data(flags::FIRST | flags::LAST, body.len(), sequence, body)
}

/// All that comes until the connection ends.
pub(super) fn read_out(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut room = [0; 4_096];
    loop {
        match stream.read(&mut room) {
            Ok(0) => return bytes,
            Ok(count) => bytes.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the node keeps a connection that it should close")
            }
            Err(_) => return bytes,
        }
    }
}
