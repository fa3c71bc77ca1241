//! Peers that take what they can get and bring nothing: a byte now and then, connections that stay,
//! heartbeats of nobody.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringtribe::event::Event;
use ringtribe_tests::hostile::{ATTACKS, Aim, HEARTBEATS_PER_SECOND, lies, probe, tribes_frame};
use ringtribe_tests::member::{APPLIED, Member};
use ringtribe_wire::tribes::ACK;

use super::bench::*;
use super::cases::{closes, open};

fn aim(bench: &Bench) -> Aim {
    let port = bench.mcast_port.parse().expect("a port");
    Aim {
        address: bench.node.address,
        group: SocketAddr::from((Ipv4Addr::new(228, 0, 0, 4), port)),
        boot_id: bench.node.node.boot_id().0,
        cluster: CLUSTER.into(),
        member: bench.healthy.address,
    }
}

/// Sends `first`, then a byte of `rest` every 50 ms until the node ends the connection. Returns after
/// how long, and what it said last.
fn trickle(stream: &mut TcpStream, first: &[u8], rest: &[u8]) -> (Duration, Vec<u8>) {
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    let clock = Instant::now();
    let mut said = Vec::new();
    let mut room = [0; 1_024];
    let mut ended = stream.write_all(first).is_err();
    for byte in rest {
        if ended || clock.elapsed() > WITHIN {
            break;
        }
        match stream.read(&mut room) {
            Ok(0) => ended = true,
            Ok(count) => said.extend_from_slice(&room[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                ended = stream.write_all(&[*byte]).is_err();
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => ended = true,
        }
    }
    (clock.elapsed(), said)
}

#[test]
fn a_frame_byte_by_byte_has_ack_timeout_in_either_format() {
    Bench::during(&[], |bench| {
        let (least, most) = (Duration::from_millis(ACK_MS), Duration::from_millis(4 * ACK_MS));
        let package = package(39_999, 3);
        let named = |stream: &TcpStream, took: Duration| {
            let from = stream.local_addr().expect("connected").to_string();
            let says = ["ackTimeout (1000 ms)", "65536", "raise ackTimeout"];
            let parts = [&[from.as_str()][..], &says].concat();
            let said = bench.node.wait("its name", |seen| seen.has_log(&parts).then_some(()));
            said.expect("who, which limit, what to do");
            assert!(took >= least && took < most, "{took:?}");
        };
        let frame = tribes_frame(3, &[7; 1_000]);
        let mut stream = bench.connect().expect("it listens");
        let (took, said) = trickle(&mut stream, &frame[..200], &frame[200..]);
        assert_eq!(said, b"", "nothing is acknowledged");
        named(&stream, took);

        let mut stream = bench.connect().expect("it listens");
        open(&mut stream, &encoded(&bench.hello([0xc2; 16], &package))).expect("accepted");
        let frame = whole(1, &[7; 1_000]);
        let (took, said) = trickle(&mut stream, &frame[..20], &frame[20..]);
        assert_eq!(closes(&said), [207]);
        named(&stream, took);

        // What comes along may take longer than that.
        let mut stream = bench.connect().expect("it listens");
        let clock = Instant::now();
        for piece in tribes_frame(3, &vec![7; 600 << 10]).chunks(40 << 10) {
            stream.write_all(piece).expect("it is read");
            std::thread::park_timeout(Duration::from_millis(120));
        }
        let mut ack = [0; ACK.len()];
        stream.read_exact(&mut ack).expect("it is acknowledged");
        assert!(ack == ACK && clock.elapsed() > least, "{:?}", clock.elapsed());
    });
}

#[test]
fn strangers_that_take_every_place_keep_no_member_out() {
    let most_count = 64;
    Bench::during(&[("maxConnections", &most_count.to_string())], |bench| {
        let package = package(39_999, 3);
        let mut strangers = Vec::new();
        for number in 0..2 * most_count {
            let mut stream = bench.connect().expect("it listens");
            match number % 3 {
                0 => stream.write_all(&probe()).expect("taken"),
                1 => {
                    let mut boot_id = [0xc3; 16];
                    boot_id[0] = u8::try_from(number).expect("small");
                    stream.write_all(&encoded(&bench.hello(boot_id, &package))).expect("taken");
                }
                _ => {}
            }
            strangers.push(stream);
        }
        let full = bench.node.wait("every place to be taken", |_| {
            (bench.node.counter("displaced_connections_count") > 0).then_some(())
        });
        full.expect("there are more of them");
        let says = ["of no member", "maxConnections", "Keep strangers"];
        let said = bench.node.wait("its log line", |seen| seen.has_log(&says).then_some(()));
        said.expect("which limit, and what to do");
        let settings = [
            ("mcastPort", bench.mcast_port.as_str()),
            ("mcastBindAddr", "127.0.0.1"),
            ("clusterName", CLUSTER),
        ];
        let newcomer = Member::start(9, &settings).expect("it starts");
        let to = newcomer.member_at(bench.node.address.port()).expect("it sees the node");
        for number in 0..50 {
            newcomer.send(9, number, 500, APPLIED, &[to.id]).expect("it gets in");
        }
        assert_eq!(bench.node.counter("refused_connections_count"), 0);
        drop(strangers);
    });
}

/// A heartbeat costs so little that an attacker of the node's own speed cannot make it deaf; and nobody
/// becomes a member, or ceases to be one, because of what others say.
#[test]
fn forged_heartbeats_make_no_member_and_drop_none() {
    Bench::during(&[], |bench| {
        let aim = aim(bench);
        let members_of = |member: &Member| {
            let members = member.node.members();
            members.iter().map(|entry| (entry.id, entry.address)).collect::<Vec<_>>()
        };
        let before = [&bench.node, &bench.healthy].map(members_of);
        // Those that nobody answers for keep their places for mcastDropTime: they come last.
        for name in ["stolen-names", "heartbeats"] {
            let (_, attack) = ATTACKS.iter().find(|(is, _)| *is == name).expect("an attack");
            let stop = AtomicBool::new(false);
            let before_bytes = super::resident_bytes();
            let heard_count = bench.node.counter("heartbeats_received_count");
            let exchanged_count = bench.exchanged_count.load(Ordering::Acquire);
            std::thread::scope(|scope| {
                let attacker = scope.spawn(|| attack(&aim, &stop));
                let clock = Instant::now();
                while clock.elapsed() < Duration::from_secs(4) {
                    std::thread::park_timeout(Duration::from_millis(100));
                    let now = [&bench.node, &bench.healthy].map(members_of);
                    assert_eq!(now, before, "{name}");
                }
                stop.store(true, Ordering::Release);
                let sent_count = attacker.join().expect("it runs");
                let more_bytes = super::resident_bytes().saturating_sub(before_bytes);
                println!(
                    "{name}: {} of {HEARTBEATS_PER_SECOND} packets a second, {} of them heard; {} \
                     exchanges; {} KiB more resident",
                    sent_count / 4,
                    (bench.node.counter("heartbeats_received_count") - heard_count) / 4,
                    bench.exchanged_count.load(Ordering::Acquire) - exchanged_count,
                    more_bytes >> 10
                );
                assert!(sent_count > 20_000, "{sent_count} are no flood");
                assert!(more_bytes < 32 << 20, "{more_bytes}");
            });
        }
        let changed =
            |event: &Event| matches!(event, Event::MemberGone { .. } | Event::MemberChanged { .. });
        let events = bench.node.look(|seen| seen.events.clone());
        assert!(!events.iter().any(changed), "{events:?}");
    });
}

#[test]
fn each_lie_of_a_stream_is_cut_and_named_or_harms_nobody() {
    Bench::during(&[], |bench| {
        let package = package(39_999, 3);
        for (number, (name, lie)) in (0_u8..).zip(lies()) {
            let mut stream = bench.connect().expect("it listens");
            let from = stream.local_addr().expect("connected").to_string();
            open(&mut stream, &encoded(&bench.hello([0xd0 + number; 16], &package))).expect(name);
            // It may be refused before all is written.
            let _ = stream.write_all(&lie);
            if name.starts_with("gaps") {
                // Whoever missed what, it is told to nobody: this is no member.
                continue;
            }
            let codes = closes(&read_out(&mut stream));
            assert!(codes.len() == 1, "{name}: {codes:?}");
            let said = bench
                .node
                .wait(name, |seen| seen.logs.iter().find(|text| text.contains(&from)).cloned());
            println!("{name}: {} {}", codes[0], said.expect("it is said"));
        }
    });
}
