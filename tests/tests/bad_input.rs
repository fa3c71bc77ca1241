//! What strangers, broken peers and wrongly configured ones send to a node: each is refused, said in
//! the log with its address, and counted, while a healthy member goes on.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringtribe::event::Event;
use ringtribe::ids::Key;
use ringtribe_tests::member::{APPLIED, Member};
use ringtribe_tests::process::Process;
use ringtribe_tests::tomcat::free_mcast_port;
use ringtribe_wire::native::extension::Extension;
use ringtribe_wire::native::{
    Ack, DataHead, Frame, Hello, HelloAck, HelloStatus, LaneClass, MAGIC, MAX_BODY_BYTES,
    MAX_FRAME_BYTES, Step, crc32c, decode, decode_hello, decode_hello_ack, flags, hash,
};
use ringtribe_wire::tribes;

const WITHIN: Duration = Duration::from_secs(20);
/// ackTimeout of the node under test.
const ACK_MS: u64 = 1_000;
/// Its maxMessageBytes and maxReceiveBytes.
const MOST_BYTES: usize = 4 << 20;
const CLUSTER: &str = "production";

/// The member package of somebody at a port of loopback.
fn package(port: u16, unique_id: u8) -> Vec<u8> {
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
struct Bench {
    node: Member,
    healthy: Member,
    exchanged_count: AtomicU64,
    ended: AtomicBool,
}

impl Bench {
    /// Runs `story` while the two exchange messages; none of these fails.
    fn during(settings: &[(&str, &str)], story: impl FnOnce(&Self)) {
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
        let bench = Self { node, healthy, exchanged_count, ended };
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

    fn exchange(&self, key: u64, from: &Member, to: ringtribe::ids::MemberId) {
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

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.node.address)?;
        stream.set_read_timeout(Some(WITHIN))?;
        stream.set_nodelay(true)?;
        // Its end leaves no port behind.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(stream)
    }

    /// A sound hello of a stranger that opens stream 0 of 1.
    fn hello<'a>(&self, boot_id: [u8; 16], package: &'a [u8]) -> Hello<'a> {
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

fn encoded(hello: &Hello<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    hello.encode(&mut bytes);
    bytes
}

fn data(flags: u16, place: usize, sequence: u64, body: &[u8]) -> Vec<u8> {
    let place = u32::try_from(place).expect("short");
    let head = DataHead { flags, place, sequence, key: 77 };
    [&head.encode(body.len(), crc32c(0, body))[..], body].concat()
}

fn whole(sequence: u64, body: &[u8]) -> Vec<u8> {
    data(flags::FIRST | flags::LAST, body.len(), sequence, body)
}

/// All that comes until the connection ends.
fn read_out(stream: &mut TcpStream) -> Vec<u8> {
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

/// Sends a hello and waits until it is accepted; returns the credit.
fn open(stream: &mut TcpStream, hello: &[u8]) -> std::io::Result<u64> {
    stream.write_all(hello)?;
    let mut answer = Vec::new();
    let mut room = [0; 1_024];
    loop {
        if let Some((ack, _)) = decode_hello_ack(&answer).expect("sound") {
            assert_eq!(ack.status, HelloStatus::Ok, "{}", String::from_utf8_lossy(ack.reason));
            return Ok(ack.credit);
        }
        match stream.read(&mut room)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&room[..count]),
        }
    }
}

/// Codes of the CLOSE frames among frames.
fn closes(mut bytes: &[u8]) -> Vec<u16> {
    let mut codes = Vec::new();
    while let Ok(Step::Frame { frame, consumed_bytes }) = decode(bytes, MAX_FRAME_BYTES) {
        if let Frame::Close(close) = frame {
            codes.push(close.code);
        }
        bytes = &bytes[consumed_bytes..];
    }
    codes
}

/// How a node is to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It closes; what ends by itself is nobody's fault and is not counted.
    Closes {
        counted: bool,
    },
    Refuses(HelloStatus),
    /// A stream that was open gets CLOSE with status 207.
    Accuses,
}

/// Something that no node should send.
struct Case {
    name: &'static str,
    /// Goes first, and has to be accepted.
    hello: Option<Vec<u8>>,
    bytes: Vec<u8>,
    answer: Answer,
    /// Part of what the log says.
    says: &'static str,
}

