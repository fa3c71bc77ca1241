//! Static members: as a state machine, and real nodes without a group.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use ringtribe::config::Config;
use ringtribe::delivery::{Polled, PollerClass};
use ringtribe::directory::Identity;
use ringtribe::event::Event;
use ringtribe::io::Evidence;
use ringtribe::node::Node;
use ringtribe::protocol::membership::{Input, LocalMember, Output, ProbeResult, StaticMember};
use ringtribe::status::Status;
use ringtribe_wire::native::extension::{Extension, PROBE_ID};
use ringtribe_wire::tribes::{Frame, Step, decode_frame};

mod membership_bench;
use membership_bench::*;

const STATIC: StaticMember = StaticMember {
    address: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 4001),
    unique_id: None,
};

#[test]
fn a_static_member_is_found_by_an_acknowledged_probe_that_stock_swallows() {
    let own = StaticMember { address: "10.0.0.9:4000".parse().expect("an address"), ..STATIC };
    let mut bench = Bench::with_static(&[STATIC, own]);
    let probes: Vec<_> = bench
        .out
        .iter()
        .filter_map(|output| match output {
            Output::Probe { address, frame, .. } => Some((*address, frame.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(probes.len(), 1, "this node's own place is not looked at");
    assert_eq!(probes[0].0, STATIC.address);
    let frame = probes[0].1.as_ref().expect("it wants an acknowledgement");
    let step = decode_frame(frame, &ringtribe_wire::Limits::default()).expect("a frame");
    let Step::Frame { frame: Frame::Data(data), .. } = step else { panic!("whole") };
    assert_eq!((data.options, data.unique_id), (3, &PROBE_ID[..]));
    assert_eq!(data.message, ringtribe_wire::tribes::TCP_FAILURE_DETECTOR_MAGIC);
    // Absent: asked ever less often.
    let mut tries_count = 0;
    for _ in 0..120 {
        tries_count += bench.answer(&ProbeResult::Refused);
        bench.pass(100);
    }
    assert!((4..=8).contains(&tries_count), "{tries_count} tries in 12 s");
    bench.pass(DROP_MS);
    assert_eq!(bench.answer(&ANSWERED), 1);
    assert_eq!(bench.story(), ["added 4001 id 0 tribes"], "a stock node is its address");
    // Nothing goes to a group that is not there.
    bench.give(Input::StartSending);
    bench.give(Input::StopSending);
    bench.give(Input::StopReceiving);
    assert!(!bench.out.iter().any(|output| matches!(output, Output::SendDatagram(_))));
    assert_eq!(bench.membership.next_deadline(), None, "nothing is left to do");
}

#[test]
fn a_static_member_that_dies_is_noticed_within_the_drop_time_and_a_second() {
    let configured = StaticMember { unique_id: Some([8; 16]), ..STATIC };
    for dies_at_ms in (0..600).step_by(50) {
        let mut bench = Bench::with_static(&[configured]);
        bench.answer(&ANSWERED);
        assert_eq!(bench.story(), ["added 4001 id 8 tribes"]);
        // It lives on for long: answers are all it takes.
        for _ in 0..400 {
            bench.pass(50);
            assert!(bench.answer(&ANSWERED) <= 1);
        }
        assert_eq!(bench.story(), Vec::<String>::new());
        bench.pass(dies_at_ms);
        let died = bench.now;
        // Then it is stopped: it accepts connections and acknowledges nothing.
        while bench.gone().is_empty() {
            assert!(bench.now.ms_since(died) <= DROP_MS + 1_000, "dead, and nobody knows");
            let wait_ms = bench.out.iter().find_map(|output| match output {
                Output::Probe { timeout_ms, .. } => Some(*timeout_ms),
                _ => None,
            });
            if let Some(wait_ms) = wait_ms {
                let due = bench.now.plus_ms(wait_ms);
                bench.pass(wait_ms);
                assert_eq!(bench.now, due);
                bench.answer(&ProbeResult::TimedOut);
            } else {
                bench.pass(10);
            }
        }
        assert_eq!(bench.gone(), [Status::Cut]);
        assert!(bench.now.ms_since(died) >= DROP_MS - 1_000, "not for one lost packet");
    }
}

#[test]
fn evidence_against_a_static_member_asks_it_at_once() {
    let mut bench = Bench::with_static(&[STATIC]);
    bench.answer(&ANSWERED);
    let identity = Identity { host: vec![10, 0, 0, 1], port: 4001, unique_id: [0; 16] };
    bench.give(Input::Evidence { identity: &identity, evidence: Evidence::ConnectionLost });
    assert_eq!(bench.answer(&ANSWERED), 1, "it has to acknowledge");
    assert_eq!(bench.gone(), []);
    bench.give(Input::Evidence { identity: &identity, evidence: Evidence::Refused });
    bench.answer(&ProbeResult::Refused);
    assert_eq!(bench.gone(), [Status::Refused]);
    bench.pass(FREQUENCY_MS);
    bench.answer(&ANSWERED);
    assert_eq!(bench.added_count(), 2, "looked for again");
}

#[test]
fn a_static_ringtribe_member_tells_who_it_is() {
    let mut bench = Bench::with_static(&[STATIC]);
    let package = packet(1, 4001, 100, b"", b"");
    let with = |id, package| answer_of(&Extension { package: Some(package), ..said(id) });
    let next = |bench: &mut Bench, answer: &ProbeResult| {
        bench.pass(DROP_MS);
        assert_eq!(bench.answer(answer), 1);
        bench.story()
    };
    // It is starting: no address yet, or not announced yet.
    bench.answer(&answer_of(&said(1)));
    assert_eq!(bench.story(), Vec::<String>::new());
    let starting = Extension { package: Some(&package), ready: false, ..said(1) };
    assert_eq!(next(&mut bench, &answer_of(&starting)), Vec::<String>::new());
    assert_eq!(next(&mut bench, &with(1, &package)), ["added 4001 id 1 life 1"]);
    // A new payload, and a life in which it has another id.
    let changed = packet(1, 4001, 600, b"", b"payload");
    assert_eq!(next(&mut bench, &with(1, &changed)), ["changed 4001 id 1 life 1"]);
    let renamed = packet(2, 4001, 10, b"", b"");
    assert_eq!(next(&mut bench, &with(2, &renamed)), ["gone 4001 Cut", "added 4001 id 2 life 2"]);
    assert_eq!(next(&mut bench, &with(3, &renamed)), ["gone 4001 Cut", "added 4001 id 2 life 3"]);
    // One word that came late is no change; two are a stock node in its place.
    assert_eq!(next(&mut bench, &ANSWERED), Vec::<String>::new());
    assert_eq!(next(&mut bench, &with(3, &renamed)), Vec::<String>::new());
    assert_eq!(next(&mut bench, &ANSWERED), Vec::<String>::new());
    assert_eq!(next(&mut bench, &ANSWERED), ["gone 4001 Cut"]);
    assert_eq!(next(&mut bench, &ANSWERED), ["added 4001 id 0 tribes"]);
    // It changes over again, and leaves.
    let story = next(&mut bench, &with(4, &package));
    assert_eq!(story, ["gone 4001 Cut", "added 4001 id 1 life 4"]);
    let leaving = Extension { package: Some(&package), ready: false, ..said(4) };
    assert_eq!(next(&mut bench, &answer_of(&leaving)), ["gone 4001 Goodbye"]);
    // Under an address that is not the one it names it would be two.
    let elsewhere = packet(1, 4002, 100, b"", b"");
    let story = next(&mut bench, &with(5, &elsewhere));
    assert!(story[0].contains("10.0.0.1:4001") && story[0].contains("10.0.0.1:4002"), "{story:?}");
    // This node's own other address.
    assert_eq!(next(&mut bench, &with(99, &package)), Vec::<String>::new());
    bench.pass(10 * DROP_MS);
    assert_eq!(bench.answer(&ANSWERED), 0, "it is not asked again");
}

const WITHIN: Duration = Duration::from_secs(20);

/// Ports of loopback that are free now.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").port())
}

/// A node that knows the others by their addresses alone.
fn start(id: u8, port: u16, list: &str) -> Node {
    let mut config = Config::default();
    for (name, value) in [
        ("staticMembers", list),
        ("mcastFrequency", "100"),
        ("mcastDropTime", "600"),
        ("tcpListenAddress", "127.0.0.1"),
        ("tcpListenPort", &port.to_string()),
        ("autoBind", "1"),
        ("tcpThreadCount", "1"),
    ] {
        config.set(name, value).expect("a valid knob");
    }
    let node = Node::open(&config).expect("it opens");
    let address = node.listen().expect("the port is free");
    node.set_local_member(LocalMember {
        host: vec![127, 0, 0, 1],
        port: i32::from(address.port()),
        secure_port: -1,
        udp_port: -1,
        unique_id: [id; 16],
        ..LocalMember::default()
    });
    node.start_receiving().expect("no group is needed");
    node.start_sending().expect("no group is needed");
    node
}

/// The next thing that becomes of a member: who, and why it has gone.
fn next(node: &Node) -> (u8, Option<Status>) {
    let until = Instant::now() + WITHIN;
    let limits = ringtribe_wire::Limits::default();
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let mut taken = Vec::new();
        node.poll(PollerClass::Reserved, 1 << 20, 1, left, &mut taken);
        for polled in taken {
            let Polled::Event(event) = polled else { continue };
            let (package, cause) = match &event {
                Event::MemberAdded { package, .. } => (package, None),
                Event::MemberGone { package, cause, .. } => (package, Some(*cause)),
                _ => continue,
            };
            let (member, _) =
                ringtribe_wire::tribes::Member::decode(package, &limits).expect("a member package");
            return (member.unique_id[0], cause);
        }
    }
    panic!("nothing becomes of a member");
}

#[test]
fn real_nodes_find_and_lose_each_other_without_a_group() {
    let ports: [u16; 3] = free_ports();
    // One list for all, each node itself included.
    let list = ports.map(|port| format!("127.0.0.1:{port}")).join(" ");
    let a = start(1, ports[0], &list);
    let b = start(2, ports[1], &list);
    assert_eq!((next(&a), next(&b)), ((2, None), (1, None)));
    let entry = a.members().into_iter().next().expect("b");
    assert_eq!(entry.boot_id(), Some(b.boot_id()), "it told who it is");
    assert_eq!(entry.identity.unique_id, [2; 16]);
    let c = start(3, ports[2], &list);
    assert_eq!((next(&a), next(&b)), ((3, None), (3, None)));
    let mut found = [next(&c), next(&c)];
    found.sort_unstable();
    assert_eq!(found, [(1, None), (2, None)]);
    // A life ends and another one begins under the same name.
    let former = b.boot_id();
    drop(b);
    let (id, cause) = next(&a);
    assert!(id == 2 && matches!(cause, Some(Status::Refused | Status::Goodbye)), "{cause:?}");
    assert_eq!(next(&c).0, 2);
    let b = start(2, ports[1], &list);
    assert_eq!((next(&a), next(&c)), ((2, None), (2, None)));
    let members = a.members();
    let again = members.iter().find(|entry| entry.identity.unique_id == [2; 16]).expect("b");
    assert_eq!(again.boot_id(), Some(b.boot_id()));
    assert_ne!(b.boot_id(), former);
    let stats = a.stats();
    let count = |name| stats.iter().find(|(is, _)| *is == name).map(|(_, count)| *count);
    assert_eq!(count("heartbeats_sent_count"), Some(0), "there is no group");
    assert_eq!(count("malformed_datagrams_count"), Some(0));
}

/// Accepts and acknowledges so many probes, and says `behind` behind each acknowledgement, in
/// pieces; a stock node says nothing.
fn answer_probes(listener: &TcpListener, answers_count: usize, behind: &[u8]) {
    use std::io::{Read as _, Write as _};
    for _ in 0..answers_count {
        let (mut stream, _) = listener.accept().expect("a probe");
        let mut bytes = Vec::new();
        loop {
            let mut part = [0; 4_096];
            let read_bytes = stream.read(&mut part).expect("a frame");
            assert!(read_bytes > 0, "a whole frame");
            bytes.extend(&part[..read_bytes]);
            match decode_frame(&bytes, &ringtribe_wire::Limits::default()).expect("Tribes alone") {
                Step::NeedMore { .. } => {}
                Step::Frame { frame: Frame::Data(data), .. } => {
                    assert_eq!(data.message, ringtribe_wire::tribes::TCP_FAILURE_DETECTOR_MAGIC);
                    break;
                }
                Step::Frame { .. } => panic!("an acknowledgement"),
            }
        }
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(&ringtribe_wire::tribes::ACK).expect("acknowledged");
        for piece in behind.chunks(64) {
            stream.write_all(piece).expect("said");
        }
    }
}

#[test]
fn a_stock_node_is_found_by_its_acknowledgement_and_a_stopped_one_is_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let there = listener.local_addr().expect("bound");
    let [port] = free_ports();
    let list = format!("{there}/{{7,7,7,7,7,7,7,7,7,7,7,7,7,7,7,7}}");
    let node = start(1, port, &list);
    answer_probes(&listener, 3, b"");
    let stopped = Instant::now();
    assert_eq!(next(&node), (7, None));
    assert_eq!(node.members()[0].boot_id(), None, "it gets the Tribes format");
    // From now on its kernel accepts, and nobody acknowledges.
    assert_eq!(next(&node), (7, Some(Status::Cut)));
    let after = stopped.elapsed();
    // mcastDropTime and a second, and what this machine takes.
    assert!(after < Duration::from_millis(600 + 1_000 + 1_000), "{after:?}");
    assert!(after >= Duration::from_millis(500), "{after:?}");
}

#[test]
fn what_a_node_says_of_itself_may_come_in_pieces() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let there = listener.local_addr().expect("bound");
    let [port] = free_ports();
    let node = start(1, port, &there.to_string());
    let local = LocalMember {
        host: vec![127, 0, 0, 1],
        port: i32::from(there.port()),
        unique_id: [9; 16],
        payload: vec![1; 300],
        ..LocalMember::default()
    };
    let package = local.package(5);
    let extension = Extension { package: Some(&package), ..said(9) };
    answer_probes(&listener, 1, &block(&extension));
    assert_eq!(next(&node), (9, None));
    let entry = node.members().into_iter().next().expect("it");
    assert_eq!(entry.incarnation(), Some(life(9)));
    assert_eq!(entry.package()[..], package, "the application sees nothing behind the package");
    assert!(entry.vitals().ready);
}
