//! Membership as a state machine: heartbeats, goodbyes, silence.

use proptest::prelude::*;
use ringtribe::directory::Identity;
use ringtribe::ids::BootId;
use ringtribe::io::Evidence;
use ringtribe::protocol::membership::{Input, Membership, Output, ProbeResult, StaticMember};
use ringtribe::status::Status;
use ringtribe_wire::native::extension::Extension;
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
    bench.pass(DROP_MS / 2 - 1);
    assert_eq!(bench.answer(&ANSWERED), 0, "two or three heartbeats may be lost");
    bench.pass(1);
    assert_eq!(bench.answer(&ProbeResult::TimedOut), 1, "asked for a sign");
    bench.pass(DROP_MS / 2 - 1);
    assert_eq!(bench.answer(&ANSWERED), 0, "once, and not suspect yet");
    bench.pass(1);
    assert_eq!(bench.answer(&ANSWERED), 1, "a connection alone proves nothing");
    assert_eq!(bench.gone(), []);
    bench.pass(DROP_MS);
    assert_eq!(bench.answer(&ProbeResult::TimedOut), 1, "asked again");
    assert_eq!(bench.gone(), [Status::Cut]);
    assert!(bench.membership.members().is_empty());
}

#[test]
fn a_process_that_ran_for_a_moment_between_two_pauses_is_not_silent() {
    let mut bench = Bench::with_member();
    bench.pass(DROP_MS / 2);
    bench.pass(DROP_MS / 4);
    assert_eq!(bench.answer(&ANSWERED), 1, "what waited in its kernel, when it ran");
    bench.pass(DROP_MS / 4);
    bench.pass(1_000);
    assert_eq!(bench.answer(&ProbeResult::TimedOut), 1, "its heartbeat was lost");
    assert_eq!(bench.gone(), [], "it ran 1.75 s ago");
    bench.pass(1_000);
    assert_eq!(bench.answer(&ProbeResult::TimedOut), 1, "asked again at once");
    assert_eq!(bench.gone(), [], "2.75 s ago");
    bench.pass(1_000);
    assert_eq!(bench.answer(&ProbeResult::TimedOut), 1);
    assert_eq!(bench.gone(), [Status::Cut], "mcastDropTime after its last sign, and a probe");
}

#[test]
fn a_node_that_stood_still_itself_asks_again_before_it_drops_anybody() {
    let mut bench = Bench::with_member();
    bench.give(Input::StartSending);
    for _ in 0..3 {
        bench.pass(FREQUENCY_MS);
    }
    // It stands still; meanwhile the answer comes and its time to read it passes.
    bench.now = bench.now.plus_ms(2_500);
    assert_eq!(bench.answer(&ProbeResult::TimedOut), 1, "asked early, before");
    assert_eq!(bench.gone(), [], "it was not this node's to judge");
    assert_eq!(bench.answer(&ANSWERED), 1, "asked again at once");
    for _ in 0..8 {
        bench.pass(FREQUENCY_MS);
    }
    assert_eq!(bench.answer(&ProbeResult::TimedOut), 1);
    assert_eq!(bench.gone(), [Status::Cut], "now it runs, and nobody answers");
}