impl Case {
    /// Sends it; returns who sent it and what came back.
    fn play(&self, bench: &Bench) -> std::io::Result<(String, Vec<u8>)> {
        let mut stream = bench.connect()?;
        let from = stream.local_addr()?.to_string();
        if let Some(hello) = &self.hello {
            open(&mut stream, hello)?;
        }
        // It may be refused before all is written.
        let _ = stream.write_all(&self.bytes);
        if self.answer == (Answer::Closes { counted: false }) {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        Ok((from, read_out(&mut stream)))
    }

    fn check(&self, bench: &Bench) {
        let name = self.name;
        let counter = match self.answer {
            Answer::Refuses(_) => "refused_hellos_count",
            _ => "bad_input_count",
        };
        let before_count = bench.node.counter(counter);
        let (from, answer) = self.play(bench).unwrap_or_else(|error| panic!("{name}: {error}"));
        let said = bench.node.wait(name, |seen| seen.has_log(&[&from, self.says]).then_some(()));
        said.unwrap_or_else(|error| panic!("{from} \"{}\" is not said: {error}", self.says));
        let counted = bench.node.counter(counter) - before_count;
        assert_eq!(counted, u64::from(self.answer != Answer::Closes { counted: false }), "{name}");
        match self.answer {
            Answer::Closes { .. } => assert_eq!(answer, b"", "{name}"),
            Answer::Refuses(status) => {
                let (ack, _) = decode_hello_ack(&answer).expect("sound").expect("whole");
                assert_eq!(ack.status, status, "{name}");
                assert!(!ack.reason.is_empty(), "{name}");
            }
            Answer::Accuses => assert_eq!(closes(&answer), [207], "{name}"),
        }
    }
}

/// All kinds, of a stranger whose incarnation is `life`.
fn cases(bench: &Bench, life: u64) -> Vec<Case> {
    let mut boot_id = [0xaa; 16];
    boot_id[..8].copy_from_slice(&life.to_le_bytes());
    let package = package(39_999, 3);
    let good = bench.hello(boot_id, &package);
    let own = bench.node.node.boot_id().0;
    let healthy = bench.healthy.node.boot_id().0;
    let closes = |name, bytes: &[u8], says| {
        let answer = Answer::Closes { counted: true };
        Case { name, hello: None, bytes: bytes.to_vec(), answer, says }
    };
    let ends = |name, bytes: &[u8], says| {
        let answer = Answer::Closes { counted: false };
        Case { name, hello: None, bytes: bytes.to_vec(), answer, says }
    };
    let refused = |name, hello: &Hello<'_>, status, says| {
        let answer = Answer::Refuses(status);
        Case { name, hello: None, bytes: encoded(hello), answer, says }
    };
    let accused = |name, frames: Vec<u8>, says| {
        let hello = Some(encoded(&good));
        Case { name, hello, bytes: frames, answer: Answer::Accuses, says }
    };
    // The version stands behind the magic and 12 bytes; the checksum is that of the frame anew.
    let mut future = encoded(&good);
    future[20..22].copy_from_slice(&9_u16.to_le_bytes());
    future[22..24].copy_from_slice(&9_u16.to_le_bytes());
    seal(&mut future[MAGIC.len()..], 128);
    let mut damaged = encoded(&good);
    *damaged.last_mut().expect("bytes") ^= 1;
    let mut ack = Vec::new();
    let nothing =
        Ack { received: 0, applied: 0, credit: 0, granted: 0, oldest_ms: 0, entries: &[] };
    nothing.encode(&[], &mut ack);
    let mut bad_sum = whole(1, b"hello");
    bad_sum[40 - 4] ^= 1;
    let long_native = [&MAGIC[..], &u32::MAX.to_le_bytes(), &[16, 32, 0, 0]].concat();
    let mut probe = Vec::new();
    tribes::encode_data_head(&mut probe, 3, 1, &[1; 16], &package, 64);
    vec![
        closes("garbage", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "frame"),
        closes("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
        closes("a Tribes frame that is too long", b"FLT2002\x7f\xff\xff\xff", "2147483647"),
        ends("half a Tribes frame", &probe, "inside a frame"),
        ends("half a hello", &encoded(&good)[..60], "ended after 60 bytes of a hello"),
        closes("a hello that is too long", &long_native, "frame length 4294967295"),
        closes("a hello that is damaged", &damaged, "checksum"),
        closes(
            "bytes behind a hello",
            &[encoded(&good), whole(1, b"hello")].concat(),
            "bytes behind its hello before the answer",
        ),
        Case {
            name: "a version of the future",
            hello: None,
            bytes: future,
            answer: Answer::Refuses(HelloStatus::Version),
            says: "the peer's oldest version is 9",
        },
        refused(
            "another cluster",
            &Hello { cluster_hash: 7, cluster_name: b"test", ..good },
            HelloStatus::WrongCluster,
            "clusterName=\"test\" calls clusterName=\"production\"",
        ),
        refused(
            "this node's own incarnation",
            &Hello { boot_id: own, ..good },
            HelloStatus::BootIdInUse,
            "is this node's own",
        ),
        refused(
            "the incarnation of another member",
            &Hello { boot_id: healthy, ..good },
            HelloStatus::BootIdInUse,
            "belongs to the member at 127.0.0.1:",
        ),
        refused(
            "somebody else is meant",
            &Hello { expected_boot_id: [5; 16], ..good },
            HelloStatus::WrongIncarnation,
            "boot id 05050505050505050505050505050505 does not live here",
        ),
        refused(
            "a stream that does not exist",
            &Hello { stream: 65, ..good },
            HelloStatus::Refused,
            "stream 65 of 64 does not exist",
        ),
        refused(
            "it goes on where nothing was",
            &Hello { next_sequence: 9, boot_id: [life.to_le_bytes()[0] ^ 0x55; 16], ..good },
            HelloStatus::Reset,
            "nothing is known here of what went before",
        ),
        accused("a hole", whole(4_000_000, b"hello"), "frame 4000000 where"),
        accused("a damaged frame", bad_sum, "checksum"),
        accused("an ack on the wrong side", ack, "belongs on the other direction"),
        accused(
            "a confirmation of nothing",
            Frame::encode_confirm(5).to_vec(),
            "confirmation of 5",
        ),
    ]
}

/// Gives a frame with a header of so many bytes its checksum.
fn seal(frame: &mut [u8], header_bytes: usize) {
    let body = crc32c(0, &frame[header_bytes..]);
    let crc = crc32c(crc32c(body, &frame[..8]), &frame[12..header_bytes]);
    frame[8..12].copy_from_slice(&crc.to_le_bytes());
}

/// A stream that has opened a message which takes all the room that there is for such.
fn take_all_room(bench: &Bench, boot_id: u8) -> TcpStream {
    let package = package(39_999, 3);
    let mut stream = bench.connect().expect("it listens");
    open(&mut stream, &encoded(&bench.hello([boot_id; 16], &package))).expect("accepted");
    let first = data(flags::FIRST, MOST_BYTES, 1, &[0; MAX_BODY_BYTES]);
    stream.write_all(&first).expect("taken");
    stream
}

fn accused_of(bench: &Bench, stream: &mut TcpStream, says: &str) {
    let from = stream.local_addr().expect("connected").to_string();
    assert_eq!(closes(&read_out(stream)), [207], "{says}");
    let said = bench.node.wait(says, |seen| seen.has_log(&[&from, says]).then_some(()));
    said.expect("it is said");
}

#[test]
fn each_kind_is_refused_counted_and_named() {
    Bench::during(&[], |bench| {
        for case in cases(bench, 1) {
            case.check(bench);
        }
    });
}

#[test]
fn neither_credit_nor_room_can_be_overdrawn() {
    Bench::during(&[], |bench| {
        let mut holder = take_all_room(bench, 0xb1);
        // Granted: told before anybody else asks.
        let mut ack = [0; 56];
        holder.read_exact(&mut ack).expect("an ack");
        let mut pusher = take_all_room(bench, 0xb2);
        pusher.write_all(&data(0, MAX_BODY_BYTES, 2, &[0; 100])).expect("written");
        accused_of(bench, &mut pusher, "before its room was granted");
        // What has the key of a message that is not whole waits for it, and its credit with it.
        let mut spender = take_all_room(bench, 0xb3);
        for sequence in 2..8 {
            let _ = spender.write_all(&whole(sequence, &[0; MAX_BODY_BYTES]));
        }
        accused_of(bench, &mut spender, "where its credit is 262144");
        drop(holder);
    });
}

#[test]
fn a_hello_byte_by_byte_has_ack_timeout() {
    Bench::during(&[], |bench| {
        let package = package(39_999, 3);
        let hello = encoded(&bench.hello([0xc1; 16], &package));
        let clock = Instant::now();
        let mut stream = bench.connect().expect("it listens");
        let from = stream.local_addr().expect("connected").to_string();
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
        for byte in &hello {
            let ended = stream.write_all(&[*byte]).is_err()
                || stream.read(&mut [0]).is_ok_and(|count| count == 0);
            if ended || clock.elapsed() > WITHIN {
                break;
            }
        }
        let took = clock.elapsed();
        let (least, most) = (Duration::from_millis(ACK_MS), Duration::from_millis(3 * ACK_MS));
        assert!(took >= least && took < most, "{took:?}");
        let says = "within ackTimeout";
        let said = bench.node.wait(says, |seen| seen.has_log(&[&from, says]).then_some(()));
        said.expect("it is said");
    });
}

#[test]
fn an_ack_of_what_was_never_sent_is_refused_and_the_message_fails_by_name() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || liar(stream, port));
        }
    });
    let members = format!("127.0.0.1:{port}");
    Bench::during(&[("staticMembers", &members)], |bench| {
        let entry = bench.node.member_at(port).expect("it says that it is one");
        assert_eq!(entry.boot_id().map(|id| id.0), Some(LIAR));
        let before_count = bench.node.counter("bad_input_count");
        let sent = bench.node.send(5, 0, 100, APPLIED, &[entry.id]);
        let failures = sent.expect_err("nobody has it").failures;
        assert!(failures.len() == 1 && failures[0].0 == entry.id, "{failures:?}");
        println!("failed by {:?}", failures[0].1);
        assert!(bench.node.counter("bad_input_count") > before_count);
        let parts = [members.as_str(), "an ack of 99 received"];
        let said = bench.node.wait("the lie", |seen| seen.has_log(&parts).then_some(()));
        said.expect("it is said");
    });
}

