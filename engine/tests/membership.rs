//! Membership as a state machine: heartbeats, goodbyes, silence.

use proptest::prelude::*;
use ringtribe::directory::Identity;
use ringtribe::io::Evidence;
use ringtribe::protocol::membership::{Input, Output, ProbeResult};
use ringtribe::status::Status;
use ringtribe_wire::tribes::{Member, SHUTDOWN_COMMAND};

mod membership_bench;
use membership_bench::*;

#[test]
fn a_member_is_announced_after_its_port_answered_and_tried_ever_less_often() {
    let mut bench = Bench::new();
    bench.hear(&packet(1, 4001, 100, b"", b""));
    assert_eq!(bench.added_count(), 0, "heartbeats alone prove nothing");
    let mut tries_count = 0;
    for beat in 1..=20 {
        if bench.out.iter().any(|output| matches!(output, Output::Probe { .. })) {
            tries_count += 1;
            bench.answer(&ProbeResult::Refused);
        }
        bench.pass(FREQUENCY_MS);
        bench.hear(&packet(1, 4001, 100 + 500 * beat, b"", b""));
    }
    assert!((3..=8).contains(&tries_count), "{tries_count} tries in 10 s");
    assert_eq!((bench.added_count(), bench.gone().len()), (0, 0), "a closed port does not flap");
    bench.pass(DROP_MS);
    bench.answer(&ANSWERED);
    bench.hear(&packet(1, 4001, 20_000, b"", b""));
    bench.answer(&ANSWERED);
    assert_eq!(bench.added_count(), 1);
}

#[test]
fn a_silent_member_has_to_acknowledge() {
    let mut bench = Bench::with_member();
    bench.pass(DROP_MS - 1);
    assert_eq!(bench.answer(&ANSWERED), 0, "not suspect yet");
    bench.pass(1);
    assert_eq!(bench.answer(&ANSWERED), 1, "a connection alone proves nothing");
    assert_eq!(bench.gone(), []);
    bench.pass(DROP_MS);
    assert_eq!(bench.answer(&ProbeResult::TimedOut), 1, "asked again");
    assert_eq!(bench.gone(), [Status::Cut]);
    assert!(bench.membership.members().is_empty());
}

#[test]
fn a_suspect_that_answers_but_never_speaks_is_dropped_in_the_end() {
    let mut bench = Bench::with_member();
    for _ in 0..110 {
        bench.pass(DROP_MS);
        bench.answer(&ANSWERED);
    }
    assert_eq!(bench.gone(), [Status::Cut]);
}

#[test]
fn a_member_that_speaks_is_kept_whatever_is_lost_on_the_way() {
    let mut bench = Bench::with_member();
    let identity = Identity { host: vec![10, 0, 0, 1], port: 4001, unique_id: [1; 16] };
    for evidence in [Evidence::ConnectionLost, Evidence::AckTimeout] {
        bench.give(Input::Evidence { identity: &identity, evidence });
        bench.answer(&ProbeResult::TimedOut);
        bench.pass(FREQUENCY_MS);
        bench.hear(&packet(1, 4001, 1_000, b"", b""));
    }
    assert_eq!(bench.gone(), []);
    bench.give(Input::Evidence { identity: &identity, evidence: Evidence::ConnectionLost });
    bench.answer(&ProbeResult::Refused);
    assert_eq!(bench.gone(), [Status::Refused], "nobody listens there: at once");
}

#[test]
fn a_forged_goodbye_does_not_drop_a_member_and_a_real_one_does() {
    let mut bench = Bench::with_member();
    bench.hear(&packet(1, 4001, 200, SHUTDOWN_COMMAND, b""));
    bench.answer(&ANSWERED);
    bench.pass(FREQUENCY_MS);
    bench.hear(&packet(1, 4001, 600, b"", b""));
    for _ in 0..10 {
        bench.answer(&ANSWERED);
        bench.pass(FREQUENCY_MS);
        bench.hear(&packet(1, 4001, 1_000_000, b"", b""));
    }
    assert_eq!(bench.gone(), [], "it goes on speaking");
    bench.hear(&packet(1, 4001, 2_000_000, SHUTDOWN_COMMAND, b""));
    bench.answer(&ProbeResult::Refused);
    assert_eq!(bench.gone(), [Status::Goodbye]);
    let farewell = bench.out.iter().find_map(|output| match output {
        Output::Gone { package, .. } => Some(package.clone()),
        _ => None,
    });
    let farewell = farewell.expect("it has gone");
    let (member, _) = Member::decode(&farewell, &ringtribe_wire::Limits::default()).expect("whole");
    assert!(member.is_shutdown(), "listeners see that it was polite");
}

#[test]
fn a_node_that_restarted_takes_the_place_of_its_former_life() {
    let mut bench = Bench::with_member();
    bench.hear(&packet(2, 4001, 10, b"", b""));
    bench.answer(&ANSWERED);
    assert_eq!(bench.gone(), [Status::Cut]);
    assert_eq!(bench.membership.members().len(), 1);
    assert_eq!(bench.membership.members()[0].unique_id, [2; 16]);
}

#[test]
fn a_changed_payload_is_told_and_a_changed_age_is_not() {
    let mut bench = Bench::with_member();
    bench.hear(&packet(1, 4001, 600, b"", b""));
    bench.hear(&packet(1, 4001, 1_100, b"", b"new"));
    bench.hear(&packet(1, 4001, 1_600, b"", b"new"));
    let changed = bench.out.iter().filter(|o| matches!(o, Output::Changed { .. })).count();
    assert_eq!(changed, 1);
}

proptest! {
    #[test]
    fn whatever_comes_members_are_added_before_they_go(
        steps in proptest::collection::vec((0_u8..8, any::<u8>(), 0_u64..4_000), 1..200)
    ) {
        let mut bench = Bench::new();
        let mut view = std::collections::BTreeSet::new();
        for (step, value, ms) in steps {
            let (id, port) = (value % 5, 4001 + i32::from(value % 3));
            let alive = i64::from(value) * 100;
            match step {
                0 | 1 => bench.hear(&packet(id, port, alive, b"", b"")),
                2 => bench.hear(&packet(id, port, alive, SHUTDOWN_COMMAND, b"")),
                3 => bench.hear(&[value; 90]),
                4 => {
                    let mut broken = packet(id, port, alive, b"", b"");
                    let at = usize::from(value) % broken.len();
                    broken[at] ^= 0x80;
                    bench.hear(&broken);
                }
                5 => drop(bench.answer(&ANSWERED)),
                6 => drop(bench.answer(&ProbeResult::Refused)),
                _ => drop(bench.answer(&ProbeResult::TimedOut)),
            }
            for output in &bench.out {
                match output {
                    Output::Added { identity, .. } => prop_assert!(view.insert(identity.clone())),
                    Output::Gone { identity, .. } => prop_assert!(view.remove(identity)),
                    Output::Changed { identity, .. } => prop_assert!(view.contains(identity)),
                    _ => {}
                }
            }
            bench.out.retain(|output| matches!(output, Output::Probe { .. }));
            prop_assert_eq!(view.len(), bench.membership.members().len());
            bench.pass(ms);
            for output in &bench.out {
                match output {
                    Output::Added { identity, .. } => prop_assert!(view.insert(identity.clone())),
                    Output::Gone { identity, .. } => prop_assert!(view.remove(identity)),
                    _ => {}
                }
            }
            bench.out.retain(|output| matches!(output, Output::Probe { .. }));
        }
    }
}