#[test]
fn who_is_another_life_and_does_not_say_where_is_not_the_member_any_more() {
    let mut bench = Bench::new();
    bench.hear_ringtribe(&packet(1, 4001, 100, b"", b""), &said(1));
    bench.answer(&ANSWERED);
    assert_eq!(bench.added_count(), 1);
    bench.pass(DROP_MS);
    bench.answer(&answer_of(&said(2)));
    assert_eq!(bench.gone(), [Status::Cut]);
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
fn a_member_that_answers_echoes_is_not_silent_until_it_stops_to() {
    let mut bench = Bench::with_member();
    let identity = Identity { host: vec![10, 0, 0, 1], port: 4001, unique_id: [1; 16] };
    // The last heartbeats before a pause were lost.
    bench.pass(2 * FREQUENCY_MS);
    bench.give(Input::Evidence { identity: &identity, evidence: Evidence::Alive });
    bench.pass(DROP_MS - 1);
    assert_eq!(bench.answer(&ProbeResult::TimedOut), 1, "asked for a sign");
    assert_eq!(bench.gone(), [], "silent for less than mcastDropTime");
    bench.pass(1);
    assert_eq!(bench.answer(&ANSWERED), 1, "now it is");
    bench.give(Input::Evidence { identity: &identity, evidence: Evidence::Alive });
    bench.pass(DROP_MS);
    assert_eq!(bench.answer(&ProbeResult::TimedOut), 1);
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
fn who_lost_a_connection_and_still_accepts_is_looked_at_again_soon_and_not_for_ever() {
    let mut bench = Bench::with_member();
    let identity = Identity { host: vec![10, 0, 0, 1], port: 4001, unique_id: [1; 16] };
    let lost = Input::Evidence { identity: &identity, evidence: Evidence::ConnectionLost };
    let looks = |bench: &mut Bench| {
        let probes = bench.out.iter().filter(|output| matches!(output, Output::Probe { .. }));
        let count = probes.count();
        bench.answer(&ANSWERED);
        count
    };
    bench.give(lost);
    assert_eq!(looks(&mut bench), 1);
    for pause_ms in [15, 30, 60] {
        bench.pass(pause_ms - 1);
        assert_eq!(looks(&mut bench), 0, "{pause_ms} ms are not over");
        bench.pass(1);
        assert_eq!(looks(&mut bench), 1, "after {pause_ms} ms");
    }
    bench.pass(FREQUENCY_MS);
    assert_eq!(looks(&mut bench), 0, "it lives");
    // The kernel has closed its listener only now.
    bench.give(Input::Evidence { identity: &identity, evidence: Evidence::ConnectionLost });
    bench.answer(&ANSWERED);
    bench.pass(15);
    bench.answer(&ProbeResult::Refused);
    assert_eq!(bench.gone(), [Status::Refused]);
}

#[test]
fn a_look_that_is_swallowed_or_hung_up_on_is_followed_by_the_next() {
    let mut bench = Bench::with_member();
    let identity = Identity { host: vec![10, 0, 0, 1], port: 4001, unique_id: [1; 16] };
    let timeout_ms = |bench: &Bench| {
        bench.out.iter().find_map(|output| match output {
            Output::Probe { timeout_ms, .. } => Some(*timeout_ms),
            _ => None,
        })
    };
    // A connection's first packet that a closing listener swallows comes again after 1 s only.
    bench.give(Input::Evidence { identity: &identity, evidence: Evidence::ConnectionLost });
    for expected_ms in [20, 40, 80] {
        assert_eq!(timeout_ms(&bench), Some(expected_ms));
        bench.answer(&ProbeResult::TimedOut);
        bench.pass(0);
    }
    assert_eq!(timeout_ms(&bench), Some(900), "the last one waits");
    bench.answer(&ProbeResult::TimedOut);
    bench.pass(0);
    assert_eq!((timeout_ms(&bench), bench.gone()), (None, vec![]), "it may still speak");
    bench.give(Input::Evidence { identity: &identity, evidence: Evidence::ConnectionLost });
    bench.answer(&ProbeResult::Unreachable);
    bench.pass(15);
    bench.answer(&ProbeResult::Refused);
    assert_eq!(bench.gone(), [Status::Refused]);
    // Who is silent for too long is judged by a probe that waits, however it lost its connection.
    let mut bench = Bench::with_member();
    bench.pass(DROP_MS - 21);
    bench.answer(&ProbeResult::TimedOut);
    bench.give(Input::Evidence { identity: &identity, evidence: Evidence::ConnectionLost });
    bench.pass(21);
    bench.answer(&ProbeResult::TimedOut);
    bench.pass(0);
    assert_eq!((timeout_ms(&bench), bench.gone()), (Some(900), vec![]));
    bench.answer(&ProbeResult::TimedOut);
    assert_eq!(bench.gone(), [Status::Cut]);
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
fn who_was_refused_and_is_not_heard_since_does_not_come_back_by_the_answer_of_another() {
    let mut bench = Bench::with_member();
    let identity = Identity { host: vec![10, 0, 0, 1], port: 4001, unique_id: [1; 16] };
    bench.give(Input::Evidence { identity: &identity, evidence: Evidence::ConnectionLost });
    bench.answer(&ProbeResult::Refused);
    assert_eq!(bench.gone(), [Status::Refused]);
    let added_count = bench.added_count();
    // Somebody listens there again, and would answer; nobody has said that it is the former one.
    for _ in 0..DROP_MS / 50 - 1 {
        bench.pass(50);
        assert_eq!(bench.answer(&ANSWERED), 0, "not asked");
    }
    assert_eq!(bench.added_count(), added_count);
    // Heard again, it is asked again.
    bench.hear(&packet(1, 4001, 9_000, b"", b""));
    bench.pass(DROP_MS);
    bench.hear(&packet(1, 4001, 9_100, b"", b""));
    bench.answer(&ANSWERED);
    assert_eq!(bench.added_count(), added_count + 1);
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

/// What has come of members since the last look; checks that each step can be.
fn follow(bench: &mut Bench, view: &mut Vec<(Identity, Option<BootId>)>) {
    let (probes, told): (Vec<_>, Vec<_>) =
        bench.out.drain(..).partition(|output| matches!(output, Output::Probe { .. }));
    bench.out = probes;
    for output in told {
        let members: Vec<Identity> = view.iter().map(|(identity, _)| identity.clone()).collect();
        let place = |identity: &Identity| members.iter().position(|is| is == identity);
        match output {
            Output::Added { identity, incarnation, .. } => {
                assert_eq!(place(&identity), None, "added twice");
                view.push((identity, incarnation.map(|life| life.boot_id)));
            }
            Output::Changed { identity, incarnation, .. } => {
                let boot_id = incarnation.map(|life| life.boot_id);
                let member = &mut view[place(&identity).expect("changed, but no member")];
                assert!(member.1.is_none() || member.1 == boot_id, "another life is another entry");
                member.1 = boot_id;
            }
            Output::Vitals { identity, .. } => assert!(place(&identity).is_some(), "no member"),
            Output::Gone { identity, .. } => {
                view.remove(place(&identity).expect("gone, but no member"));
            }
            _ => {}
        }
        for (index, (identity, boot_id)) in view.iter().enumerate() {
            for (other, other_boot_id) in &view[..index] {
                assert_ne!(identity.address(), other.address(), "two members at one address");
                assert!(boot_id.is_none() || boot_id != other_boot_id, "one life is two members");
            }
            assert_ne!(*boot_id, Some(OWN.boot_id), "this node itself");
        }
    }
    let mut members: Vec<_> = view.iter().map(|(identity, _)| identity).collect();
    let mut known = bench.membership.members();
    members.sort_unstable();
    known.sort_unstable();
    assert_eq!(members, known);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_members_are_added_before_they_go(
        steps in proptest::collection::vec((0_u8..12, any::<u8>(), any::<bool>(), 0_u64..4_000), 1..200)
    ) {
        let places = ["10.0.0.1:4001", "10.0.0.1:4003", "10.0.0.1:4004"];
        let places = places.map(|place| StaticMember {
            address: place.parse().expect("an address"),
            unique_id: None,
        });
        let membership = Membership::new(FREQUENCY_MS, DROP_MS).speaking(OWN);
        let mut bench = Bench::of(membership.with_static_members(&places));
        let mut view = Vec::new();
        for (step, value, ready, ms) in steps {
            let (id, port) = (value % 5, 4001 + i32::from(value % 3));
            // Mostly each has a life of its own; sometimes this node's or another's.
            let life = if value % 16 == 0 { 99 } else { 1 + value % 7 };
            let alive = i64::from(value) * 100;
            let package = packet(id, port, alive, b"", b"");
            let extension = Extension { ready, package: Some(&package), ..said(life) };
            let identity = Identity { host: vec![10, 0, 0, 1], port, unique_id: [id; 16] };
            match step {
                0 => bench.hear(&package),
                1 => bench.hear_ringtribe(&package, &said(life)),
                2 => bench.hear_ringtribe(&package, &extension),
                3 => bench.give(Input::Datagram { bytes: &package, from: HOST }),
                4 => {
                    bench.hear_ringtribe(&packet(id, port, alive, SHUTDOWN_COMMAND, b""), &said(life));
                }
                5 => bench.hear(&packet(id, port, alive, SHUTDOWN_COMMAND, b"")),
                6 => {
                    let mut broken = [package, block(&said(life))].concat();
                    let at = usize::from(value) % broken.len();
                    broken[at] ^= 0x80;
                    bench.give(Input::Datagram { bytes: &broken, from: HOST });
                }
                7 => drop(bench.answer(&ANSWERED)),
                8 => drop(bench.answer(&answer_of(&extension))),
                9 => drop(bench.answer(&ProbeResult::Refused)),
                10 => drop(bench.answer(&ProbeResult::TimedOut)),
                _ => bench.give(Input::Evidence {
                    identity: &identity,
                    evidence: Evidence::ConnectionLost,
                }),
            }
            follow(&mut bench, &mut view);
            bench.pass(ms);
            follow(&mut bench, &mut view);
        }
        bench.give(Input::StopReceiving);
        follow(&mut bench, &mut view);
        prop_assert!(view.is_empty());
        prop_assert_eq!(bench.membership.next_deadline(), None);
    }
}