const LIAR: [u8; 16] = [0xd1; 16];

/// A member that says it has what it was never sent.
fn liar(mut stream: TcpStream, port: u16) {
    let package = package(port, 4);
    let mut read = Vec::new();
    let mut room = [0; 4_096];
    while let Ok(count @ 1..) = stream.read(&mut room) {
        read.extend_from_slice(&room[..count]);
        if read.ends_with(&tribes::FOOTER) {
            let mut answer = tribes::ACK.to_vec();
            let said = Extension {
                version_min: 1,
                version_max: 1,
                features: 0,
                boot_id: LIAR,
                oldest_unfinished_ms: 0,
                members_count: 0,
                ready: true,
                draining: false,
                view_hash: 0,
                package: Some(&package),
            };
            said.encode(&mut answer).expect("it fits");
            let _ = stream.write_all(&answer);
        } else if let Ok(Some((hello, _))) = decode_hello(&read) {
            let mut answer = Vec::new();
            HelloAck {
                status: HelloStatus::Ok,
                boot_id: LIAR,
                epoch: hello.epoch,
                received: 0,
                applied: 0,
                credit: 1 << 20,
                granted: 0,
                max_frame_bytes: 65_536,
                reason: b"",
            }
            .encode(&mut answer);
            if hello.lane_class == LaneClass::Data {
                let ack = Ack {
                    received: 99,
                    applied: 99,
                    credit: 1 << 20,
                    granted: 0,
                    oldest_ms: 0,
                    entries: &[],
                };
                ack.encode(&[], &mut answer);
            }
            let _ = stream.write_all(&answer);
            read.clear();
        }
    }
}

