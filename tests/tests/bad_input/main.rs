//! What strangers, broken peers and wrongly configured ones send to a node: each is refused, said in
//! the log with its address, and counted, while a healthy member goes on.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ringtribe::event::Event;
use ringtribe::status::Status;
use ringtribe_tests::member::{APPLIED, Member};
use ringtribe_tests::process::Process;
use ringtribe_tests::tomcat::free_mcast_port;
use ringtribe_wire::native::extension::Extension;
use ringtribe_wire::native::{
    Ack, HelloAck, HelloStatus, LaneClass, MAX_BODY_BYTES, decode_hello, flags,
};
use ringtribe_wire::tribes;

mod bench;
mod cases;
mod slow;
use bench::*;
use cases::*;

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

/// What strangers speak that is known here, and who offers what nobody here can use, is named within 5 s.
const NAMED_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn what_is_known_and_not_spoken_here_is_named_once_and_counted() {
    const TLS: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    const OF_5_5: &[u8] = b"FLT2002\0\0\0\x02\0\0\0\x08\xac\xed\0\x05sr\0\x2cTLF2003";
    Bench::during(&[], |bench| {
        for (bytes, says, counter) in [
            (TLS, "a TLS hello", "tls_hellos_count"),
            (OF_5_5, "a frame of Tomcat 5.5", "tomcat_55_frames_count"),
        ] {
            let clock = Instant::now();
            for _ in 0..5 {
                // Byte by byte it is the same.
                for pieces in [bytes.len(), 1] {
                    let mut stream = bench.connect().expect("it listens");
                    for piece in bytes.chunks(pieces) {
                        let _ = stream.write_all(piece);
                    }
                    assert_eq!(read_out(&mut stream), b"");
                }
            }
            assert!(clock.elapsed() < NAMED_WITHIN, "{:?}", clock.elapsed());
            assert_eq!(bench.node.counter(counter), 10, "{says}");
            let named = |text: &&String| text.contains(says);
            assert_eq!(bench.node.look(|seen| seen.logs.iter().filter(named).count()), 1, "{says}");
        }

        // In the group: a heartbeat of Tomcat 5.5, and one of a member that has only a port with TLS.
        let name = b"tcp://127.0.0.1:8015";
        let of_5_5 = [
            &1_000_i64.to_be_bytes()[..],
            &8_015_i32.to_be_bytes(),
            &[127, 0, 0, 1],
            &20_u32.to_be_bytes(),
            name,
            &8_u32.to_be_bytes(),
            b"catalina",
        ]
        .concat();
        let mut of_tls = Vec::new();
        tribes::Member {
            alive_ms: 1_000,
            port: -1,
            secure_port: 4_443,
            udp_port: -1,
            host: &[127, 0, 0, 1],
            command: b"",
            domain: b"",
            unique_id: &[9; 16],
            payload: b"",
        }
        .encode(&mut of_tls);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        socket2::SockRef::from(&socket)
            .set_multicast_if_v4(&Ipv4Addr::LOCALHOST)
            .expect("loopback");
        let to = format!("228.0.0.4:{}", bench.mcast_port);
        let clock = Instant::now();
        for (packet, says, counter) in [
            (&of_5_5, "tcp://127.0.0.1:8015", "tomcat_55_heartbeats_count"),
            (&of_tls, "offers TLS alone (securePort 4443, port -1)", "tls_members_count"),
        ] {
            for _ in 0..3 {
                socket.send_to(packet, &to).expect("sent");
            }
            let parts = [says, "is no member"];
            let said = bench.node.wait(says, |seen| seen.has_log(&parts).then_some(()));
            said.expect("it is named");
            let counted =
                bench.node.wait(says, |_| (bench.node.counter(counter) == 3).then_some(()));
            counted.expect("each is counted");
            let named = |text: &&String| text.contains(says);
            assert_eq!(bench.node.look(|seen| seen.logs.iter().filter(named).count()), 1, "{says}");
        }
        assert!(clock.elapsed() < NAMED_WITHIN, "{:?}", clock.elapsed());
        assert_eq!(bench.node.counter("malformed_datagrams_count"), 0);
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
                cluster_name: CLUSTER.as_bytes(),
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
fn two_clusters_in_one_group_are_not_members_of_each_other() {
    let mcast_port = free_mcast_port().to_string();
    let settings = [
        ("mcastPort", mcast_port.as_str()),
        ("mcastBindAddr", "127.0.0.1"),
        ("clusterName", CLUSTER),
    ];
    let ours = [1, 2].map(|id| Member::start(id, &settings).expect("it starts"));
    let other = Member::start(3, &[settings[0], settings[1], ("clusterName", "test")]);
    let other = other.expect("it starts");
    let late = Member::start(4, &[settings[0], settings[1], ("clusterName", "test")]);
    let late = late.expect("it starts");
    for (member, there, here) in [(&ours[0], "test", CLUSTER), (&other, CLUSTER, "test")] {
        let text = format!("its clusterName is \"{there}\", this node's is \"{here}\"");
        let parts = ["is no member", &text];
        let said = member.wait("the name", |seen| seen.has_log(&parts).then_some(()));
        said.expect("it is named");
        assert!(member.counter("other_clusters_count") >= 1);
    }
    let to = ours[0].member_at(ours[1].address.port()).expect("one cluster");
    other.member_at(late.address.port()).expect("the other cluster");
    for member in [&ours[0], &ours[1], &other, &late] {
        // A member would have been called.
        assert_eq!(member.counter("refused_hellos_count"), 0);
    }
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
    // The kernel takes down a ring, and the accept in it, a moment after its process has ended.
    let until = Instant::now() + WITHIN;
    while TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_err() {
        assert!(Instant::now() < until, "port {number} stays in use");
        std::thread::park_timeout(Duration::from_millis(10));
    }
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
    assert_eq!(stale.failures, [(old.id, Status::StaleMember)]);
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
