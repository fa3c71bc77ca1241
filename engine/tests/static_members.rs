//! Static members: as a state machine, and real nodes without a group.

use std::net::{Ipv4Addr, SocketAddr};

use ringtribe::directory::Identity;
use ringtribe::io::Evidence;
use ringtribe::protocol::membership::{Input, Output, ProbeResult, StaticMember};
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