#[test]
fn two_clusters_in_one_group_refuse_each_other_by_name_and_stay_up() {
    let mcast_port = free_mcast_port().to_string();
    let settings = [
        ("mcastPort", mcast_port.as_str()),
        ("mcastBindAddr", "127.0.0.1"),
        ("clusterName", CLUSTER),
    ];
    let ours = [1, 2].map(|id| Member::start(id, &settings).expect("it starts"));
    let other = Member::start(3, &[settings[0], settings[1], ("clusterName", "test")]);
    let other = other.expect("it starts");
    for (member, caller, here) in [(&ours[0], "test", CLUSTER), (&other, CLUSTER, "test")] {
        let text = format!("clusterName=\"{caller}\" calls clusterName=\"{here}\"");
        let parts = ["connection from 127.0.0.1:", "refused", &text];
        let said = member.wait("the name", |seen| seen.has_log(&parts).then_some(()));
        said.expect("who calls is refused");
        let port = if caller == "test" { other.address } else { ours[0].address };
        let parts = [&*format!("{port} refuses our connection (WrongCluster)"), "clusterName="];
        let said = member.wait("the refusal", |seen| seen.has_log(&parts).then_some(()));
        said.expect("who is called refuses");
        assert!(member.counter("refused_hellos_count") >= 2);
    }
    let to = ours[0].member_at(ours[1].address.port()).expect("one cluster");
    for number in 0..50 {
        ours[0].send(1, number, 100, APPLIED, &[to.id]).expect("it is well");
    }
    drop(other);
}

#[test]
fn a_member_that_restarts_under_its_old_name_is_another_and_the_old_one_fails_by_name() {
    let mcast_port = free_mcast_port().to_string();
    let settings = [
        ("mcastPort", mcast_port.as_str()),
        ("mcastBindAddr", "127.0.0.1"),
        ("mcastDropTime", "1000"),
    ];
    let here = Member::start(1, &settings).expect("it starts");
    let start = |port: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_member"));
        command.arg("7").args(settings.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(format!("tcpListenPort={port}")).stderr(Stdio::inherit());
        let process = Process::start("member", command).expect("it starts");
        let port = process.await_line("port=", WITHIN).expect("it listens");
        (process, port)
    };
    let (mut first, port) = start("32500");
    let number: u16 = port.parse().expect("a port");
    let old = here.member_at(number).expect("it is seen");
    here.send(1, 0, 100, APPLIED, &[old.id]).expect("it lives");
    // What is under way when it dies.
    first.signal(Signal::SIGSTOP).expect("it runs");
    for token in 0..20 {
        here.submit(1, 1 + token, 100, APPLIED, &[old.id], Some(token)).expect("queued");
    }
    first.kill().expect("it is there");
    let (mut second, again) = start(&port);
    assert_eq!(again, port, "the same address");
    let gone = here.wait("the old one to go", |seen| {
        let is_gone =
            |event: &Event| matches!(event, Event::MemberGone { member, .. } if *member == old.id);
        seen.events.iter().any(is_gone).then_some(())
    });
    gone.expect("it is seen");
    let new = here.member_at(number).expect("it is seen");
    assert!(new.id != old.id && new.boot_id().is_some() && new.boot_id() != old.boot_id());
    assert_eq!(new.identity, old.identity, "by its Tribes name it is the same");
    let completed = here
        .wait("completions", |seen| (seen.completed.len() == 20).then(|| seen.completed.clone()));
    for (token, failures) in completed.expect("all come back") {
        assert!(matches!(failures[..], [(member, _)] if member == old.id), "{token} {failures:?}");
    }
    let stale = here.send(1, 30, 100, APPLIED, &[old.id]).expect_err("it is no more");
    assert_eq!(stale.failures, [(old.id, ringtribe::status::Status::StaleMember)]);
    here.send(1, 31, 100, APPLIED, &[new.id]).expect("it lives");
    second.tell("delivered key=1").expect("it runs");
    let delivered = second.await_line("> ", WITHIN).expect("an answer");
    assert_eq!(delivered, "31-31", "nothing of what was meant for its former life");
}

/// Resident memory of this process, bytes.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = text.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a number");
    pages * 4_096
}

/// Memory that may be in use more after the flood than after its first seconds.
const GROWTH_BYTES: u64 = 16 << 20;

#[test]
fn a_flood_of_all_kinds_takes_no_memory() {
    let seconds = std::env::var("RINGTRIBE_FLOOD_SECONDS").ok();
    let seconds: u64 = seconds.map_or(5, |text| text.parse().expect("seconds"));
    Bench::during(&[], |bench| {
        let played_count = AtomicU64::new(0);
        let ended = AtomicBool::new(false);
        let exchanged_before = bench.exchanged_count.load(Ordering::Acquire);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (played_count, ended) = (&played_count, &ended);
                scope.spawn(move || {
                    for life in (thread << 32).. {
                        for case in cases(bench, life) {
                            if ended.load(Ordering::Acquire) {
                                return;
                            }
                            if case.play(bench).is_ok() {
                                played_count.fetch_add(1, Ordering::AcqRel);
                            }
                        }
                        bench.node.look(|seen| seen.logs.clear());
                    }
                });
            }
            let clock = Instant::now();
            let mut warm_bytes = None;
            let mut most_bytes = 0;
            while clock.elapsed() < Duration::from_secs(seconds) {
                std::thread::park_timeout(Duration::from_millis(200));
                let bytes = resident_bytes();
                if clock.elapsed() > Duration::from_secs((seconds * 2 / 5).min(20)) {
                    let _ = *warm_bytes.get_or_insert(bytes);
                    most_bytes = most_bytes.max(bytes);
                }
            }
            ended.store(true, Ordering::Release);
            let warm_bytes = warm_bytes.expect("long enough");
            println!(
                "{} connections in {seconds} s, {} messages of the healthy ones; {} MiB resident when \
                 warm, {} MiB at most",
                played_count.load(Ordering::Acquire),
                bench.exchanged_count.load(Ordering::Acquire) - exchanged_before,
                warm_bytes >> 20,
                most_bytes >> 20
            );
            assert!(most_bytes <= warm_bytes + GROWTH_BYTES, "{warm_bytes} to {most_bytes} bytes");
        });
        assert!(played_count.load(Ordering::Acquire) > 500);
    });
}
